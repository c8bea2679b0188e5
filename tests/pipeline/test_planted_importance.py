"""A planted pattern: a GPT-2 built by hand that looks for what followed an earlier occurrence of the same token.

After "... A B ... A" one neuron fires because B followed A before. So of all tokens before the second A exactly two
matter, the earlier A and B, whichever way tokens are ablated.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from nejax.models.families.gpt2 import GPT2, GPT2Config
from nejax.neuron.importance import token_importance
from nejax.pipeline.passes.ablation import Peaks, activations_without, mean_less_padding
from nejax.pipeline.run.settings import Ablation

VOCAB, SEQ, N_SEQUENCES, WINDOW = 20, 24, 30, 20
BOS, PADDING, A, B, FIRST_FILLER = range(5)
IDENTITY, PREVIOUS, COPIED = (np.arange(VOCAB) + i * VOCAB for i in range(3))
"""Where in the residual stream stand a token, the one before it, and the one that followed its like."""
PLACE = 3 * VOCAB + np.arange(SEQ)
D = 3 * VOCAB + SEQ
SHARPNESS = 40
"""A score of attention that leaves nothing to those of 20 or less: exp(-20) is 2e-9."""


def deviation(n_ones: int) -> float:
    """What LayerNorm divides by, where so many of `D` numbers are 1 and the others 0."""
    return float(np.sqrt(n_ones / D - (n_ones / D) ** 2 + GPT2Config().layer_norm_epsilon))


@pytest.fixture(scope="module")
def model() -> GPT2:
    """Layer 0: each position notes the token before it. Layer 1: each looks for its own token among these notes, and
    copies the token that stands there; failing that, the first one. Neuron 0 of layer 1 fires where that is B.
    """
    graph, state = nnx.split(GPT2(GPT2Config(VOCAB, SEQ, D, 2, 1, 2, activation="relu"), rngs=nnx.Rngs(0)))
    model = nnx.merge(graph, jax.tree.map(jnp.zeros_like, state))
    model.token_embedding.embedding[...] = jnp.eye(D)[IDENTITY]
    model.position_embedding.embedding[...] = jnp.eye(D)[PLACE]
    blocks: Any = model.blocks
    # The norms take the mean away; their biases add it again, so that weights below read ones and zeros over s.
    for norm, ones in ((blocks.attention_norm, (2, 3)), (blocks.mlp_norm, (3, 4))):
        norm.scale[...] = jnp.ones((2, D))
        norm.bias[...] = jnp.array([n / D / deviation(n) for n in ones])[:, None] * jnp.ones(D)

    query, key, value, output = np.zeros((4, 2, D, D))
    sharp = [SHARPNESS * D**0.5 * deviation(n) ** 2 for n in (2, 3)]
    query[0, PLACE, np.maximum(PLACE - 1, PLACE[0])] = sharp[0]
    key[0, PLACE, PLACE] = 1
    value[0, IDENTITY, PREVIOUS] = deviation(2)
    output[0, PREVIOUS, PREVIOUS] = 1
    query[1, IDENTITY, IDENTITY], query[1, IDENTITY, PLACE[0]] = sharp[1], sharp[1] / 2
    key[1, PREVIOUS, IDENTITY], key[1, PLACE[0], PLACE[0]] = 1, 1
    value[1, IDENTITY, COPIED] = deviation(3)
    output[1, COPIED, COPIED] = 1
    blocks.attention.qkv.kernel[...] = jnp.asarray(np.concatenate([query, key, value], axis=2), jnp.float32)
    blocks.attention.output.kernel[...] = jnp.asarray(output, jnp.float32)
    blocks.mlp_in.kernel[...] = blocks.mlp_in.kernel[...].at[1, COPIED[B], 0].set(deviation(4))
    blocks.mlp_in.bias[...] = blocks.mlp_in.bias[...].at[1, 0].set(-0.5)
    return model


@pytest.fixture(scope="module")
def planted() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random sequences with one A B and one later A, anywhere; where the first A is, and the second."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(FIRST_FILLER, VOCAB, (N_SEQUENCES, SEQ)).astype(np.int32)
    tokens[:, 0] = BOS
    first = rng.integers(1, SEQ - 5, N_SEQUENCES)
    second = np.array([rng.integers(place + 2, min(SEQ, place + WINDOW)) for place in first])
    rows = np.arange(N_SEQUENCES)
    tokens[rows, first], tokens[rows, first + 1], tokens[rows, second] = A, B, A
    return tokens, first, second


def activations_of(model: GPT2, tokens: np.ndarray) -> np.ndarray:
    """Of the neuron, at all places."""

    def run(model: GPT2, tokens: jax.Array) -> jax.Array:
        return model(tokens, reader=lambda view: view.activation[..., 0])[1][1]

    return np.asarray(nnx.jit(run)(model, jnp.asarray(tokens)))


def importance_of(model: GPT2, tokens: np.ndarray, peak: np.ndarray, ablation: Ablation) -> np.ndarray:
    """Of the tokens up to the peak, [n_sequences, WINDOW + 1]."""
    n = len(tokens)
    shift = mean_less_padding(model, tokens, tokens != BOS, PADDING) if ablation == "mean" else None
    peaks = Peaks(np.ones(n, int), np.zeros(n, int), np.arange(n), peak)
    settings = {"n_layers": 2, "window": WINDOW, "padding": PADDING, "mean_shift": shift}
    without, _ = activations_without(model, peaks, tokens, ablation=ablation, **settings)
    activation = activations_of(model, tokens)[np.arange(n), peak]
    return np.asarray(token_importance(jnp.asarray(activation), jnp.asarray(without)))


@pytest.mark.slow
def test_the_neuron_fires_at_the_second_a_alone(model, planted):
    tokens, _, second = planted
    expected = np.where(np.arange(SEQ) == second[:, None], 0.5, 0)
    np.testing.assert_allclose(activations_of(model, tokens), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("ablation", ["padding", "deletion", "mean"])
def test_the_pair_that_came_before_is_what_it_needs(model, planted, ablation: Ablation):
    tokens, first, second = planted
    found = importance_of(model, tokens, second, ablation)
    place = second[:, None] - np.arange(WINDOW + 1)
    needed = (place == first[:, None]) | (place == first[:, None] + 1) | (place == second[:, None])
    np.testing.assert_allclose(found, np.where(place >= 1, needed, np.nan), atol=1e-5)  # 3e-7 here


@pytest.mark.slow
@pytest.mark.parametrize("ablation", ["padding", "deletion", "mean"])
def test_what_came_twice_is_not_needed_twice(model, ablation: Ablation):
    """A B ... A B ... A: without one A there is the other pair. Without one B half of what is copied is not B."""
    tokens = np.random.default_rng(1).integers(FIRST_FILLER, VOCAB, (8, SEQ)).astype(np.int32)
    tokens[:, 0], tokens[:, [3, 9, 16]], tokens[:, [4, 10]] = BOS, A, B
    found = importance_of(model, tokens, np.full(8, 16), ablation)[:, :16]
    needed = np.isin(16 - np.arange(16), [16, 10, 4])
    assert found[:, needed].min() > 0.9  # 0.93 here: LayerNorm makes two halves larger than one half
    assert found[:, ~needed].max() < 1e-5
