"""Streaming moments against NumPy and SciPy in float64 over the whole data."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from nejax.neuron.streaming.moments import Moments, Shape, merge_moments, moments_of, no_moments, shape_of

moments = jax.jit(moments_of)
merge = jax.jit(merge_moments)
shape = jax.jit(shape_of)


def direct(values: np.ndarray) -> Moments:
    """Float64, of `[n, neurons]`."""
    values = values.astype(np.float64)
    mean = values.mean(axis=0) if len(values) else np.zeros(values.shape[1:])
    powers = (((values - mean) ** p).sum(axis=0) for p in (2, 3, 4))
    return Moments(np.full(mean.shape, len(values)), mean, *powers)


def assert_same(found: Moments, values: np.ndarray, tolerance: float) -> None:
    """Each sum of powers `m_p` is compared in units of `n std^p`, its natural size: an odd one may well be near 0."""
    expected = direct(values)
    assert np.array_equal(found.count, expected.count)
    n, std = max(len(values), 1), np.sqrt(expected.m2 / max(len(values), 1))
    # A float32 mean cannot be nearer than its own rounding; it is compared in units of the values' size.
    size = np.abs(values).max(axis=0, initial=1e-30)
    for name, unit in {"mean": size, "m2": n * std**2, "m3": n * std**3, "m4": n * std**4}.items():
        got, wanted = (np.asarray(getattr(m, name), np.float64) for m in (found, expected))
        error = np.abs(got - wanted) / np.maximum(np.maximum(unit, np.abs(wanted)), 1e-300)
        assert error.max() <= tolerance, f"{name}: {error.max():.1e}"


def in_batches(values: np.ndarray, sizes: list[int], width: int) -> Moments:
    """As collection does it: batches of one shape, filled up with rows that do not count."""
    found, start = no_moments(*values.shape[1:]), 0
    for size in sizes:
        batch = np.full((width, *values.shape[1:]), 1e6, np.float32)
        part = values[start : start + size]
        batch[: len(part)] = part
        found = merge(found, moments(jnp.asarray(batch), jnp.arange(width) < len(part)))
        start += size
    assert start >= len(values), "the sizes must cover the values"
    return found


@pytest.mark.parametrize("seed", range(3))
def test_one_batch_with_a_mask(seed):
    rng = np.random.default_rng(seed)
    values = rng.gamma(0.5, size=(400, 6)).astype(np.float32) - 0.2  # skewed, like activations
    mask = rng.random(400) < 0.7
    assert_same(moments(jnp.asarray(values), jnp.asarray(mask)), values[mask], 1e-6)


@given(st.lists(st.integers(0, 64), min_size=1, max_size=8), st.integers(0, 2**32 - 1))
@settings(deadline=None, derandomize=True, max_examples=25)
def test_any_split_into_batches_even_empty_ones_gives_the_moments_of_all(sizes, seed):
    rng = np.random.default_rng(seed)
    values = (rng.gamma(0.5, size=(sum(sizes), 3)) * [1, 100, 1e-3] - [0, 3, 0]).astype(np.float32)
    assert_same(in_batches(values, sizes, 64), values, 3e-6)


def test_the_order_of_merging_does_not_matter():
    values = np.random.default_rng(0).exponential(size=(192, 4)).astype(np.float32)
    parts = [moments(jnp.asarray(part), jnp.ones(24, bool)) for part in np.split(values, 8)]
    assert_same(functools.reduce(merge, parts), values, 1e-6)
    assert_same(functools.reduce(lambda a, b: merge(b, a), parts), values, 1e-6)
    tree = parts
    while len(tree) > 1:
        tree = [merge(a, b) for a, b in zip(tree[::2], tree[1::2], strict=True)]
    assert_same(tree[0], values, 1e-6)


@pytest.mark.parametrize("mean", [100.0, -3000.0])
def test_a_small_spread_about_a_large_mean(mean):
    """Sums of squares and cubes of the values themselves would leave no digit of these."""
    rng = np.random.default_rng(1)
    values = (mean + rng.exponential(size=(600, 5))).astype(np.float32)
    # The mean is a float32: off by up to 2^-24 of itself, 2e-4 of the spread at 3,000, three times that in m3.
    tolerance = 3 * abs(mean) * 2**-24 + 1e-6
    assert_same(moments(jnp.asarray(values), jnp.ones(600, bool)), values, tolerance)
    assert_same(in_batches(values, [100] * 6, 100), values, tolerance)


def test_many_batches():
    """Rounding does not pile up: 3,000 merges, as of six million tokens."""
    values = np.random.default_rng(2).gamma(0.3, size=(24_000, 2)).astype(np.float32)
    parts = jax.vmap(moments_of)(values.reshape(3000, 8, 2), jnp.ones((3000, 8), bool))
    found, _ = jax.lax.scan(lambda a, b: (merge_moments(a, b), None), no_moments(2), parts)
    # Worst of ten seeds: 4e-6, from 3,000 roundings of growing sums.
    assert_same(found, values, 1e-5)


def test_shape_is_that_of_scipy():
    rng = np.random.default_rng(3)
    values = np.stack([rng.normal(2, 3, 500), rng.gamma(0.5, size=500), -rng.exponential(size=500)], 1).astype("f4")
    found = shape(in_batches(values, [200, 0, 200, 100], 200))
    exact = values.astype(np.float64)
    expected = Shape(exact.mean(0), exact.var(0), scipy.stats.skew(exact), scipy.stats.kurtosis(exact, fisher=False))
    for name, got, wanted in zip(Shape._fields, found, expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, err_msg=name)


def test_what_too_few_values_do_not_say_is_nan():
    """Nothing at all has no mean; one value has a variance of 0 and no skewness."""
    nothing = Moments(*(field[0] for field in no_moments(1)))
    assert np.isnan(shape(nothing)).all()
    one = moments(jnp.array([[7.5], [3.0]]), jnp.array([True, False]))
    assert [float(field[0]) for field in one] == [1, 7.5, 0, 0, 0]
    said = shape(one)
    assert (float(said.mean[0]), float(said.variance[0])) == (7.5, 0)
    assert np.isnan(said.skewness[0]) and np.isnan(said.kurtosis[0])


@pytest.mark.parametrize("n", [10, 2031])
def test_values_all_the_same_have_no_skewness(n):
    """Whose sum rounds, so that `sum / n` is not the value: the deviations must be 0 all the same."""
    constants = np.array([0.1, 0.3, 7.7, -0.17, 1e-6, 12345.678, 0.0], np.float32)
    batch = moments(jnp.asarray(np.tile(constants, (n, 1))), jnp.ones(n, bool))
    for found in (batch, merge(batch, batch), merge(no_moments(7), batch), merge(batch, no_moments(7))):
        said = shape(found)
        assert np.array_equal(said.mean, constants)
        assert np.array_equal(said.variance, np.zeros(7))
        assert np.isnan(said.skewness).all() and np.isnan(said.kurtosis).all()


def test_masked_values_never_matter_even_where_they_are_not_finite():
    values = np.random.default_rng(4).normal(size=(20, 3)).astype(np.float32)
    mask = np.arange(20) % 3 > 0
    dirty = np.where(mask[:, None], values, np.array([np.nan, np.inf, -1e30], np.float32))
    found = moments(jnp.asarray(dirty), jnp.asarray(mask))
    assert_same(found, values[mask], 1e-6)
    empty = moments(jnp.asarray(dirty), jnp.zeros(20, bool))
    assert all(np.array_equal(field, np.zeros(3)) for field in empty)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", [0, 5])
def test_a_value_that_is_not_finite_shows_in_the_mean(bad, row):
    """Collection looks at the mean alone to refuse such values."""
    values = np.ones((8, 2), np.float32)
    values[row, 1] = bad
    mean = np.asarray(moments(jnp.asarray(values), jnp.ones(8, bool)).mean)
    assert np.isfinite(mean).tolist() == [True, False]


def test_neurons_side_by_side_are_as_each_alone():
    values = np.random.default_rng(5).normal(size=(30, 2, 3)).astype(np.float32)
    mask = jnp.asarray(np.arange(30) < 25)
    together = moments(jnp.asarray(values), mask)
    for i in np.ndindex(2, 3):
        alone = moments(jnp.asarray(values[:, *i]), mask)
        for name in Moments._fields:
            np.testing.assert_allclose(getattr(together, name)[i], getattr(alone, name), rtol=1e-5, atol=1e-6)
