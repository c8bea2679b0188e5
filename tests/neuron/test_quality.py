import jax
import jax.numpy as jnp
import numpy as np
import pytest
from distance_cases import DISTINCT, TIED, clustered, padded, uniform
from jax.test_util import check_grads
from sklearn import metrics

from nejax.errors import UserError
from nejax.neuron.clustering.quality import adjusted_rand_index, silhouette

narrow = jax.jit(jax.vmap(lambda distances, labels: silhouette(distances, labels, max_clusters=7), (None, 0)))
N = 30


def labelings(rng, mask):
    """Labels in 0..6 of the unmasked rows: two clusters, one row against the rest, unequal ones, with gaps."""
    size = mask.sum()
    several = np.array(
        [
            rng.integers(0, 2, size),
            np.zeros(size, int),
            np.minimum(rng.integers(0, 5, size) ** 2, 6),
            rng.choice([1, 3, 6], size),
        ]
    )
    several[:, 0] = 6  # two clusters at least, and one with two rows
    several[:, 1:3] = several[:, 1:2]
    several[several[:, 1] == 6, 1:3] = 0
    labels = np.full((len(several), len(mask)), -1, "i4")
    labels[:, mask] = several
    return labels


@pytest.mark.parametrize("kind", DISTINCT + TIED)
def test_silhouette_is_that_of_scikit_learn(kind):
    rng = np.random.default_rng(0)
    for size in (3, 10, 29, 30):
        distances, mask = padded(rng, kind(rng, size), N)
        several = labelings(rng, mask)
        found = narrow(distances, several)
        inner = distances[np.ix_(mask, mask)].astype("f8")
        for labels, samples, mean in zip(several, *map(np.asarray, found), strict=True):
            expected = metrics.silhouette_samples(inner, labels[mask], metric="precomputed")
            np.testing.assert_allclose(samples[mask], expected, rtol=0, atol=1e-5)
            np.testing.assert_allclose(mean, expected.mean(), rtol=0, atol=1e-5)
            assert np.isnan(samples[~mask]).all()
            named = np.where(mask, 1000 * labels, -1).astype("i4")  # any names will do without max_clusters
            np.testing.assert_allclose(silhouette(distances, named).samples, samples, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "labels", [[-1] * 5, [-1, -1, 2, -1, -1], [3] * 5, [0, 1, 2, 3, 4], [-1, 0, 1, -1, -1], [0, 0, 1, 1, 7]]
)
def test_silhouette_of_nothing_is_nan(labels):
    """One cluster, clusters of one row only, and a label beyond `max_clusters`."""
    found = narrow(uniform(np.random.default_rng(0), 5), np.array([labels]))
    assert np.isnan(found.samples).all()
    assert np.isnan(found.mean).all()


def test_silhouette_of_a_hand_made_case():
    """On a line at 0, 1, 4 and 9, with 9 on its own: (9 - 2.5) / 9, (8 - 2) / 8, (5 - 3.5) / 5, and 0."""
    place = np.array([0, 1, 4, 9], "f4")
    found = silhouette(np.abs(place[:, None] - place), np.array([0, 0, 0, 1]))
    expected = [6.5 / 9, 6 / 8, 1.5 / 5, 0]
    np.testing.assert_allclose(found.samples, expected, rtol=1e-6)
    np.testing.assert_allclose(found.mean, np.mean(expected), rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_silhouette_hides_no_distance_that_is_not_finite(bad):
    distances = uniform(np.random.default_rng(0), 5)
    labels = np.array([[0, 0, 1, 1, 2]])
    expected = narrow(distances, labels)
    distances[1, 3] = bad
    found = narrow(distances, labels)
    assert np.isnan(found.samples[0]).tolist() == [False, True, False, True, False]
    np.testing.assert_array_equal(found.samples[0, ::2], expected.samples[0, ::2])
    assert np.isnan(found.mean)


def test_gradient_of_the_silhouette():
    rng = np.random.default_rng(0)
    labels = np.array([0, 1, 0, -1, 1, 2])
    with jax.enable_x64(True):
        distances = jnp.asarray(uniform(rng, 6), "f8")
        check_grads(lambda d: silhouette(d, labels).mean, (distances,), order=1, modes=["rev"], rtol=1e-6)


def some_labelings(rng, n):
    return [
        np.zeros(n, "i4"),
        np.arange(n, dtype="i4"),
        np.minimum(np.arange(n), 1).astype("i4"),
        rng.integers(0, 3, n).astype("i4"),
        (rng.integers(0, 4, n) ** 2).astype("i4"),
        rng.integers(0, n, n).astype("i4"),
    ]


@pytest.mark.parametrize("n", [2, 3, 7, 50])
def test_adjusted_rand_index_is_that_of_scikit_learn(n):
    rng = np.random.default_rng(n)
    for a in some_labelings(rng, n):
        for b in some_labelings(rng, n):
            expected = metrics.adjusted_rand_score(a, b)
            np.testing.assert_allclose(adjusted_rand_index(a, b), expected, rtol=0, atol=1e-6)
        shuffled = np.where(rng.uniform(size=n) < 0.1, rng.integers(0, 3, n), a).astype("i4")
        expected = metrics.adjusted_rand_score(a, shuffled)
        np.testing.assert_allclose(adjusted_rand_index(a, shuffled), expected, rtol=0, atol=1e-6)


def test_adjusted_rand_index_of_many_rows():
    """The products of pair counts are far beyond int32, and a few rows in a thousand are all that differs."""
    a, b = np.zeros((2, 2000), "i4")
    a[:6] = b[2:9] = 1
    np.testing.assert_allclose(adjusted_rand_index(a, b), metrics.adjusted_rand_score(a, b), rtol=1e-5)


def test_adjusted_rand_index_leaves_out_rows_masked_in_either():
    rng = np.random.default_rng(0)
    a, b = rng.integers(-1, 3, (2, 50)).astype("i4")
    kept = (a >= 0) & (b >= 0)
    assert 10 < kept.sum() < 40
    expected = metrics.adjusted_rand_score(a[kept], b[kept])
    np.testing.assert_allclose(adjusted_rand_index(a, b), expected, rtol=0, atol=1e-6)
    one = np.full(50, -1, "i4")
    assert np.isnan(adjusted_rand_index(a, one))
    one[np.argmax(a >= 0)] = 0
    assert np.isnan(adjusted_rand_index(a, one))


def test_one_compilation_for_all_labelings():
    rng = np.random.default_rng(0)
    distances = clustered(rng, N)
    before = {f: f.__wrapped__._cache_size() for f in (silhouette, adjusted_rand_index)}
    for _ in range(3):
        labels = rng.integers(-1, 5, N).astype("i4")
        silhouette(distances, labels)
        adjusted_rand_index(labels, labels[::-1])
    assert all(f.__wrapped__._cache_size() - n <= 1 for f, n in before.items())


def test_errors():
    distances, labels = np.zeros((4, 4), "f4"), np.zeros(4, "i4")
    with pytest.raises(UserError, match="max_clusters is 0"):
        silhouette(distances, labels, max_clusters=0)
    many = jax.ShapeDtypeStruct((50_000,), jnp.int32)
    with pytest.raises(UserError, match="50000 rows"):
        jax.eval_shape(adjusted_rand_index, many, many)
