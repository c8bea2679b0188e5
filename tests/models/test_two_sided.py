"""Gated neurons read as two sides, against the model itself and embeddings of twice the width in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from branch_cases import assert_same_views, both_ways, random_case
from test_llama import SMALL, TOKENS, a_model, run

from nejax.models.families.llama import Llama
from nejax.models.families.two_sided import TwoSided
from nejax.neuron.embeddings import embedding_distances


@pytest.fixture(scope="module")
def model() -> Llama:
    return a_model(SMALL)


def both_embeddings(model: Llama, x: np.ndarray, layer: int, neuron: int) -> np.ndarray:
    """`[x * w_gate / |w_gate|, x * w_up / |w_up|]` in float64."""
    gate, up = (np.asarray(w[layer, :, neuron], np.float64) for w in (model.input_weights(), model.up_weights()))
    return np.concatenate([x * gate / np.linalg.norm(gate), x * up / np.linalg.norm(up)], axis=1)


def cosine_distances(e: np.ndarray) -> np.ndarray:
    unit = e / np.linalg.norm(e, axis=1, keepdims=True)
    return 1 - unit @ unit.T


def test_a_reader_sees_both_sides(model: Llama):
    logits, view = run(model, TOKENS)
    both, sides = run(TwoSided(model, "gate"), TOKENS)
    np.testing.assert_allclose(both, logits, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(sides.activation[..., : SMALL.d_mlp], view.activation, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(sides.activation[..., SMALL.d_mlp :], -sides.activation[..., : SMALL.d_mlp])
    np.testing.assert_allclose(sides.mlp_input, view.mlp_input, rtol=1e-5, atol=1e-6)


def test_by_the_gate_the_embedding_sums_to_its_pre_activation(model: Llama):
    two = TwoSided(model, "gate")
    _, view = run(two, TOKENS)
    found = jnp.einsum("lbsd,ldm->lbsm", view.mlp_input, two.input_weights()) + two.input_bias()[:, None, None]
    np.testing.assert_allclose(found, view.pre_activation, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("side", [0, 1])
def test_one_vector_stands_for_both(model: Llama, side: int):
    """Distances through `w` are those of the embeddings of twice the width."""
    x = np.random.default_rng(0).normal(size=(7, SMALL.d_model))
    w = TwoSided(model, "gate_and_up").input_weights()
    for layer, neuron in ((0, 0), (2, 5)):
        found = embedding_distances(jnp.asarray(x, jnp.float32), w[layer, :, neuron + side * SMALL.d_mlp])
        expected = cosine_distances(both_embeddings(model, x, layer, neuron))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-6)
        by_gate = cosine_distances(x * np.asarray(model.input_weights()[layer, :, neuron], np.float64))
        assert np.abs(by_gate - expected).max() > 0.01


@partial(jax.jit, static_argnames="embed_by")
def weights(model: Llama, embed_by: str) -> jax.Array:
    return TwoSided(model, embed_by).input_weights()  # type: ignore[arg-type]


def test_the_size_of_the_up_weights_does_not_matter(model: Llama):
    """The function stays the same if the output weights are divided by what the up weights are multiplied by."""
    scaled = a_model(SMALL)
    scaled.blocks.mlp_up.kernel[...] = 7.0 * model.up_weights()
    np.testing.assert_allclose(weights(scaled, "gate_and_up"), weights(model, "gate_and_up"), rtol=1e-5)


def test_a_neuron_without_up_weights_keeps_its_gate(model: Llama):
    dead = a_model(SMALL)
    dead.blocks.mlp_up.kernel[...] = jnp.zeros_like(model.up_weights())
    gate = model.input_weights()
    expected = jnp.abs(gate) / jnp.linalg.norm(gate, axis=1, keepdims=True)
    np.testing.assert_allclose(weights(dead, "gate_and_up")[..., : SMALL.d_mlp], expected, rtol=1e-5)


def test_branches_have_both_sides(model: Llama):
    found, expected = both_ways(TwoSided(model, "gate"), random_case(0))
    assert found[0].activation.shape[-1] == 2 * SMALL.d_mlp
    assert_same_views(found, expected, rtol=1e-5, atol=1e-5)
