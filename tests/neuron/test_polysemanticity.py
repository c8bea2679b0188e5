import jax
import jax.numpy as jnp
import numpy as np
import pytest
from distance_cases import constant, cosine_distances, gaussian, padded, uniform
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from nejax.neuron.embeddings import embedding_distances
from nejax.neuron.polysemanticity import (
    count_unit_embeddings,
    neuron_embedding_loss,
    polysemanticity,
    streaming_mean_distance,
    sum_unit_embeddings,
)


def measures(distances, labels):
    """The six measures in float64, pair by pair."""
    rows = np.flatnonzero(labels >= 0)
    pairs = [(i, j) for i in rows for j in rows if i < j]
    every = np.array([distances[i, j] for i, j in pairs], "f8")
    same = np.array([labels[i] == labels[j] for i, j in pairs], bool)

    def mean(values):
        return values.mean() if len(values) else np.nan

    return [
        every.max() if len(every) else np.nan,
        mean(every),
        mean(every[same]),
        mean(every[~same]),
        len(rows),
        len(np.unique(labels[rows])),
    ]


@pytest.mark.parametrize("kind", [uniform, gaussian, constant])
@pytest.mark.parametrize(("n", "size"), [(1, 1), (2, 2), (30, 30), (30, 17), (200, 200), (200, 150)])
def test_equal_to_float64_numpy(kind, n, size):
    rng = np.random.default_rng(n + size)
    distances, mask = padded(rng, kind(rng, size), n)
    clusters = rng.integers(0, 6, n) ** 2  # unequal clusters, and labels that are not all in use
    labels = np.where(mask, clusters, -1).astype("i4")
    np.testing.assert_allclose(polysemanticity(distances, labels), measures(distances, labels), rtol=0, atol=1e-6)


def test_clusters_are_pooled_pair_by_pair():
    """Three pairs at 0.1 and one at 0.5: 0.2 over the pairs, but 0.3 as the mean of the clusters' means."""
    distances = np.full((6, 6), 0.9, "f4")
    distances[:3, :3] = 0.1
    distances[3:5, 3:5] = 0.5
    measured = polysemanticity(distances, np.array([0, 0, 0, 1, 1, 2]))
    np.testing.assert_allclose(measured.intra_cluster_distance, 0.2, rtol=1e-6)
    np.testing.assert_allclose(measured.inter_cluster_distance, 0.9, rtol=1e-6)
    np.testing.assert_allclose(measured.mean_distance, (3 * 0.1 + 0.5 + 11 * 0.9) / 15, rtol=1e-6)
    np.testing.assert_allclose(measured.max_distance, 0.9, rtol=1e-6)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([-1, -1, -1], [np.nan, np.nan, np.nan, np.nan, 0, 0]),
        ([-1, 0, -1], [np.nan, np.nan, np.nan, np.nan, 1, 1]),
        ([0, 0, 0], [0.5, 0.5, 0.5, np.nan, 3, 1]),
        ([0, 1, 2], [0.5, 0.5, np.nan, 0.5, 3, 3]),
    ],
)
def test_no_pair_is_nan(labels, expected):
    distances = np.full((3, 3), 0.5, "f4")
    np.testing.assert_array_equal(polysemanticity(distances, np.array(labels)), expected)


def test_a_nan_distance_is_not_hidden():
    distances = uniform(np.random.default_rng(0), 4)
    distances[0, 1] = np.nan
    measured = polysemanticity(distances, np.array([0, 0, 1, 1]))
    assert np.isnan(measured[:3]).all()
    assert np.isfinite(measured.inter_cluster_distance)


def test_gradient_of_the_measures():
    rng = np.random.default_rng(0)
    labels = np.array([0, 1, 0, -1, 1, 2])
    with jax.enable_x64(True):
        check_grads(
            lambda distances: jnp.stack(polysemanticity(distances, labels)[:4]),
            (jnp.asarray(uniform(rng, 6), "f8"),),
            order=1,
            modes=["rev"],
            rtol=1e-6,
        )
    undefined = jax.grad(lambda distances: polysemanticity(distances, np.full(6, -1)).mean_distance)
    assert np.isfinite(undefined(uniform(rng, 6))).all()


