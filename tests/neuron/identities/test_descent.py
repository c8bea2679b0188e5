import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kmeans_cases import best_inertia_after_a_move, blobs, centroids_of, inertia, units

from nejax.neuron.clustering.descent import best_move, clusters_of, inertia_of, reassign, until_unchanged

pytestmark = pytest.mark.slow  # most of the time goes to compilation

MODES = pytest.mark.parametrize("spherical", [False, True], ids=["plain", "spherical"])
K = 5


def cases(spherical):
    """Points, their squared distances, and labels of fewer than K clusters, some with one row only."""
    rng = np.random.default_rng(0)
    for n_used in (1, 2, 3, 4) * 4:
        x = blobs(rng, 13, 4, 3, rng.uniform(0, 3))
        x = units(x) if spherical else x.astype("f8")
        labels = np.r_[np.arange(n_used), np.minimum(rng.integers(0, n_used, 13 - n_used), rng.integers(0, n_used))]
        yield x, np.square(x[:, None] - x).sum(axis=-1).astype("f4"), labels.astype("i4")


@MODES
def test_clusters_are_seen_from_every_row(spherical):
    see = jax.jit(lambda squared, labels: clusters_of(squared, labels, max_clusters=K, spherical=spherical))
    for x, squared, labels in cases(spherical):
        seen, k = jax.tree.map(np.asarray, see(squared, labels)), labels.max() + 1
        np.testing.assert_array_equal(seen.size, np.bincount(labels, minlength=K))
        expected = np.square(x - centroids_of(x, labels, spherical)[:, None]).sum(axis=-1)
        np.testing.assert_allclose(seen.cost[:k], expected, rtol=1e-5, atol=1e-5)  # means of up to 50 less means
        assert (seen.cost[k:] == 0).all()
        np.testing.assert_allclose(inertia_of(see(squared, labels)), inertia(x, labels, spherical), rtol=1e-5)
        nearest = np.asarray(reassign(see(squared, labels), jnp.asarray(labels)))
        np.testing.assert_array_equal(nearest, expected.argmin(axis=0))


@MODES
def test_the_best_of_all_moves_is_made_into_empty_clusters_too(spherical):
    @jax.jit
    def move(squared, labels, n_clusters):
        seen = clusters_of(squared, labels, max_clusters=K, spherical=spherical)
        return best_move(seen, labels, n_clusters, spherical=spherical)

    n_filled = 0
    for x, squared, labels in cases(spherical):
        for n_clusters in (labels.max() + 1, K):
            moved = np.asarray(move(squared, labels, n_clusters))
            assert np.sum(moved != labels) <= 1
            n_filled += moved.max() > labels.max()
            least = min(inertia(x, labels, spherical), best_inertia_after_a_move(x, labels, n_clusters, spherical))
            np.testing.assert_allclose(
                inertia(x, np.unique(moved, return_inverse=True)[1], spherical), least, rtol=1e-5
            )
    assert n_filled >= 10


@pytest.mark.parametrize("swap", [False, True])
def test_ties_stay_as_they_are(swap):
    def on_a_line(place, labels):
        labels = jnp.asarray([1 - c for c in labels] if swap else labels)
        squared = jnp.square(jnp.asarray(place)[:, None] - jnp.asarray(place))
        return labels, clusters_of(squared, labels, max_clusters=2, spherical=False)

    labels, seen = on_a_line([0.0, 3.0, 4.5], [0, 0, 1])  # the middle row is 1.5 from both centroids
    assert reassign(seen, labels).tolist() == labels.tolist()
    labels, seen = on_a_line([0.0, 1.0, 2.0], [0, 0, 1])  # either pair has the same inertia
    assert best_move(seen, labels, jnp.int32(2), spherical=False).tolist() == labels.tolist()


def test_until_unchanged():
    step = lambda labels: jnp.maximum(labels - 1, 0)  # noqa: E731
    for max_steps, expected in ((2, [1, 0]), (3, [0, 0]), (4, [0, 0])):
        labels, unchanged = until_unchanged(step, jnp.array([3, 1]), max_steps)
        assert labels.tolist() == expected
        assert unchanged == (max_steps == 4)  # only a step that changes nothing shows it
