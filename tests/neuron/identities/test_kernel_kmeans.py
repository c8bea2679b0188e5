import jax
import jax.numpy as jnp
import numpy as np
import pytest
from distance_cases import cosine_distances, same_partition
from jax.test_util import check_grads
from kmeans_cases import KEY, OfDistances, OfRows, blobs, far_blobs, inertia, keys_of, run, units

from nejax.errors import UserError
from nejax.neuron.clustering.kernel_kmeans import kmeans_from_distances
from nejax.neuron.clustering.kmeans import kmeans
from nejax.neuron.embeddings import embedding_distances

pytestmark = pytest.mark.slow  # most of the time goes to compilation

MODES = pytest.mark.parametrize("spherical", [False, True], ids=["plain", "spherical"])


@MODES
def test_it_is_kmeans_of_the_unit_rows(spherical):
    rng = np.random.default_rng(0)
    x = [units(blobs(rng, 30, 6, 6, separation)) for separation in np.linspace(0, 4, 24)]
    numbers = np.arange(24) % 8 + 1
    of_rows = run(OfRows, [OfRows.data(each) for each in x], numbers, spherical)
    of_distances = run(OfDistances, [OfDistances.data(each) for each in x], numbers, spherical)
    for rows, distances in zip(of_rows, of_distances, strict=True):
        np.testing.assert_array_equal(distances.labels, rows.labels)
        np.testing.assert_allclose(distances.inertia, rows.inertia, rtol=1e-5)
        assert distances.converged == rows.converged


def test_half_the_squared_distances_of_any_points_will_do():
    x = blobs(np.random.default_rng(0), 30, 6, 4, 2)
    squared = np.square(x[:, None].astype("f8") - x).sum(axis=-1)
    (found,) = run(OfDistances, [(squared / 2).astype("f4")], 4, spherical=False)
    (expected,) = run(OfRows, [x], 4, spherical=False)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_allclose(found.inertia, inertia(x, found.labels, False), rtol=1e-5)


def test_only_distances_above_the_diagonal_are_read():
    distances = OfDistances.data(blobs(np.random.default_rng(0), 20, 5, 4, 1))
    both = run(OfDistances, [distances, np.triu(distances, 1) + 7 * np.tri(20, dtype="f4")], 4, spherical=False)
    keys = keys_of(2)  # run gives each its own
    expected = [kmeans_from_distances(distances, 4, key=key, max_clusters=9) for key in keys]
    for got, alone in zip(both, expected, strict=True):
        np.testing.assert_array_equal(got.labels, alone.labels)


@pytest.mark.parametrize("n_clusters", [4, None], ids=["given", "chosen"])
def test_negative_distances_give_no_answer(n_clusters):
    distances = OfDistances.data(blobs(np.random.default_rng(0), 10, 5, 4, 1))
    rounded = np.where(np.eye(10) == 1, 0, distances - distances[0, 1] - np.float32(1e-7)).clip(-1e-7)
    negative = np.where(np.eye(10) == 1, 0, distances - distances[0, 1] - np.float32(1e-3)).clip(-1e-3)
    fine, found = run(OfDistances, [rounded, negative], n_clusters, spherical=False)
    assert fine.converged
    assert found.labels.tolist() == [-1] * 10
    assert np.isnan(found.inertia)


@MODES
def test_identical_embeddings_of_many_dimensions(spherical):
    """Their cosines are 1 but for rounding, which is not taken for a difference."""
    rng = np.random.default_rng(0)
    which = np.r_[np.arange(3), rng.integers(0, 3, 27)]
    distances = embedding_distances(jnp.asarray(rng.normal(size=(3, 768)), "f4")[which], jnp.ones(768))
    wrong = np.triu(rng.integers(1, 14, distances.shape), 1) * np.finfo("f4").eps  # `embedding_distances` has a floor
    rounded = np.where(which[:, None] == which, wrong + wrong.T, distances).astype("f4")
    (found,) = run(OfDistances, [rounded], 8, spherical)
    assert found.n_clusters == 3
    np.testing.assert_array_equal(found.labels, which)


def test_directions_that_cancel_out():
    x = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])
    one, two = run(OfDistances, [cosine_distances(x)] * 2, [1, 2], spherical=True)
    np.testing.assert_allclose(one.inertia, 8, rtol=1e-6)
    np.testing.assert_allclose(two.inertia, min(2 * 4 - 4 * np.sqrt(2), 2 * (3 - 1)), rtol=1e-5)


def test_of_more_clusters_than_have_a_silhouette_none_is_tried():
    distances = OfDistances.data(blobs(np.random.default_rng(0), 5, 6, 3, 9))
    (found,) = run(OfDistances, [distances], None, spherical=False)
    np.testing.assert_array_equal(np.isfinite(found.silhouettes), [False] + [True] * 3 + [False] * 5)
    assert kmeans_from_distances(distances, None, key=KEY).silhouettes.shape == (4,)


@MODES
def test_gradients_with_the_labels_held_fixed(spherical):
    rng, apart = np.random.default_rng(0), (np.arange(7)[:, None] < 3) != (np.arange(7) < 3)
    distances = np.where(apart, 1, 0.4) + rng.uniform(-0.1, 0.1, (7, 7))

    def found(distances):
        return kmeans_from_distances(distances, 2, key=KEY, spherical=spherical).inertia

    check_grads(found, (distances.astype("f4"),), order=1, modes=["rev"], rtol=1e-2, eps=1e-2)  # differences of float32
    opposite = np.full((7, 7), 2, "f4") * (np.arange(7)[:, None] % 2 != np.arange(7) % 2)
    for edge in (np.zeros((7, 7), "f4"), opposite):
        assert np.isfinite(jax.grad(found)(edge)).all()


def test_a_neuron_from_inputs_to_clusters():
    """As it is meant to be used: a neuron's inputs and weights, its distances, its clusters."""
    x, labels = far_blobs(np.random.default_rng(0), 30, 16, 4)
    w = np.random.default_rng(1).normal(size=16).astype("f4")

    @jax.jit
    def split(x, w):
        return kmeans_from_distances(embedding_distances(x, w), None, key=KEY)

    found = split(jnp.asarray(x), jnp.asarray(w))
    assert same_partition(found.labels, labels)
    np.testing.assert_array_equal(found.labels, kmeans(units(x * w).astype("f4"), 4, key=KEY).labels)


@pytest.mark.parametrize("shape", [(3,), (2, 3, 3), (0, 3), (3, 4), ()])
def test_distances_that_are_not_square_are_refused(monkeypatch, shape):
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
    with pytest.raises(UserError, match=r"distances have shape .*expected \[n, n\]"):
        kmeans_from_distances(np.ones(shape, "f4"), 1, key=KEY)
