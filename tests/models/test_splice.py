"""Splicing against models whose weights were changed to the same end, and against what leaves a model as it is."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from model_files import LAYERS, VOCAB, WIDTH, write_model

from nejax.models.families.gpt2 import GPT2
from nejax.models.formats.weights import load_weights
from nejax.models.reading import edit_nothing
from nejax.models.sae.architectures import SAE
from nejax.models.sae.hook_points import Site
from nejax.models.sae.splice import loss_recovered, reconstruction, replace_at

TOKENS = jnp.asarray(np.random.default_rng(1).integers(0, VOCAB, (3, 9)))
SITES = ["resid_pre", "resid_mid", "mlp_input", "mlp_output", "resid_post"]


def perfect_sae(d: int = WIDTH) -> SAE:
    """Two latents a dimension, one for each sign: it loses nothing."""
    sae, eye = SAE(d, 2 * d, rngs=nnx.Rngs(0)), jnp.eye(d)
    sae.W_enc, sae.W_dec = nnx.Param(jnp.concatenate([eye, -eye], axis=1)), nnx.Param(jnp.concatenate([eye, -eye]))
    sae.b_dec = nnx.Param(jnp.linspace(-1, 1, d))
    return sae


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> GPT2:
    return load_weights(write_model(tmp_path_factory.mktemp("model")))


@functools.partial(jax.jit, static_argnames="editor")
def run(model: GPT2, editor=edit_nothing) -> tuple[jax.Array, jax.Array]:
    """Logits, and the residual stream after every layer."""
    return model(TOKENS, editor=editor, reader=lambda view: view.resid_post)


@pytest.fixture(scope="module")
def plain(model) -> tuple[jax.Array, jax.Array]:
    return run(model)


@pytest.mark.parametrize(("name", "layer"), [*zip(SITES, [0, 1, 1, 0, 1], strict=True)])
def test_a_perfect_sae_leaves_the_logits_as_they_are(name, layer: int, model: GPT2, plain):
    editor = replace_at(Site(layer, name), reconstruction(perfect_sae(), centred=name == "resid_pre"))
    np.testing.assert_allclose(run(model, editor)[0], plain[0], rtol=1e-5, atol=1e-5)


def test_a_reconstruction_of_zero_for_mlp_output_is_a_layer_without_w_out(model: GPT2, plain):
    sae = SAE(WIDTH, 5, rngs=nnx.Rngs(0))
    sae.W_dec = nnx.Param(jnp.zeros((5, WIDTH)))
    without = nnx.merge(*nnx.split(model))
    kernel, bias = without.blocks.mlp_out.kernel[...], without.blocks.mlp_out.bias[...]
    without.blocks.mlp_out.kernel = nnx.Param(kernel.at[1].set(0.0))
    without.blocks.mlp_out.bias = nnx.Param(bias.at[1].set(0.0))
    expected = run(without)[0]
    for replacement in (reconstruction(sae), jnp.zeros_like):
        found = run(model, replace_at(Site(1, "mlp_output"), replacement))[0]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert np.abs(expected - plain[0]).max() > 0.1


def test_only_the_chosen_positions_of_the_one_layer_change(model: GPT2, plain):
    where = np.zeros(TOKENS.shape, bool)
    where[0, 3] = where[2, 8] = True
    changed, before = run(model, replace_at(Site(0, "resid_post"), jnp.negative, jnp.asarray(where)))[1], plain[1]
    np.testing.assert_allclose(changed[0], jnp.where(where[:, :, None], -before[0], before[0]), rtol=1e-6, atol=1e-6)
    before_any = np.cumsum(where, axis=1) == 0  # attention looks back
    np.testing.assert_allclose(changed[1][before_any], before[1][before_any], rtol=1e-6, atol=1e-6)
    assert np.abs(changed[1] - before[1])[where].max() > 0.1


def test_a_centred_sae_sees_no_mean_and_its_reconstruction_has_the_mean_of_the_value():
    value, seen = jnp.asarray(np.random.default_rng(0).normal(3, 1, (2, 4, WIDTH)), jnp.float32), []

    def sae(x: jax.Array) -> jax.Array:
        seen.append(x)
        return jnp.zeros_like(x)

    found = reconstruction(sae, centred=True)(value)
    np.testing.assert_allclose(seen[0].mean(axis=-1), 0, atol=1e-6)
    np.testing.assert_allclose(found, np.broadcast_to(value.mean(axis=-1, keepdims=True), value.shape), rtol=1e-6)
    np.testing.assert_array_equal(reconstruction(sae)(value), 0)


def test_the_same_constant_everywhere_in_the_stream_changes_no_logits_after_its_layer_norms(model: GPT2, plain):
    """Why the mean over `d_model` may be left out of what an SAE reads: nothing that reads the stream sees it."""
    editor = replace_at(Site(LAYERS - 1, "resid_post"), lambda value: value + 7.5)
    # Measured: 3e-6 apart; the LayerNorm subtracts numbers of 7.5 times the size.
    np.testing.assert_allclose(run(model, editor)[0], plain[0], rtol=1e-5, atol=2e-5)


@pytest.mark.slow
def test_gradients_reach_an_sae_in_its_model(model: GPT2):
    graph, params = nnx.split(SAE(WIDTH, 20, rngs=nnx.Rngs(0)))

    @jax.jit
    def loss(params):
        editor = replace_at(Site(0, "mlp_input"), reconstruction(nnx.merge(graph, params)))
        return jnp.mean(model(TOKENS, editor=editor)[0] ** 2)

    for gradient in jax.tree.leaves(jax.grad(loss)(params)):
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


def test_loss_recovered():
    assert loss_recovered(clean=2.0, spliced=2.5, ablated=4.0) == 0.75
    assert loss_recovered(clean=2.0, spliced=2.0, ablated=4.0) == 1
    assert loss_recovered(clean=2.0, spliced=4.0, ablated=4.0) == 0
    assert np.isnan(loss_recovered(clean=2.0, spliced=2.1, ablated=2.0))
