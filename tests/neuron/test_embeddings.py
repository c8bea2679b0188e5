import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from distance_cases import cosine_distances
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads
from kmeans_cases import OfDistances, OfRows, run

import nejax
from nejax.neuron.embeddings import embedding_distances, neuron_embeddings, unit_embeddings


def test_entries_sum_to_the_preactivation_minus_the_bias():
    rng = np.random.default_rng(0)
    x, w_in = rng.normal(size=(7, 48)).astype("f4"), rng.normal(size=(48, 5)).astype("f4")
    embeddings = jax.vmap(neuron_embeddings, (None, 1))(x, w_in)
    assert embeddings.shape == (5, 7, 48)
    exact = x.astype("f8") @ w_in.astype("f8")
    # 48 products are summed in float32, and may cancel: hence the absolute tolerance
    np.testing.assert_allclose(embeddings.sum(2).T, exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("n", "d"), [(1, 3), (2, 1), (60, 768), (130, 64)])
def test_distances_are_those_of_float64(n, d):
    rng = np.random.default_rng(n)
    x, w = (1 + rng.normal(size=(n, d))).astype("f4"), rng.normal(size=d).astype("f4")
    distances = np.asarray(embedding_distances(x, w))
    expected = cosine_distances(x.astype("f8") * w)
    # a cosine near 1 has an absolute error of some 2^-24, which 1 - cos keeps
    np.testing.assert_allclose(distances, expected, rtol=1e-5, atol=5e-7)
    np.testing.assert_array_equal(distances, distances.T)
    np.testing.assert_array_equal(np.diag(distances), 0)


@given(st.integers(0, 10_000), st.lists(st.integers(-30, 30), min_size=6, max_size=6))
@settings(deadline=None, derandomize=True, max_examples=50)
def test_the_length_of_an_input_does_not_matter(seed, powers):
    rng = np.random.default_rng(seed)
    x, w = rng.normal(size=(6, 16)), rng.normal(size=16)
    scaled = (x * 10.0 ** np.array(powers)[:, None]).astype("f4")
    distances = np.asarray(embedding_distances(scaled, w.astype("f4")))
    np.testing.assert_allclose(distances, cosine_distances(x * w), rtol=1e-5, atol=5e-7)


def test_all_sides_of_the_range():
    x = np.array([[1, 0], [3, 0], [-2, 0], [0, 5]], "f4")
    expected = [[0, 0, 2, 1], [0, 0, 2, 1], [2, 2, 0, 1], [1, 1, 1, 0]]
    np.testing.assert_array_equal(embedding_distances(x, np.ones(2, "f4")), expected)


def test_identical_examples_are_at_no_distance():
    x = np.tile(np.random.default_rng(0).normal(size=(1, 768)).astype("f4"), (9, 1))
    distances = np.asarray(embedding_distances(x, x[0]))
    assert distances.min() == 0
    assert distances.max() < 5e-7


def test_a_zero_embedding_is_at_distance_one_from_everything_else():
    x = np.random.default_rng(0).normal(size=(4, 8)).astype("f4")
    x[[1, 3]] = 0
    distances = np.asarray(embedding_distances(x, np.ones(8, "f4")))
    expected = np.ones(4) - np.eye(4)
    np.testing.assert_array_equal(distances[[1, 3]], expected[[1, 3]])
    np.testing.assert_array_equal(embedding_distances(x, np.zeros(8, "f4")), expected)


def test_a_non_finite_input_is_not_hidden():
    x = np.ones((3, 4), "f4")
    x[1, 2] = np.nan
    x[2, 0] = np.inf
    distances = np.asarray(embedding_distances(x, np.ones(4, "f4")))
    assert np.isnan(distances[np.triu_indices(3, 1)]).all()


def test_half_precision_is_computed_in_float32():
    rng = np.random.default_rng(0)
    x, w = (jnp.asarray(rng.normal(size=shape), jnp.bfloat16) for shape in ((9, 32), (32,)))
    distances = embedding_distances(x, w)
    assert distances.dtype == jnp.float32
    expected = cosine_distances(np.asarray(x, "f8") * np.asarray(w, "f8"))
    np.testing.assert_allclose(distances, expected, rtol=1e-5, atol=5e-7)


@pytest.mark.slow
def test_gradient_against_finite_differences():
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x, w, weights = rng.normal(size=(5, 6)), rng.normal(size=6), rng.normal(size=(5, 5))
        check_grads(
            lambda x, w: jnp.sum(weights * embedding_distances(x, w)),
            (x, w),
            order=1,
            modes=["rev"],
            rtol=1e-6,
        )


@jax.jit
@functools.partial(jax.grad, argnums=(0, 1))
def gradients_of_both(x, w):
    return jnp.sum(embedding_distances(x, w)) + jnp.sum(unit_embeddings(x, w))


@pytest.mark.parametrize("scale", [0, 1e-42, 1e-30, 1, 1e30])
def test_gradients_are_finite_with_zero_tiny_huge_and_identical_rows(scale):
    x = np.ones((4, 3), "f4")
    x[1] = np.array([1, -2, 3], "f4") * np.float32(scale)
    x[3, 1] = 2

    # at 1e-30 the gradient itself is some 1e30, at 1e30 it is some 1e-30
    gradients = gradients_of_both(x, np.array([1, 0.5, -1], "f4"))
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    if scale == 0:
        np.testing.assert_array_equal(gradients[0][1], 0)


def on_one_line(d: int) -> tuple[np.ndarray, np.ndarray]:
    """Multiples of one vector, up to 10,000 times as long, and weights."""
    rng = np.random.default_rng(d)
    w, lengths = rng.normal(size=d).astype("f4"), np.exp(rng.uniform(-4.6, 4.6, (20, 1))).astype("f4")
    return lengths * rng.normal(size=d).astype("f4"), w


@pytest.mark.parametrize("d", [1, 3, 64, 768, 8192])
def test_what_differs_by_rounding_alone_has_one_direction(d):
    assert not np.asarray(embedding_distances(*on_one_line(d))).any()


@pytest.mark.slow
def test_no_clustering_makes_anything_of_rounding():
    """In the shapes of the tests of k-means and of spectral clustering."""
    x, w = on_one_line(3)
    distances, n = np.asarray(embedding_distances(x, w)), len(x)
    units = x * w / np.linalg.norm(x * w, axis=1, keepdims=True)
    full, mask = np.full((100, 100), np.nan, "f4"), np.arange(100) < n
    full[:n, :n] = distances
    for labels in (
        nejax.cut(nejax.average_linkage(distances), 0.0),
        nejax.connected_components(distances, 0.0),
        run(OfDistances, [distances], None, spherical=False)[0].labels,
        run(OfRows, [OfRows.data(units)], None, spherical=False)[0].labels,
        nejax.spectral(full, key=jax.random.key(0), mask=mask).labels[:n],
    ):
        assert len(labels) == n and not np.asarray(labels).any()
