"""The k-th largest entry of each row, against a sort."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nejax.neuron._kernels.kth_largest import kth_largest


def sorted_kth(rows: np.ndarray, k: int) -> np.ndarray:
    return np.sort(rows, axis=1)[:, -k]


@pytest.mark.parametrize(("b", "n"), [(5, 1), (1, 40), (1, 1), (7, 15), (7, 16), (7, 17), (3, 1000)])
def test_equal_to_a_sort(b: int, n: int):
    rows = np.random.default_rng(n).normal(size=(b, n)).astype("f4")
    for k in sorted({1, min(2, n), (n + 1) // 2, n}):
        np.testing.assert_array_equal(kth_largest(jnp.asarray(rows), k), sorted_kth(rows, k))


@pytest.mark.parametrize("scale", [1e-42, 1e-38, 1.0, 1e38])
def test_any_size_of_number(scale: float):
    """Exact to the bit, from the smallest numbers to the largest."""
    rows = np.random.default_rng(0).uniform(-3, 3, (20, 33)).astype("f8") * scale
    rows = rows.astype("f4")
    for k in (1, 10, 33):
        np.testing.assert_array_equal(
            np.asarray(kth_largest(jnp.asarray(rows), k)).view("i4"), sorted_kth(rows, k).view("i4")
        )


def test_equal_entries_count_one_by_one():
    rows = np.random.default_rng(0).integers(-2, 3, (50, 21)).astype("f4")
    for k in (1, 4, 5, 12, 21):
        np.testing.assert_array_equal(kth_largest(jnp.asarray(rows), k), sorted_kth(rows, k))


def test_infinities_and_zeros():
    row = np.array([-np.inf, np.inf, 0.0, -0.0, 1.0, -1.0, -np.inf, 3e38, -3e38, 1e-45], "f4")
    rows = np.stack([row, np.full_like(row, -np.inf), np.full_like(row, np.inf), np.full_like(row, -0.0)])
    for k in (1, 4, 5, 6, 9):
        np.testing.assert_array_equal(kth_largest(jnp.asarray(rows), k), sorted_kth(rows, k))


def test_padding_is_never_an_answer():
    """17 entries are padded to 32: the 17th largest is the least of them, be it minus infinity or not."""
    rows = np.full((2, 17), -3e38, "f4")
    rows[1, 4] = -np.inf
    np.testing.assert_array_equal(kth_largest(jnp.asarray(rows), 17), [np.float32(-3e38), -np.inf])


def test_under_jit_and_vmap():
    rows = np.random.default_rng(2).normal(size=(4, 6, 37)).astype("f4")
    expected = np.sort(rows, axis=2)[:, :, -5]
    np.testing.assert_array_equal(jax.jit(lambda rows: kth_largest(rows, 5))(jnp.asarray(rows[0])), expected[0])
    np.testing.assert_array_equal(jax.vmap(lambda rows: kth_largest(rows, 5))(jnp.asarray(rows)), expected)
    np.testing.assert_array_equal(jax.jit(jax.vmap(lambda rows: kth_largest(rows, 5)))(jnp.asarray(rows)), expected)


def test_no_gradient():
    rows = jnp.asarray(np.random.default_rng(3).normal(size=(3, 20)), jnp.float32)
    np.testing.assert_array_equal(jax.grad(lambda rows: kth_largest(rows, 4).sum())(rows), np.zeros((3, 20)))
