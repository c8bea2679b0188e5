"""Every key of a configuration: read as transformers reads it, of no effect, refused, or named in a warning."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from published_configs import PUBLISHED
from safetensors.numpy import save_file

from nejax.errors import UserError
from nejax.models.families.config_keys import HARMLESS, neutral_keys, read_keys
from nejax.models.families.every import FAMILIES
from nejax.models.families.rotary import RotaryScaling
from nejax.models.formats.config_files import parse_config, read_settings
from nejax.models.formats.weights import load_weights, open_directory

FAMILY = {family.model_type: family for family in FAMILIES}
GPT2 = {"vocab_size": 20, "n_positions": 16, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_inner": 12}
LLAMA = {
    "vocab_size": 20,
    "max_position_embeddings": 16,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 12,
}
SIZES = {"gpt2": GPT2, "llama": LLAMA}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 100.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 3.0,
    "original_max_position_embeddings": 8,
}
LINEAR = {"rope_type": "linear", "rope_theta": 500.0, "factor": 3.0}
TOKENS = np.random.default_rng(0).integers(0, 20, (2, 16))

# Compilation is what the tests of keys take.
quick = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
}
run = jax.jit(lambda model, tokens: model(tokens)[0], compiler_options=quick)

OTHERS: dict[str, Any] = {  # where the type does not say what another value is
    "activation_function": "quick_gelu",
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_epsilon": 0.2,
    "rms_norm_eps": 0.2,
    "head_dim": 6,
    "rope_parameters": LLAMA3,
    "rope_scaling": LINEAR,
    "rope_theta": 50.0,
    "partial_rotary_factor": 0.5,
    "sliding_window": 3,
    "attention_chunk_size": 4,
    "layer_types": ["sliding_attention"],
    "per_layer_config": {"0": {"skip": ["mlp"]}},
    "pruned_heads": {"0": [1]},
    "quantization_config": {"quant_method": "gptq", "bits": 4},
    "is_causal": False,
    "original_max_position_embeddings": 4,
    "num_key_value_heads": 1,
    "architectures": ["AnotherModel"],
    "dtype": "float16",
    "torch_dtype": "bfloat16",
    "bos_token_id": 3,
    "eos_token_id": 4,
    "pad_token_id": 5,
    "id2label": {"0": "a", "1": "b", "2": "c"},
    "label2id": {"a": 0, "b": 1, "c": 2},
    "problem_type": "regression",
    "summary_type": "mean",
    "summary_activation": "tanh",
    "transformers_version": "4.0.0",
    "num_labels": 3,
    "max_length": 7,
    "temperature": 0.3,
    "attn_implementation": "eager",
    "_name_or_path": "somewhere",
    "rope_interleaved": True,
    "auto_map": {"AutoModelForCausalLM": "modeling.Own"},
    "no_such_key": 1,
}
BESIDE = """is_causal sliding_window attention_chunk_size layer_types per_layer_config pruned_heads quantization_config
torch_dtype num_labels max_length temperature attn_implementation _name_or_path auto_map no_such_key"""
"""Keys that no class lists and that transformers reads all the same, or that files have."""
ROTARY = "rope_scaling rope_theta partial_rotary_factor original_max_position_embeddings rope_interleaved"
STANDS_FOR = {"rope_scaling": "rope_parameters", "rope_theta": "rope_parameters"}


def written(kind: str) -> dict[str, Any]:
    """All that transformers writes of a tiny model."""
    import transformers

    return json.loads(transformers.AutoConfig.for_model(kind, **SIZES[kind]).to_json_string(use_diff=False))


def keys_of(kind: str) -> list[str]:
    """All attributes of the class of transformers, their aliases, and `BESIDE`."""
    import transformers

    config = transformers.AutoConfig.for_model(kind)
    keys = {*vars(config), *config.to_dict(), *config.attribute_map, *BESIDE.split()}
    keys |= {*ROTARY.split()} if kind == "llama" else set()
    return sorted(key for key in keys if key == "_name_or_path" or (not key.startswith("_") and key != "model_type"))


def other_value(key: str, value: Any) -> Any:
    if key in OTHERS:
        return OTHERS[key]
    if isinstance(value, bool):
        return not value
    assert isinstance(value, (int, float)), f"{key} {value!r}: which other value?"
    return 2 * value if value else 1


def write(directory: Path, settings: dict[str, Any]) -> Any:
    """The model of transformers that a `config.json` describes, every parameter random; its files."""
    import torch
    import transformers

    (directory / "config.json").write_text(json.dumps(settings))
    config = transformers.AutoConfig.from_pretrained(directory)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, values in model.named_parameters():
            values.normal_(1.0 if "norm" in name or "ln_" in name else 0.0, 0.4)
    tensors = {name: values.detach().numpy() for name, values in model.named_parameters()}
    save_file(tensors, directory / "model.safetensors")
    return model.eval()


def torch_logits(model: Any, n_positions: int) -> np.ndarray:
    import torch

    model.config.return_dict = True  # transformers' own Llama cannot run without
    if not getattr(model.config, "reorder_and_upcast_attn", False):  # which transformers has in float32 only
        model.double()
    with torch.no_grad():
        return model(input_ids=torch.tensor(TOKENS[:, :n_positions])).logits.numpy()


def assert_is_transformers(directory: Path, model: Any, known: dict[Any, Any] | None = None) -> None:
    """The logits; a configuration that is already `known`, with the same weights, is not run again."""
    known, path = {} if known is None else known, directory / "config.json"
    config = parse_config(*read_settings(directory), path)
    if config in known:
        open_directory(directory)
    else:
        known[config] = run(load_weights(directory), jnp.asarray(TOKENS[:, : config.n_positions]))
    np.testing.assert_allclose(known[config], torch_logits(model, config.n_positions), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", FAMILY)
def test_every_key_of_transformers_is_read_or_harmless_or_refused_or_named(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture
):
    pytest.importorskip("torch")
    settings, family, keys = written(kind), FAMILY[kind], keys_of(kind)
    assert len(keys) > 45
    seen = {"read": 0, "harmless": 0, "refused": 0, "named": 0}
    known: dict[Any, Any] = {}
    for key in keys:
        replaced = family.aliases.get(key, STANDS_FOR.get(key))
        before = settings.get(replaced or key)
        changed = {name: value for name, value in settings.items() if name != replaced}
        changed[key] = other_value(key, before)
        assert changed[key] != before, key
        if key in neutral_keys(family):
            assert f"{key} is {changed[key]!r}"[:60] in refusal(tmp_path, changed)
            seen["refused"] += 1
            continue
        try:
            model = write(tmp_path, changed)
            capsys.readouterr()
            assert_is_transformers(tmp_path, model, known)
        except Exception as error:
            error.add_note(f"{key} {changed[key]!r}")
            raise
        warning = capsys.readouterr().err
        of = "read" if key in read_keys(family) else "harmless" if key in HARMLESS | family.harmless else "named"
        assert (f"{key} {changed[key]!r}" in warning) == (of == "named"), (key, warning)
        seen[of] += 1
    assert min(seen.values()) >= 2 and seen["read"] >= 11, seen


def refusal(directory: Path, settings: dict[str, Any]) -> str:
    """The one line with which a configuration is refused, before its weights are looked at."""
    (directory / "config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError) as caught:
        parse_config(*read_settings(directory), directory / "config.json")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def config_of(directory: Path, settings: dict[str, Any]) -> Any:
    (directory / "config.json").write_text(json.dumps(settings))
    return parse_config(*read_settings(directory), directory / "config.json")


# --- two names of one thing


def test_an_alias_that_agrees_and_one_that_does_not(tmp_path: Path):
    plain = {"model_type": "gpt2", **GPT2}
    for alias, key in FAMILY["gpt2"].aliases.items():
        assert config_of(tmp_path, plain | {alias: plain[key]}) == config_of(tmp_path, plain)
        alone = {name: value for name, value in plain.items() if name != key} | {alias: 2 * plain[key]}
        assert config_of(tmp_path, alone) == config_of(tmp_path, plain | {key: 2 * plain[key]})
        line = refusal(tmp_path, plain | {alias: 64})
        assert f"{alias} is 64 and {key}, which is the same, {plain[key]}" in line


@pytest.mark.slow
@pytest.mark.parametrize("scaling", [LINEAR, LLAMA3], ids=["linear", "llama 3"])
def test_both_places_of_rotary_scaling_where_they_agree(scaling: dict, tmp_path: Path):
    pytest.importorskip("torch")
    old = {key: value for key, value in scaling.items() if key != "rope_theta"}
    old["type"] = old.pop("rope_type")
    both = {"rope_scaling": old, "rope_parameters": scaling, "rope_theta": scaling["rope_theta"]}
    assert_is_transformers(tmp_path, write(tmp_path, written("llama") | both))


LLAMA_ALONE = {"model_type": "llama", **LLAMA}


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        (
            {"rope_scaling": LINEAR, "rope_parameters": LLAMA3},
            ["rope_scaling and rope_parameters contradict each other", "factor 3.0", "llama3"],
        ),
        ({"rope_scaling": LINEAR, "rope_parameters": {"rope_theta": 500.0}}, ["contradict each other"]),
        ({"rope_scaling": {"type": "linear", "factor": 3.0}, "rope_parameters": LINEAR}, ["rope_theta 10000.0"]),
        ({"rope_theta": 7.0, "rope_parameters": LINEAR}, ["rope_theta is 7.0, and 500.0 in rope_parameters"]),
        ({"rope_parameters": LINEAR | {"type": "dynamic"}}, ["rope_type 'linear' and type 'dynamic'"]),
        ({"rope_parameters": LLAMA3, "original_max_position_embeddings": 9}, ["is 9, and 8 in rope_parameters"]),
    ],
)
def test_rotary_positions_that_contradict_each_other(settings: dict, parts: list[str], tmp_path: Path):
    line = refusal(tmp_path, LLAMA_ALONE | settings)
    assert all(part in line for part in parts), line


@pytest.mark.parametrize("place", ["rope_scaling", "rope_parameters"])
@pytest.mark.parametrize("kind", ["yarn", "dynamic", "longrope", "su", "mrope", "proportional", ["linear"], None, 3])
def test_kinds_of_rotary_scaling_that_are_refused_in_either_place(place: str, kind: Any, tmp_path: Path):
    other = {"rope_scaling": "rope_parameters", "rope_parameters": "rope_scaling"}[place]
    for beside in ({}, {other: {"rope_type": "default", "rope_theta": 100.0}}):
        settings = LLAMA_ALONE | {place: {"rope_type": kind, "factor": 2.0, "rope_theta": 100.0}} | beside
        assert f"rope_type is {kind!r}, only 'default', 'linear', 'llama3' are" in refusal(tmp_path, settings)


@pytest.mark.parametrize(
    ("rope", "part"),
    [
        (LINEAR | {"attention_factor": 2.0}, "attention_factor is 2.0, only 1 is implemented"),
        (LLAMA3 | {"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5, only 1 is implemented"),
        (LINEAR | {"mscale": 0.7}, "mscale is 0.7, which is not implemented"),
        (LINEAR | {"short_factor": [1.0] * 40}, "short_factor is [1.0, 1.0"),
        ({"factor": 4.0}, "factor is 4.0, only 1 is implemented"),
        (LINEAR | {"low_freq_factor": 1.0}, "low_freq_factor is 1.0, only None is implemented"),
        ({"full_attention": {"rope_theta": 5.0}}, "full_attention is {'rope_theta': 5.0}, which is not implemented"),
    ],
)
def test_what_rotary_positions_have_more_is_refused(rope: dict, part: str, tmp_path: Path):
    for place in ("rope_scaling", "rope_parameters"):
        assert f"{place}.{part}" in refusal(tmp_path, LLAMA_ALONE | {place: rope})


def test_rotary_values_without_effect_are_read_over(tmp_path: Path):
    rope = LINEAR | {"type": "linear", "attention_factor": None, "beta_fast": 32, "original_max_position_embeddings": 9}
    config = config_of(tmp_path, LLAMA_ALONE | {"rope_scaling": rope | {"partial_rotary_factor": 1.0}})
    assert (config.rotary_base, config.rotary_scaling) == (500.0, RotaryScaling(3.0))
    for nothing in (None, {}):
        assert config_of(tmp_path, LLAMA_ALONE | {"rope_scaling": nothing}).rotary_scaling is None


# --- values of keys that change the function


@pytest.mark.parametrize("kind", FAMILY)
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("is_causal", None),
        ("is_causal", []),
        ("layer_types", ["full_attention", "sliding_attention"]),
        ("quantization_config", {"quant_method": "fp8"}),
        ("use_sliding_window", True),
        ("attn_logit_softcapping", 30.0),
        ("use_bidirectional_attention", True),
        ("is_encoder_decoder", True),
    ],
)
def test_what_changes_the_function_is_refused_in_every_family(kind: str, key: str, value: Any, tmp_path: Path):
    assert f"{key} is {value!r}, only " in refusal(tmp_path, {"model_type": kind, **SIZES[kind], key: value})


def test_neutral_values_are_no_options(tmp_path: Path):
    for kind, family in FAMILY.items():
        settings = {"model_type": kind, **SIZES[kind]}
        plain = config_of(tmp_path, settings)
        for key, values in neutral_keys(family).items():
            for value in values:
                assert config_of(tmp_path, settings | {key: value}) == plain, key
        assert config_of(tmp_path, settings | {"layer_types": ["full_attention"] * 3}) == plain


# --- keys that nobody knows


def test_unknown_keys_are_named_once_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture):
    settings = {"model_type": "gpt2", "use_alien_attention": True, "auto_map": {"AutoModel": "own.Model\n" * 30}}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match="no weights"):
        open_directory(tmp_path)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and len(lines[0]) < 400, lines
    for part in ("warning: ", str(tmp_path / "config.json"), "use_alien_attention True", "auto_map {'AutoModel'"):
        assert part in lines[0]


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_published_models_say_is_known(name: str, tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED[name]))
    with pytest.raises(UserError, match="no weights"):  # the configuration has been read by then
        open_directory(tmp_path)
    assert not capsys.readouterr().err


def test_no_key_is_on_two_lists():
    for family in FAMILIES:
        lists = [read_keys(family), {*neutral_keys(family)}, HARMLESS | family.harmless]
        assert len(set().union(*lists)) == sum(map(len, lists))