def layer(seed, b=40, d=24, n=7):
    """Inputs, weights of a few neurons, and which inputs are examples of each: none, one, two, ... all."""
    rng = np.random.default_rng(seed)
    x, w_in = (0.5 + rng.normal(size=(b, d))).astype("f4"), rng.normal(size=(d, n)).astype("f4")
    mask = rng.uniform(size=(b, n)).argsort(0) < np.array([0, 1, 2, 3, b // 2, b - 1, b])
    return x, w_in, mask


def pairwise_mean_distances(x, w_in, mask):
    means = []
    for w, examples in zip(w_in.T.astype("f8"), mask.T, strict=True):
        pairs = np.triu_indices(examples.sum(), 1)
        with np.errstate(invalid="ignore"):
            means.append(cosine_distances(x[examples] * w)[pairs].mean(dtype="f8") if len(pairs[0]) else np.nan)
    return means


@given(st.integers(0, 10_000))
@settings(deadline=None, derandomize=True, max_examples=25)
def test_streaming_mean_distance_is_that_of_the_pairs(seed):
    x, w_in, mask = layer(seed)
    # in batches of ten, added up
    batches = [(x[i : i + 10], w_in, mask[i : i + 10]) for i in range(0, 40, 10)]
    sums = sum(sum_unit_embeddings(*batch) for batch in batches)
    counts = sum(count_unit_embeddings(*batch) for batch in batches)
    np.testing.assert_array_equal(counts, mask.sum(0))
    expected = pairwise_mean_distances(x, w_in, mask)
    np.testing.assert_allclose(streaming_mean_distance(sums, counts), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(streaming_mean_distance(sums, mask.sum(0)), expected, rtol=1e-5, atol=1e-6)


def test_streaming_agrees_with_the_measure():
    x, w_in, mask = layer(1)

    def measured(w, mask):
        return polysemanticity(embedding_distances(x, w), jnp.where(mask, 0, -1)).mean_distance

    streamed = streaming_mean_distance(sum_unit_embeddings(x, w_in, mask), mask.sum(0))
    np.testing.assert_allclose(streamed, jax.vmap(measured, 1)(w_in, mask), rtol=1e-5, atol=1e-6)


def test_sums_are_linear_in_any_weights():
    x, w_in, _ = layer(2)
    weights = np.random.default_rng(0).normal(size=(40, 7)).astype("f4")
    embeddings = x[:, :, None].astype("f8") * w_in[None]
    units = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    expected = np.einsum("bdn,bn->dn", units, weights)
    np.testing.assert_allclose(sum_unit_embeddings(x, w_in, weights), expected, rtol=1e-5, atol=1e-5)


def test_scales_do_not_matter():
    x, w_in, mask = layer(3)
    expected = sum_unit_embeddings(x, w_in, mask)
    scaled_x = x * np.logspace(-30, 30, 40, dtype="f4")[:, None]
    scaled_w = w_in * np.logspace(-25, 25, 7, dtype="f4")[None, :]
    np.testing.assert_allclose(sum_unit_embeddings(scaled_x, scaled_w, mask), expected, rtol=1e-5, atol=1e-5)


def test_zero_embeddings_add_zero_and_are_not_counted():
    x, w_in, mask = layer(4)
    x[5:15] = 0
    w_in[:, 6] = 0
    sums, counts = sum_unit_embeddings(x, w_in, mask), count_unit_embeddings(x, w_in, mask)
    kept = mask.copy()
    kept[5:15] = False
    kept[:, 6] = False
    np.testing.assert_array_equal(counts, kept.sum(0))
    np.testing.assert_allclose(sums, sum_unit_embeddings(x, w_in, kept), rtol=1e-6, atol=1e-6)
    expected = pairwise_mean_distances(x, w_in, kept)
    np.testing.assert_allclose(streaming_mean_distance(sums, counts), expected, rtol=1e-5, atol=1e-6)
    assert np.isnan(streaming_mean_distance(sums, counts)[6])


@pytest.mark.parametrize(("other", "expected"), [([1.0, 2.0], 0), ([-1.0, -2.0], 2), ([-2.0, 1.0], 1)])
def test_two_examples(other, expected):
    x = np.array([[1.0, 2.0], other], "f4")
    sums = sum_unit_embeddings(x, np.ones((2, 1), "f4"), np.ones((2, 1), "f4"))
    np.testing.assert_allclose(streaming_mean_distance(sums, np.array([2])), [expected], atol=5e-7)


def test_many_examples_do_not_overflow_the_count():
    """n (n - 1) does not fit into int32 for a corpus."""
    n = 3_000_000
    sums = n * np.sqrt(np.array([[0.75], [0.0]], "f4"))
    np.testing.assert_allclose(streaming_mean_distance(sums, np.array([n])), [0.25], rtol=1e-6)


def test_gradient_of_the_loss():
    with jax.enable_x64(True):
        x, w_in, mask = layer(5, b=8, d=5)
        x, w_in = x.astype("f8"), w_in.astype("f8")

        def loss(x, w_in):
            distances = streaming_mean_distance(sum_unit_embeddings(x, w_in, mask), mask.sum(0))
            return jnp.nansum(distances * np.arange(1, 8))

        check_grads(loss, (x, w_in), order=1, modes=["rev"], rtol=1e-6)


def test_gradients_are_finite_with_zero_embeddings_and_few_examples():
    x, w_in, mask = layer(6)
    x[:3] = 0
    w_in[:, 5] = 0

    def loss(x, w_in):
        counts = count_unit_embeddings(x, w_in, mask)
        return jnp.nansum(streaming_mean_distance(sum_unit_embeddings(x, w_in, mask), counts))

    gradients = jax.grad(loss, (0, 1))(x, w_in)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    np.testing.assert_array_equal(gradients[0][:3], 0)
    np.testing.assert_array_equal(gradients[1][:, [0, 1, 5]], 0)
    assert np.abs(gradients[1][:, [2, 3, 4, 6]]).min() > 0


# --- the neuron-embedding loss


@jax.jit
def mean_of_pairs(x, w_in, mask):
    """The loss by its definition: a neuron's mean over pairs of its examples, then a mean over neurons with a pair."""
    distances = jax.vmap(embedding_distances, (None, 1))(x, w_in)
    pairs = mask.T[:, :, None] & mask.T[:, None, :] & jnp.triu(jnp.ones((len(x), len(x)), bool), 1)
    n_pairs = pairs.sum((1, 2))
    means = jnp.where(pairs, distances, 0).sum((1, 2)) / jnp.maximum(n_pairs, 1)
    return means.sum() / (n_pairs > 0).sum()


@pytest.mark.parametrize("seed", range(3))
def test_the_loss_is_the_mean_of_the_pairs(seed):
    x, w_in, mask = layer(seed)
    np.testing.assert_allclose(neuron_embedding_loss(x, w_in, mask), mean_of_pairs(x, w_in, mask), rtol=1e-5)
    expected = np.nanmean(pairwise_mean_distances(x, w_in, mask))
    np.testing.assert_allclose(neuron_embedding_loss(x, w_in, mask.astype("f4")), expected, rtol=1e-5)


def test_gradients_of_the_loss_are_those_of_the_pairs():
    with jax.enable_x64(True):
        x, w_in, mask = layer(7, b=9, d=6)
        x, w_in = jnp.asarray(x, "f8"), jnp.asarray(w_in, "f8")
        check_grads(lambda x, w_in: neuron_embedding_loss(x, w_in, mask), (x, w_in), order=1, modes=["rev"], rtol=1e-6)
        gradients = jax.grad(neuron_embedding_loss, (0, 1))(x, w_in, mask)
        expected = jax.grad(mean_of_pairs, (0, 1))(x, w_in, mask)
    for gradient, of_pairs in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(gradient, of_pairs, rtol=1e-6, atol=1e-9)
        assert np.abs(of_pairs).max() > 1e-3


def test_the_loss_leaves_out_neurons_without_a_pair():
    x, w_in, mask = layer(8)
    few = mask.sum(0) < 2
    assert few.sum() == 2
    expected = neuron_embedding_loss(x, w_in[:, ~few], mask[:, ~few])
    np.testing.assert_allclose(neuron_embedding_loss(x, w_in, mask), expected, rtol=1e-6)
    gradient = jax.grad(neuron_embedding_loss, 1)(x, w_in, mask)
    np.testing.assert_array_equal(gradient[:, few], 0)
    assert np.isfinite(gradient).all() and np.abs(gradient[:, ~few]).min() > 0


def test_the_loss_of_no_pair_is_zero():
    x, w_in, _ = layer(9)
    for mask in (np.zeros((40, 7), bool), np.arange(40)[:, None] == np.arange(7)):
        loss, gradients = jax.value_and_grad(neuron_embedding_loss, (0, 1))(x, w_in, mask)
        assert loss == 0
        jax.tree.map(lambda gradient: np.testing.assert_array_equal(gradient, 0), gradients)


def test_zero_inputs_are_in_no_pair_of_the_loss():
    x, w_in, mask = layer(10)
    x[::4] = 0
    kept = x.any(axis=1)
    loss, gradients = jax.value_and_grad(neuron_embedding_loss, (0, 1))(x, w_in, mask)
    np.testing.assert_allclose(loss, neuron_embedding_loss(x[kept], w_in, mask[kept]), rtol=1e-5)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
