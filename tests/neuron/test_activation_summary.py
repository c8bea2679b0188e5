"""Summaries of activations against NumPy in float64, in the form of each backend."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nejax.neuron._kernels.one_kernel import layer_program
from nejax.neuron.streaming import activation_summary
from nejax.neuron.streaming.activation_summary import ActivationSummary, summarize_activations
from nejax.neuron.streaming.moments import Moments

FORMS = {"as here": summarize_activations, "as on accelerators": activation_summary._all_at_once}
SHAPES = [(1, 1, 5), (2, 3, 300), (1, 17, 256), (3, 8, 257), (4, 40, 24)]
"""Batch, tokens, neurons: fewer, as many and more of them than the kernel takes at a time."""


def drawn(shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Activations of few distinct values, so that peaks tie, and tokens of which some count; one row has none."""
    rng = np.random.default_rng(sum(shape))
    activation = np.round(rng.gamma(0.5, size=shape) - 0.3, 1).astype(np.float32)
    can_peak = rng.random(shape[:2]) < 0.7
    can_peak[0, 0] = True
    can_peak[1:2] = False
    return activation, can_peak


def direct(activation: np.ndarray, can_peak: np.ndarray) -> ActivationSummary:
    batch, _, n_neurons = activation.shape
    peak = np.full((batch, n_neurons), -np.inf)
    position = np.full((batch, n_neurons), -1)
    for row in range(batch):
        for neuron in range(n_neurons):
            for t in np.flatnonzero(can_peak[row]):
                if activation[row, t, neuron] > peak[row, neuron]:
                    peak[row, neuron], position[row, neuron] = activation[row, t, neuron], t
    values = activation[can_peak].astype(np.float64)
    powers = (((values - values.mean(axis=0)) ** power).sum(axis=0) for power in (2, 3, 4))
    moments = Moments(np.full(n_neurons, len(values)), values.mean(axis=0), *powers)
    return ActivationSummary(peak, position, (values > 0).sum(axis=0), moments)


def assert_same(found: ActivationSummary, expected: ActivationSummary) -> None:
    for name in ("peak", "position", "n_fired"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name).astype("f4"), err_msg=name)
    size = np.sqrt(expected.moments.m2 / expected.moments.count)
    natural = {
        "count": 1,
        "mean": 1,
        "m2": expected.moments.m2,
        **{f"m{p}": expected.moments.count * size**p for p in (3, 4)},
    }
    for name, unit in natural.items():
        got, wanted = (np.asarray(getattr(moments, name)) for moments in (found.moments, expected.moments))
        assert (np.abs(got - wanted) <= 1e-5 * unit + 1e-6).all(), name


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("form", FORMS)
def test_it_is_what_numpy_finds(form, shape):
    activation, can_peak = drawn(shape)
    found = jax.jit(FORMS[form])(jnp.asarray(activation), jnp.asarray(can_peak))
    assert_same(found, direct(activation, can_peak))
    assert [leaf.dtype for leaf in found[:3]] == ["float32", "int32", "int32"]


@pytest.mark.parametrize("form", FORMS)
def test_where_nothing_can_be_a_peak_there_is_none(form):
    activation = np.ones((2, 4, 6), np.float32)
    found = FORMS[form](jnp.asarray(activation), jnp.zeros((2, 4), bool))
    assert (np.asarray(found.peak) == -np.inf).all() and (np.asarray(found.position) == -1).all()
    assert not np.asarray(found.n_fired).any()
    assert all(not np.asarray(leaf).any() for leaf in found.moments), "and none of them is NaN"


@pytest.mark.parametrize("form", FORMS)
def test_a_value_that_is_not_finite_is_seen_in_its_neuron_s_moments_alone(form):
    activation, can_peak = drawn((2, 3, 300))
    activation[0, 0, 280] = np.nan
    moments = FORMS[form](jnp.asarray(activation), jnp.asarray(can_peak)).moments
    assert np.flatnonzero(~np.isfinite(moments.m2)).tolist() == [280]


@pytest.mark.parametrize("form", FORMS)
def test_what_does_not_count_may_be_anything(form):
    activation, can_peak = drawn((2, 3, 300))
    expected = direct(activation, can_peak)
    activation[~can_peak] = np.nan
    assert_same(FORMS[form](jnp.asarray(activation), jnp.asarray(can_peak)), expected)


def test_equal_values_deviate_by_exactly_nothing():
    found = summarize_activations(jnp.full((2, 5, 3), 0.1), jnp.ones((2, 5), bool))
    assert not np.asarray(found.moments.m2).any()


def test_under_shard_map_every_device_summarises_its_own():
    mesh = jax.make_mesh((1,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("x")
    activation, can_peak = drawn((3, 8, 257))
    spread = jax.shard_map(
        lambda a, c: jax.tree.map(lambda leaf: leaf[None], summarize_activations(a, c)),
        mesh=mesh,
        in_specs=(spec, spec),
        out_specs=spec,
    )
    found = jax.tree.map(lambda leaf: leaf[0], jax.jit(spread)(jnp.asarray(activation), jnp.asarray(can_peak)))
    assert_same(found, direct(activation, can_peak))


def test_xla_compiles_one_call():
    compiled = (
        jax.jit(layer_program(summarize_activations))
        .lower(jnp.ones((4, 16, 512)), jnp.ones((4, 16), bool))
        .compile()
        .as_text()
    )
    assert 'xla_cpu_small_call="true"' in compiled
