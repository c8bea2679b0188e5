"""Llama-style models against PyTorch transformers, against NumPy float64, and against themselves."""

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from branch_cases import LONGEST, SEQ, VOCAB, assert_same_views, both_ways, random_case
from flax import nnx
from torch_llama import random_torch_llama, torch_llama_values

from nejax.errors import UserError
from nejax.models.families.every import FAMILIES
from nejax.models.families.llama import FAMILY, Llama, LlamaConfig
from nejax.models.families.rotary import RotaryScaling, rotary_frequencies, rotate
from nejax.models.formats import config_files, weights
from nejax.models.formats.config_files import parse_config, read_settings
from nejax.models.formats.weights import load_weights, save_weights
from nejax.models.reading import LayerView, edit_nothing

VALUES = LayerView._fields[1:]
SMALL = LlamaConfig(VOCAB, LONGEST, 16, 3, 4, 2, 6, 24, tied_head=True)
TOKENS = np.random.default_rng(1).integers(0, VOCAB, (3, SEQ))
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 100.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 3.0,
    "original_max_position_embeddings": 20,
}


@partial(jax.jit, static_argnames="editor")
def run(model: Llama, tokens: jax.Array, editor: Any = edit_nothing) -> tuple[jax.Array, LayerView]:
    return model(tokens, reader=lambda view: view, editor=editor)


def a_model(config: LlamaConfig, dtype: Any = jnp.float32) -> Llama:
    """Random, with weights large enough that tokens far back matter."""
    graph, shapes = nnx.split(nnx.eval_shape(lambda: Llama(config, dtype=dtype, param_dtype=dtype, rngs=nnx.Rngs(0))))
    rng = np.random.default_rng(3)
    return nnx.merge(graph, jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.4, leaf.shape), leaf.dtype), shapes))


@pytest.fixture(scope="module")
def model() -> Llama:
    return a_model(SMALL)


def assert_is_pytorchs(directory: Path, torch_model: Any, *, tolerance: float = 1e-5) -> Llama:
    """Every value of every layer; PyTorch computes in float64."""
    torch_model.save_pretrained(directory)
    tokens = np.random.default_rng(7).integers(0, torch_model.config.vocab_size, (3, 40))
    expected = torch_llama_values(torch_model.double(), tokens)
    model = load_weights(directory)
    logits, view = run(model, jnp.asarray(tokens))
    for name, value in (view._asdict() | {"logits": logits}).items():
        if name != "layer":
            np.testing.assert_allclose(value, expected[name], rtol=tolerance, atol=tolerance, err_msg=name)
    return model


# --- PyTorch is the oracle


@pytest.mark.slow
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("n_kv_heads", [4, 2, 1], ids=["multi-head", "grouped-query", "multi-query"])
def test_every_value_of_every_layer_is_pytorchs(n_kv_heads: int, tied: bool, tmp_path: Path):
    pytest.importorskip("torch")
    torch_model = random_torch_llama(n_kv_heads, num_key_value_heads=n_kv_heads, tie_word_embeddings=tied)
    model = assert_is_pytorchs(tmp_path, torch_model)
    assert (model.head is None) == tied and model.config.n_kv_heads == n_kv_heads


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"attention_bias": True, "mlp_bias": True},
        {"head_dim": 10, "num_key_value_heads": 2, "rms_norm_eps": 0.1},
        {"rope_parameters": LLAMA3},
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 3.0}},
        {"hidden_act": "gelu", "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
    ],
    ids=["biases", "wide heads", "llama 3", "linear", "gelu"],
)
def test_other_options_are_pytorchs(settings: dict[str, Any], tmp_path: Path):
    pytest.importorskip("torch")
    assert_is_pytorchs(tmp_path, random_torch_llama(5, **settings))


