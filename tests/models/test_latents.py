"""Latents as the neurons of a model: against the language model's own reader and the SAE's own encoder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from branch_cases import LONGEST, VOCAB, assert_same_views, both_ways, random_case
from flax import nnx

from nejax.errors import UserError
from nejax.models.families.gpt2 import GPT2, GPT2Config
from nejax.models.loading import LoadedModel
from nejax.models.sae.architectures import ARCHITECTURES, SAE
from nejax.models.sae.files import save_sae
from nejax.models.sae.hook_points import Site, SiteName, hook_name
from nejax.models.sae.latents import LatentsModel, load_latents

D, N, LAYERS = 16, 40, 3


@pytest.fixture(scope="module")
def model() -> GPT2:
    return GPT2(GPT2Config(50, 12, D, LAYERS, 2, 24), rngs=nnx.Rngs(0))


def an_sae(kind: str = "standard") -> SAE:
    own = {"k": 5} if kind == "topk" else {}
    sae = ARCHITECTURES[kind](D, N, rngs=nnx.Rngs(1), **own)
    sae.b_dec = nnx.Param(0.1 * jax.random.normal(jax.random.key(2), (D,)))
    bias = 0.1 * jax.random.normal(jax.random.key(3), (N,))
    if kind == "gated":
        sae.b_gate = nnx.Param(bias)
    else:
        sae.b_enc = nnx.Param(bias)
    return sae


TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, 50, (2, 9)), jnp.int32)


@pytest.mark.parametrize("site", ["resid_pre", "resid_mid", "resid_post", "mlp_input", "mlp_output"])
@pytest.mark.parametrize("centred", [False, True])
def test_a_reader_sees_what_the_encoder_makes_of_the_site(site: SiteName, centred: bool, model: GPT2):
    sae, layer = an_sae(), 1
    latents_model = LatentsModel(model, Site(layer, site), sae, centred=centred)
    no_logits, (x, latents, output) = latents_model(
        TOKENS, reader=lambda view: (view.mlp_input, view.activation, view.mlp_output)
    )
    expected = model(TOKENS, reader=lambda view: getattr(view, site))[1][layer]
    if centred:
        expected = expected - expected.mean(axis=-1, keepdims=True)
    assert no_logits is None and latents.shape == (1, 2, 9, N)
    np.testing.assert_allclose(x[0], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(latents[0], sae.encode(expected), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(output[0], sae(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", list(ARCHITECTURES))
def test_embeddings_add_up_to_the_pre_activation(kind: str, model: GPT2):
    latents_model = LatentsModel(model, Site(0, "mlp_input"), an_sae(kind))
    _, (x, h) = latents_model(TOKENS, reader=lambda view: (view.mlp_input, view.pre_activation))
    w_in, b_in = latents_model.input_weights(), latents_model.input_bias()
    assert w_in.shape == (1, D, N) and b_in.shape == (1, N)
    embeddings = x[0, ..., None] * w_in[0]
    np.testing.assert_allclose(embeddings.sum(axis=-2) + b_in[0], h[0], rtol=1e-5, atol=1e-5)


def test_an_editor_changes_what_comes_after(model: GPT2):
    latents_model = LatentsModel(model, Site(0, "mlp_input"), an_sae())
    silenced = latents_model(
        TOKENS,
        reader=lambda view: view.mlp_output,
        editor=lambda name, value, layer: 0 * value if name == "activation" else value,
    )[1]
    expected = jnp.broadcast_to(latents_model.sae.b_dec[...], silenced.shape)
    np.testing.assert_allclose(silenced, expected, rtol=1e-6)


# --- branches


@pytest.mark.parametrize("edited", [False, True])
@pytest.mark.parametrize("site, kind", [(Site(0, "mlp_input"), "standard"), (Site(1, "resid_post"), "gated")])
def test_a_branch_is_the_sequence_with_it_spliced_in(site: Site, kind: str, edited: bool):
    """Everything that a reader sees of the SAE and of the stream around it, also where an editor changes it."""
    model = GPT2(GPT2Config(VOCAB, LONGEST, D, LAYERS, 2, 24), rngs=nnx.Rngs(4))
    model.token_embedding.embedding[...] *= 50
    latents_model = LatentsModel(model, site, an_sae(kind), centred=True)
    found, expected = both_ways(latents_model, random_case(2), edited=edited)
    assert found[0].activation.shape == (1, len(found[0].activation[0]), N)
    assert any((view.activation > 0).any() for view in found)
    assert_same_views(found, expected, rtol=1e-5, atol=1e-5)  # float32 sums of values near 4


def test_the_stream_before_the_first_layer_is_the_language_models(model: GPT2):
    latents_model = LatentsModel(model, Site(2, "resid_post"), an_sae())
    position = jnp.asarray(np.random.default_rng(1).integers(0, 12, TOKENS.shape), jnp.int32)
    expected = model.token_embedding.embedding[...][TOKENS] + model.position_embedding.embedding[...][position]
    np.testing.assert_allclose(latents_model.embed(TOKENS, position), expected, rtol=1e-6)
    first = model(TOKENS, reader=lambda view: view.resid_pre)[1][0]
    np.testing.assert_allclose(latents_model.embed(TOKENS, jnp.arange(TOKENS.shape[1])), first, rtol=1e-6)


# --- from files


def loaded(model: GPT2) -> LoadedModel:
    return LoadedModel(model, None, "a model", "0" * 32)  # pyright: ignore[reportArgumentType]


def save(folder, hook: str, d: int = D) -> str:
    save_sae(folder, SAE(d, N, rngs=nnx.Rngs(0)), model_name="a model", hook_name=hook)
    return str(folder)


def test_from_a_folder(tmp_path, model: GPT2):
    name = save(tmp_path / "sae", hook_name(Site(2, "resid_post")))
    found = load_latents(loaded(model), name)
    assert found.model.input_weights().shape == (1, D, N) and found.model.site == Site(2, "resid_post")
    assert found.name == f"a model, latents of {name}" and found.fingerprint != "0" * 32
    again = load_latents(loaded(model)._replace(fingerprint="1" * 32), name)
    assert again.fingerprint != found.fingerprint


@pytest.mark.parametrize(
    "hook, d, message",
    [
        ("blocks.7.hook_resid_pre", D, "there is no layer 7; the model has 3 layers, 0 to 2"),
        ("blocks.1.hook_resid_pre", D + 1, f"reads {D + 1} numbers, and a model has d_model={D}"),
        ("blocks.1.ln2.hook_normalized", D, "folded input weights; use input_weights=folded"),
    ],
)
def test_what_does_not_fit_is_refused(hook: str, d: int, message: str, tmp_path, model: GPT2):
    name = save(tmp_path / "sae", hook, d)
    with pytest.raises(UserError) as refused:
        load_latents(loaded(model), name)
    assert message in str(refused.value) and "\n" not in str(refused.value)
