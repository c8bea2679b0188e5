"""Loops as one kernel: only in layer programs, really one kernel there, and the same function in both forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from nejax.neuron._kernels.one_kernel import (
    LANES,
    each_row,
    layer_program,
    least,
    loops_are_kernels,
    padded_to_lanes,
    small_call,
    total,
)
from nejax.neuron.clustering.average_linkage import average_linkage

MARK = "xla_cpu_small_call"


@small_call
def doubled(x):
    return each_row(lambda row: row * 2, x)


def compiled(function, *args):
    return jax.jit(function).lower(*args).compile().as_text()


def test_xla_compiles_one_call_in_a_layer_program():
    """If a later XLA drops the mark, all is as right as before and several times slower: this says so."""
    layer = layer_program(lambda distances: lax.map(average_linkage, distances))
    text = compiled(layer, jnp.ones((3, 20, 20)))
    assert MARK in text and " call(" in text


def test_nothing_is_marked_outside_of_one_though_it_was_traced_inside():
    """One function in both forms: JAX must not take what it traced for the other."""
    x = jnp.ones((4, 3))
    inside = jax.jit(layer_program(doubled)).lower(x).as_text()
    outside = jax.jit(doubled).lower(x).as_text()
    assert MARK in inside and MARK not in outside
    distances = jnp.ones((20, 20))
    assert MARK in jax.jit(layer_program(average_linkage)).lower(distances).as_text()
    assert MARK not in jax.jit(average_linkage).lower(distances).as_text()
    assert MARK in jax.jit(layer_program(average_linkage)).lower(distances).as_text()


def test_a_layer_program_ends_where_it_ends():
    with pytest.raises(ZeroDivisionError):
        layer_program(lambda: 1 / 0)()
    assert not loops_are_kernels()
    assert layer_program(loops_are_kernels)()


def test_other_backends_have_no_such_kernels(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert not layer_program(loops_are_kernels)()


def test_a_single_row_is_compiled_as_usual():
    assert MARK not in jax.jit(layer_program(doubled)).lower(jnp.ones((1, 5))).as_text()


@pytest.mark.parametrize("form", [lambda function: function, layer_program], ids=["plain", "kernels"])
def test_each_row(form):
    x, scale = jnp.arange(12.0).reshape(4, 3), jnp.arange(4.0)
    got = form(lambda: each_row(lambda row, by: {"sum": jnp.sum(row) * by, "row": row - by}, x, scale))()
    np.testing.assert_array_equal(got["sum"], x.sum(1) * scale)
    np.testing.assert_array_equal(got["row"], x - scale[:, None])


@pytest.mark.parametrize("n", [1, LANES - 1, LANES, 100, 333])
def test_least_and_total(n):
    values = np.random.default_rng(n).normal(size=n).astype("f4")
    padded = np.pad(values, (0, padded_to_lanes(n) - n), constant_values=np.inf)
    assert len(padded) % LANES == 0 and len(padded) - n < LANES
    assert least(jnp.asarray(padded)) == values.min()
    np.testing.assert_allclose(total(jnp.asarray(values)), values.astype("f8").sum(), rtol=1e-6, atol=1e-6)
