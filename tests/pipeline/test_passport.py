"""The passport against a look at all inputs and activations."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny_gpt2 import N_LAYERS

from nejax.pipeline.corpus.windows import Sequences
from nejax.pipeline.passes.numerics import numerical_passport


def first(sequences: Sequences, n: int) -> Sequences:
    return Sequences(*(field[:n] for field in sequences))


@pytest.mark.parametrize(("n", "batch_size"), [(4, 16), (3, 2), (1, 1)])
def test_of_the_model_itself_only_the_shape_of_products_differs(n, batch_size, model, sequences, seen):
    sample = first(sequences, n)
    found = numerical_passport(model, model, sample, batch_size=batch_size, precision=contextlib.nullcontext)
    assert len(found) == N_LAYERS
    there = np.arange(sequences.tokens.shape[1]) < sample.length[: min(n, batch_size), None]
    for layer, of_layer in enumerate(found):
        largest = np.abs(seen.activation[layer, : len(there)][there]).max()
        np.testing.assert_allclose(of_layer.activation, largest, rtol=1e-5)
        assert 0 <= of_layer.activation_difference <= 1e-5 * max(1, of_layer.activation)
        assert 0 <= of_layer.mlp_input_difference <= 1e-5 * max(1, of_layer.mlp_input)


def test_a_planted_difference_is_found_in_its_layer_and_in_those_after_it(model, sequences):
    other = nnx.merge(*nnx.split(model))
    bias = np.array(other.blocks.mlp_in.bias[...])
    bias[1, 4] += 0.5
    other.blocks.mlp_in.bias = nnx.Param(jnp.asarray(bias))
    found = numerical_passport(other, model, first(sequences, 4), batch_size=4, precision=contextlib.nullcontext)
    assert found[0].activation_difference < 1e-5 and found[1].mlp_input_difference < 1e-5
    assert 0.01 < found[1].activation_difference <= 0.6
    assert found[2].mlp_input_difference > 1e-4


def test_padding_does_not_count(model, sequences):
    """What stands behind a sequence's end may differ as it will."""
    sample = first(sequences, 4)
    found = numerical_passport(model, model, sample, batch_size=4, precision=contextlib.nullcontext)
    tokens = sample.tokens.copy()
    tokens[np.arange(tokens.shape[1]) >= sample.length[:, None]] = 7
    again = numerical_passport(
        model, model, sample._replace(tokens=tokens), batch_size=4, precision=contextlib.nullcontext
    )
    np.testing.assert_allclose([layer.activation for layer in found], [layer.activation for layer in again], rtol=1e-5)


def test_half_precision_is_seen(model, sequences):
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(x.dtype), nnx.split(model)[1])
    rounded = nnx.merge(nnx.split(model)[0], half)
    found = numerical_passport(rounded, model, first(sequences, 4), batch_size=4, precision=contextlib.nullcontext)
    for layer in found:
        assert 1e-4 * layer.mlp_input < layer.mlp_input_difference < 0.1 * layer.mlp_input