@pytest.mark.slow
def test_a_family_is_a_table_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Mistral's function is Llama's where its window is off: a family of its own with one entry."""
    pytest.importorskip("torch")
    mistral = FAMILY._replace(model_type="mistral", architecture="MistralForCausalLM")
    for module in (config_files, weights):
        monkeypatch.setattr(module, "FAMILIES", (*FAMILIES, mistral))
    settings = {"num_hidden_layers": 1, "num_key_value_heads": 2, "sliding_window": None}
    assert_is_pytorchs(tmp_path, random_torch_llama(3, kind="Mistral", **settings))


# --- rotary positions


def test_rotary_frequencies_by_hand():
    """Pair i turns by base^(-2i/d): 1, 1/10, 1/100 and 1/1000 for base 10^4 and 8 dimensions."""
    np.testing.assert_allclose(rotary_frequencies(8, 1e4, None), [1, 0.1, 0.01, 0.001], rtol=1e-6)
    linear = rotary_frequencies(8, 1e4, RotaryScaling(4.0))
    np.testing.assert_allclose(linear, [0.25, 0.025, 0.0025, 0.00025], rtol=1e-6)
    # In 200 positions the pairs turn 31.8, 3.18, 0.318 and 0.0318 times: kept, between, divided, divided.
    scaled = rotary_frequencies(8, 1e4, RotaryScaling(4.0, 1.0, 5.0, 200))
    kept = (200 * 0.1 / (2 * np.pi) - 1) / 4
    np.testing.assert_allclose(scaled, [1, 0.1 * (kept + (1 - kept) / 4), 0.0025, 0.00025], rtol=1e-6)


def test_only_the_distance_between_positions_matters():
    rng = np.random.default_rng(0)
    query, key = jnp.asarray(rng.normal(size=(2, 1, 1, 1, 8)), jnp.float32)
    frequency = rotary_frequencies(8, 1e4, None)

    def score(of_query: int, of_key: int) -> float:
        turned = (rotate(x, jnp.asarray([at]), frequency) for x, at in ((query, of_query), (key, of_key)))
        return float(jnp.vdot(*turned))

    assert score(3, 1) == pytest.approx(score(12, 10), rel=1e-5)
    assert score(5, 5) == pytest.approx(float(jnp.vdot(query, key)), rel=1e-5)
    assert abs(score(3, 1) - score(3, 2)) > 0.01


# --- the model against itself


@pytest.mark.parametrize("edited", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_branch_is_the_sequence_with_it_spliced_in(edited: bool, model: Llama):
    found, expected = both_ways(model, random_case(0), edited=edited)
    assert_same_views(found, expected, rtol=1e-5, atol=1e-5)


def test_padding_never_reaches_the_positions_before_it(model: Llama):
    logits, view = run(model, TOKENS)
    changed = np.array(TOKENS)
    changed[:, 6:] = 0
    others, other_view = run(model, changed)
    np.testing.assert_array_equal(logits[:, :6], others[:, :6])
    np.testing.assert_array_equal(view.activation[:, :, :6], other_view.activation[:, :, :6])


def test_gates_and_up_weights_make_the_activation(model: Llama):
    """silu(x . w_gate) * (x . w_up), in float64 from what the reader saw."""
    _, view = run(model, TOKENS)
    x = np.asarray(view.mlp_input, np.float64)
    gate, up = (
        np.einsum("lbsd,ldm->lbsm", x, np.asarray(w, np.float64)) for w in (model.input_weights(), model.up_weights())
    )
    np.testing.assert_allclose(view.pre_activation, gate, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(view.activation, gate / (1 + np.exp(-gate)) * up, rtol=1e-5, atol=1e-5)
    assert (view.activation > 0.1).any() and (view.activation < -0.1).any()


def test_folding_changes_no_activation(model: Llama):
    logits, view = run(model, TOKENS)
    folded = model.folded()
    others, other_view = run(folded, TOKENS)
    np.testing.assert_allclose(others, logits, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(other_view.activation, view.activation, rtol=1e-5, atol=1e-5)
    scale = model.blocks.mlp_norm.scale[...][:, :, None]
    np.testing.assert_allclose(folded.input_weights(), scale * model.input_weights(), rtol=1e-6)
    np.testing.assert_allclose(folded.up_weights(), scale * model.up_weights(), rtol=1e-6)
    # The MLP's input is now of root mean square 1, up to epsilon.
    np.testing.assert_allclose((other_view.mlp_input**2).mean(axis=-1), 1, rtol=1e-4)


def test_the_first_layers_are_the_models(model: Llama):
    _, view = run(model, TOKENS)
    _, first = run(model.first_layers(2), TOKENS)
    np.testing.assert_array_equal(first.resid_post, view.resid_post[:2])


def test_half_precision_stays_near_float32():
    """The largest difference of the logits, over the largest logit."""
    exact = np.asarray(run(a_model(SMALL), TOKENS)[0])
    for dtype, bound in ((jnp.bfloat16, 0.03), (jnp.float16, 0.003)):
        found = np.asarray(run(a_model(SMALL, dtype), TOKENS)[0], np.float32)
        assert np.abs(found - exact).max() < bound * np.abs(exact).max()


# --- files


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        SMALL._replace(tied_head=False, attention_bias=True, mlp_bias=True, rotary_base=5e5),
        SMALL._replace(n_layers=1, rotary_scaling=RotaryScaling(8.0, 1.0, 4.0, 8)),
        SMALL._replace(n_layers=1, rotary_scaling=RotaryScaling(2.0)),
    ],
    ids=["tied", "untied with biases", "llama 3", "linear"],
)
def test_what_is_saved_is_loaded(config: LlamaConfig, tmp_path: Path):
    model = a_model(config)
    save_weights(model, tmp_path)
    loaded = load_weights(tmp_path)
    assert loaded.config == config
    jax.tree.map(np.testing.assert_array_equal, nnx.state(loaded), nnx.state(model))


def settings_of(directory: Path, **changed: Any) -> Any:
    """The configuration that a `config.json` describes, changed from one that can be read."""
    settings = {"model_type": "llama", "hidden_size": 32, "num_attention_heads": 4} | changed
    (directory / "config.json").write_text(json.dumps(settings))
    return parse_config(*read_settings(directory), directory / "config.json")


def test_what_a_configuration_leaves_out(tmp_path: Path):
    config = settings_of(tmp_path, num_key_value_heads=None, head_dim=None)
    assert (config.n_kv_heads, config.d_head, config.tied_head, config.rotary_base) == (4, 8, False, 10000.0)
    # Before version 5 of transformers the base stood by itself, and scaling under another name.
    scaling = {"type": "linear", "factor": 2.0}
    old = settings_of(tmp_path, rope_theta=5000.0, rope_scaling=scaling, num_key_value_heads=2)
    assert old.rotary_base == 5000.0 and old.rotary_scaling == RotaryScaling(2.0) and old.n_kv_heads == 2


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"num_key_value_heads": 3}, "num_attention_heads 4 cannot be divided by num_key_value_heads 3"),
        ({"hidden_size": 30}, "hidden_size 30 cannot be divided by num_attention_heads 4"),
        ({"head_dim": 5}, "head_dim 5 is odd"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "rope_type is 'yarn', only 'default', 'linear'"),
        ({"rope_parameters": {"rope_type": "linear"}}, "rope_parameters have no positive number as factor"),
        (
            {"rope_parameters": LLAMA3 | {"low_freq_factor": 9.0}},
            "low_freq_factor 9.0 is not below high_freq_factor",
        ),
        ({"rope_parameters": [1]}, "rope_parameters is [1], expected an object"),
        ({"rope_theta": 0}, "rope_theta is 0, expected a number above 1"),
        ({"sliding_window": 128}, "sliding_window is 128, only None is implemented"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5, only 1.0"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings is 'yes', expected true or false"),
        ({"hidden_act": "xielu"}, "hidden_act is 'xielu', expected one of"),
        ({"rms_norm_eps": 0}, "rms_norm_eps is 0, expected a positive number"),
    ],
)
def test_configurations_of_another_function_are_refused(settings: dict, problem: str, tmp_path: Path):
    with pytest.raises(UserError, match=re.escape(problem)):
        settings_of(tmp_path, **settings)


def test_tensors_out_of_place_are_named(tmp_path: Path):
    save_weights(a_model(SMALL._replace(tied_head=False)), tmp_path)
    path = tmp_path / "config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"tie_word_embeddings": True}))
    with pytest.raises(UserError, match=re.escape("not the same as embed_tokens.weight: lm_head.weight")):
        load_weights(tmp_path)
    path.write_text(json.dumps(settings | {"attention_bias": True}))
    with pytest.raises(UserError, match=re.escape("missing: layers.0.self_attn.q_proj.bias")):
        load_weights(tmp_path)
