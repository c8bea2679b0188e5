"""Token importance against its formula in float64, and where there is nothing to say."""

import jax.numpy as jnp
import numpy as np
import pytest

from nejax.neuron.importance import ROUNDING, token_importance


def by_formula(activation: np.ndarray, without: np.ndarray) -> np.ndarray:
    """One peak, one token at a time, in float64."""
    found = np.full(without.shape, np.nan)
    for peak in np.ndindex(activation.shape):
        a, own = np.float64(activation[peak]), np.float64(activation[peak]) - np.float64(without[peak][0])
        for offset, left in enumerate(without[peak]):
            if own > ROUNDING * abs(a) and not np.isnan(left):
                found[peak][offset] = min(max((a - np.float64(left)) / own, 0), 1)
    return found


def some_peaks(shape: tuple[int, ...], n_offsets: int) -> tuple[np.ndarray, np.ndarray]:
    """Of any size and sign; some tokens raise the activation, a few peaks' own too, some are missing."""
    rng = np.random.default_rng(0)
    activation = rng.normal(2, 2, shape).astype(np.float32)
    lost = rng.normal(0.5, 1, (*shape, n_offsets))
    lost[..., 0] = rng.uniform(0.2, 2, shape) * np.where(rng.random(shape) < 0.1, -1, 1)
    without = (activation[..., None] - lost).astype(np.float32)
    n_there = rng.integers(1, n_offsets + 1, shape)
    return activation, np.where(np.arange(n_offsets) < n_there[..., None], without, np.nan).astype(np.float32)


@pytest.mark.parametrize("shape", [(), (200,), (3, 5, 7)])
def test_is_the_formula(shape: tuple[int, ...]):
    activation, without = some_peaks(shape, 6)
    found = np.asarray(token_importance(jnp.asarray(activation), jnp.asarray(without)))
    assert found.shape == (*shape, 6) and found.dtype == np.float32
    # float32 differences of values near 8, over an own effect of 0.2 or more
    np.testing.assert_allclose(found, by_formula(activation, without), rtol=1e-5, atol=5e-6)


def test_by_hand():
    """Half of the effect, all, more than all, less than nothing, none there."""
    found = token_importance(jnp.float32(4), jnp.array([2, 3, 2, -8, 5, jnp.nan], jnp.float32))
    np.testing.assert_array_equal(found, [1, 0.5, 1, 1, 0, np.nan])


def test_its_own_token_has_importance_one():
    activation, without = some_peaks((500,), 4)
    own = np.asarray(token_importance(jnp.asarray(activation), jnp.asarray(without)))[:, 0]
    falls = activation - without[:, 0] > ROUNDING * abs(activation)
    assert falls.any() and not falls.all()
    np.testing.assert_allclose(own, np.where(falls, 1, np.nan), rtol=1e-6)


@pytest.mark.parametrize("own_left", [1.0, 1.5, 1 - 5e-7, np.nan])
def test_nothing_to_divide_by(own_left: float):
    """Without its own token the activation is the same, higher, less by rounding alone, or not known."""
    found = token_importance(jnp.float32(1), jnp.array([own_left, 0.2, 1, jnp.nan], jnp.float32))
    assert np.isnan(found).all()


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_what_counts_as_rounding_goes_with_the_activation(scale: float):
    falls = token_importance(jnp.float32(scale), scale * jnp.array([1 - 1e-5, 1 - 1e-5, 1], jnp.float32))
    np.testing.assert_array_equal(falls, [1, 1, 0])
    assert np.isnan(token_importance(jnp.float32(scale), scale * jnp.array([1 - 2e-7, 0, 1], jnp.float32))).all()


def test_negative_activations_can_fall_too():
    np.testing.assert_allclose(
        token_importance(jnp.float32(-0.1), jnp.array([-0.17, -0.135, 0.3], jnp.float32)), [1, 0.5, 0], rtol=1e-5
    )


def test_a_peak_that_is_silent_without_effect():
    """An activation of exactly 0 that stays 0: no division by zero, and one that falls counts."""
    assert np.isnan(token_importance(jnp.float32(0), jnp.zeros(3, jnp.float32))).all()
    np.testing.assert_array_equal(token_importance(jnp.float32(0), jnp.array([-1, -0.5, 1], jnp.float32)), [1, 0.5, 0])


def test_no_peaks():
    assert token_importance(jnp.zeros(0), jnp.zeros((0, 4))).shape == (0, 4)
