"""Loops as one kernel: the same function, in every composition, and really one kernel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from nejax.neuron.average_linkage import average_linkage
from nejax.neuron.one_kernel import (
    LANES,
    each_row,
    least,
    one_kernel,
    one_kernel_in_place,
    padded_to_lanes,
    small_call,
    total,
)


def steps(values, count):
    """A loop whose length is data, with an update in place: what `vmap` would make a scatter of."""

    def step(state):
        i, values = state
        return i + 1, lax.dynamic_update_slice(values, values[i][None] * 2 + i, ((i * 3) % len(values),))

    return lax.while_loop(lambda state: state[0] < count, step, (jnp.int32(0), values))[1]


VALUES, COUNTS = np.linspace(0, 1, 35, dtype=np.float32).reshape(5, 7), np.array([0, 3, 7, 1, 5], np.int32)


@pytest.mark.parametrize("on", ["cpu", "gpu"])
def test_every_composition_is_the_function_itself(on, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: on)
    kernel = one_kernel(steps)
    expected = np.stack([steps(jnp.asarray(v), c) for v, c in zip(VALUES, COUNTS, strict=True)])
    compositions = {
        "eager": lambda v, c: jnp.stack([kernel(jnp.asarray(v[i]), c[i]) for i in range(5)]),
        "vmap": jax.vmap(kernel),
        "jit of vmap": jax.jit(jax.vmap(kernel)),
        "map": lambda v, c: lax.map(lambda each: kernel(*each), (v, c)),
        "map in batches": lambda v, c: lax.map(lambda each: kernel(*each), (v, c), batch_size=2),
        "vmap of vmap": lambda v, c: jax.vmap(jax.vmap(kernel))(v[None], c[None])[0],
    }
    for name, layer in compositions.items():
        np.testing.assert_allclose(layer(jnp.asarray(VALUES), jnp.asarray(COUNTS)), expected, rtol=1e-6, err_msg=name)
    shared = jax.vmap(kernel, (0, None))(jnp.asarray(VALUES), jnp.int32(3))  # one argument for all
    for got, values in zip(shared, VALUES, strict=True):
        np.testing.assert_allclose(got, steps(jnp.asarray(values), 3), rtol=1e-6)
    with jax.disable_jit():
        np.testing.assert_allclose(kernel(jnp.asarray(VALUES[1]), 3), expected[1], rtol=1e-6)


def test_xla_compiles_one_call():
    """If a later XLA drops the mark, all is as right as before and several times slower: this says so."""
    compiled = jax.jit(average_linkage).lower(jnp.ones((20, 20))).compile().as_text()
    assert compiled.count('xla_cpu_small_call="true"') >= 1
    assert " call(" in compiled
    mapped = jax.jit(lambda d: lax.map(average_linkage, d)).lower(jnp.ones((3, 20, 20))).compile().as_text()
    assert " call(" in mapped


def test_a_single_row_is_compiled_as_usual():
    text = jax.jit(small_call(lambda x: each_row(lambda row: row * 2, x))).lower(jnp.ones((1, 5))).as_text()
    assert "xla_cpu_small_call" not in text


@pytest.mark.parametrize("on", ["cpu", "gpu"])
def test_each_row(on, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: on)
    x, scale = jnp.arange(12.0).reshape(4, 3), jnp.arange(4.0)
    got = each_row(lambda row, by: {"sum": jnp.sum(row) * by, "row": row - by}, x, scale)
    np.testing.assert_array_equal(got["sum"], x.sum(1) * scale)
    np.testing.assert_array_equal(got["row"], x - scale[:, None])


@pytest.mark.parametrize("n", [1, LANES - 1, LANES, 100, 333])
def test_least_and_total(n):
    values = np.random.default_rng(n).normal(size=n).astype("f4")
    padded = np.pad(values, (0, padded_to_lanes(n) - n), constant_values=np.inf)
    assert len(padded) % LANES == 0 and len(padded) - n < LANES
    assert least(jnp.asarray(padded)) == values.min()
    np.testing.assert_allclose(total(jnp.asarray(values)), values.astype("f8").sum(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("on", ["cpu", "gpu"])
def test_states_are_brought_up_to_date_in_every_composition(on, monkeypatch):
    """A state of two arrays; the loop's length is data."""
    monkeypatch.setattr(jax, "default_backend", lambda: on)

    def add(state, count):
        values, total = state
        values = lax.fori_loop(0, count, lambda i, v: v.at[i].add(total), values)
        return values, total + 1

    update = one_kernel_in_place(add)
    states = jnp.asarray(VALUES), jnp.arange(5.0)
    expected = VALUES + np.arange(5.0)[:, None] * (np.arange(7) < COUNTS[:, None])
    compositions = {
        "eager": lambda s, c: [
            jnp.stack(x) for x in zip(*(update((s[0][i], s[1][i]), c[i]) for i in range(5)), strict=True)
        ],
        "vmap": jax.vmap(update),
        "jit of vmap": jax.jit(jax.vmap(update)),
        "vmap of vmap": lambda s, c: [x[0] for x in jax.vmap(jax.vmap(update))((s[0][None], s[1][None]), c[None])],
    }
    for name, layer in compositions.items():
        values, total_ = layer(states, jnp.asarray(COUNTS))
        np.testing.assert_allclose(values, expected, rtol=1e-6, err_msg=name)
        np.testing.assert_array_equal(total_, np.arange(5.0) + 1, err_msg=name)
    shared, _ = jax.vmap(update, (0, None))(states, jnp.int32(3))
    np.testing.assert_allclose(shared, VALUES + np.arange(5.0)[:, None] * (np.arange(7) < 3), rtol=1e-6)
