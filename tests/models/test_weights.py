"""GPT-2's files: what is read is what was written, transformers agrees, and every kind of damage is refused."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from model_files import INNER, LAYERS, SETTINGS, VOCAB, WIDTH, random_tensors, write_model, write_shards
from safetensors.numpy import save_file

from nejax.errors import UserError
from nejax.models.families.gpt2 import FAMILY, GPT2, GPT2Config
from nejax.models.formats.config_files import parse_config, read_settings
from nejax.models.formats.tokens import train_tokenizer
from nejax.models.formats.weights import load_weights, save_weights, weight_files


@pytest.fixture
def model(tmp_path_factory) -> GPT2:
    settings = {"layer_norm_epsilon": 1e-4, "activation_function": "silu"}
    return load_weights(write_model(tmp_path_factory.mktemp("model"), settings=settings))


def assert_holds(model: GPT2, tensors: dict[str, np.ndarray], dtype: str = "float32") -> None:
    """Each tensor sits, bit by bit, where the forward pass looks for it; the places are listed by hand."""
    blocks = model.blocks
    places = {
        "ln_1.weight": blocks.attention_norm.scale,
        "ln_1.bias": blocks.attention_norm.bias,
        "attn.c_attn.weight": blocks.attention.qkv.kernel,
        "attn.c_attn.bias": blocks.attention.qkv.bias,
        "attn.c_proj.weight": blocks.attention.output.kernel,
        "attn.c_proj.bias": blocks.attention.output.bias,
        "ln_2.weight": blocks.mlp_norm.scale,
        "ln_2.bias": blocks.mlp_norm.bias,
        "mlp.c_fc.weight": blocks.mlp_in.kernel,
        "mlp.c_fc.bias": blocks.mlp_in.bias,
        "mlp.c_proj.weight": blocks.mlp_out.kernel,
        "mlp.c_proj.bias": blocks.mlp_out.bias,
    }
    held = {f"h.{layer}.{name}": leaf[layer] for name, leaf in places.items() for layer in range(LAYERS)}
    held |= {
        "wte.weight": model.token_embedding.embedding[...],
        "wpe.weight": model.position_embedding.embedding[...],
        "ln_f.weight": model.final_norm.scale[...],
        "ln_f.bias": model.final_norm.bias[...],
    }
    assert held.keys() == tensors.keys()
    for name, expected in tensors.items():
        assert held[name].dtype == dtype
        np.testing.assert_array_equal(held[name], expected.astype(dtype), err_msg=name)
    assert len(jax.tree.leaves(nnx.state(model))) == len(places) + 4 == len(FAMILY.names) - 1  # no head


def refusal(directory: Path, **options) -> str:
    """The one line with which a directory is refused."""
    with pytest.raises(UserError) as caught:
        load_weights(directory, **options)
    message = str(caught.value)
    assert "\n" not in message and len(message) - len(str(directory)) < 450, message
    return message


# --- what is read


def test_every_tensor_gets_to_its_place(tmp_path: Path):
    model = load_weights(write_model(tmp_path))
    assert_holds(model, random_tensors())
    assert model.config == GPT2Config(VOCAB, 16, WIDTH, LAYERS, 2, INNER, 1e-5, "gelu_new")


def test_names_with_prefix_masks_and_a_tied_head_make_the_same_model(tmp_path: Path):
    tensors = random_tensors()
    files = {f"transformer.{name}": value for name, value in tensors.items()}
    files |= {f"transformer.h.{layer}.attn.bias": np.tri(16, dtype=np.float32) for layer in range(LAYERS)}
    files |= {"transformer.h.0.attn.masked_bias": np.array(-1e4, np.float32), "lm_head.weight": tensors["wte.weight"]}
    assert_holds(load_weights(write_model(tmp_path / "tied", files)), tensors)
    head = load_weights(write_model(tmp_path / "equal", files, {"tie_word_embeddings": False})).head.embedding[...]
    np.testing.assert_array_equal(head, tensors["wte.weight"])
    files["lm_head.weight"] = files.pop("transformer.wte.weight")  # one matrix, under the other of its names
    assert_holds(load_weights(write_model(tmp_path / "head only", files)), tensors)


def test_shards_make_the_same_model(tmp_path: Path):
    tensors = random_tensors()
    write_shards(write_model(tmp_path), tensors, 3)
    assert [file.name for file in weight_files(tmp_path)] == [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    assert_holds(load_weights(tmp_path), tensors)


@pytest.mark.parametrize("stored", ["float64", "float32", "float16", ml_dtypes.bfloat16])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_weights_are_cast_to_the_asked_type(tmp_path: Path, stored, dtype: str):
    tensors = {name: value.astype(stored) for name, value in random_tensors().items()}
    assert_holds(load_weights(write_model(tmp_path, tensors), dtype=dtype), tensors, dtype)


@pytest.mark.parametrize("dtype", [jnp.int8, "float64", "float33", None])
def test_types_that_are_no_floats_to_compute_with_are_refused(tmp_path: Path, dtype):
    message = refusal(write_model(tmp_path), dtype=dtype)
    assert message.startswith("weights cannot be of type") and "float32, bfloat16, float16" in message


@pytest.mark.slow
def test_loading_gpt2_small_needs_little_more_than_its_size(tmp_path: Path):
    """Measured: 475 MiB of weights raise the peak by 595 MiB in float32 (two copies: 950), 237 by 308 in bfloat16."""
    shapes = nnx.eval_shape(lambda: GPT2(GPT2Config(), rngs=nnx.Rngs(params=0)))
    model = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.01, leaf.dtype), shapes)
    save_weights(model, tmp_path)
    script = """if True:
        import resource, sys, jax, numpy
        from nejax.models.formats.weights import load_weights
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        jax.device_put(numpy.zeros(3)).block_until_ready()
        before = peak()
        model = jax.block_until_ready(load_weights(sys.argv[1], dtype=sys.argv[2]))
        print(peak() - before)
    """
    for dtype, bound in {"float32": 700, "bfloat16": 400}.items():
        command = [sys.executable, "-c", script, str(tmp_path), dtype]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert float(done.stdout) < bound, dtype


# --- what is written


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_what_is_saved_is_loaded(model: GPT2, tmp_path: Path, dtype: str):
    save_weights(model, tmp_path / "new" / "folder", dtype=dtype)
    loaded = load_weights(tmp_path / "new" / "folder", dtype=dtype)
    assert loaded.config == model.config == GPT2Config(VOCAB, 16, WIDTH, LAYERS, 2, INNER, 1e-4, "silu")
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a.astype(dtype), b), nnx.state(model), nnx.state(loaded))
    # Readable by whoever may read the configuration, so that an installed package's model is.
    files = tmp_path / "new" / "folder"
    assert (files / "model.safetensors").stat().st_mode == (files / "config.json").stat().st_mode


def test_transformers_loads_what_is_saved(model: GPT2, tmp_path: Path):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel

    tokenizer = train_tokenizer(["hello world, hello text"], vocab_size=270, n_positions=16)
    save_weights(model, tmp_path, tokenizer)
    loaded, info = GPT2LMHeadModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    tokens = np.random.default_rng(0).integers(0, 270, (2, 16))
    with torch.no_grad():
        logits = loaded(torch.tensor(tokens)).logits.numpy()
    np.testing.assert_allclose(model(jnp.asarray(tokens))[0], logits, rtol=1e-5, atol=1e-6)

    assert type(AutoModelForCausalLM.from_pretrained(tmp_path)) is GPT2LMHeadModel
    assert (loaded.config.bos_token_id, loaded.config.eos_token_id) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    text = "hello wörld"
    assert AutoTokenizer.from_pretrained(tmp_path)(text).input_ids == tokenizer(text).input_ids


def test_a_model_that_is_not_finite_is_not_saved(model: GPT2, tmp_path: Path):
    model.final_norm.bias = nnx.Param(model.final_norm.bias[...].at[3].set(70000.0))
    with pytest.raises(UserError, match=r"cannot be saved as float16: not finite: transformer\.ln_f\.bias;"):
        save_weights(model, tmp_path, dtype="float16")
    assert not list(tmp_path.iterdir())
    save_weights(model, tmp_path, dtype="float32")
    assert refusal(tmp_path, dtype="float16").count("not finite as float16: ln_f.bias") == 1


# --- damage


def test_all_that_is_wrong_is_listed_in_one_line(tmp_path: Path):
    tensors = random_tensors()
    for name in ("ln_f.bias", "h.0.ln_1.bias", "h.1.ln_1.bias", "h.1.mlp.c_fc.weight", "wpe.weight"):
        del tensors[name]
    tensors["h.2.ln_1.bias"] = tensors["score.weight"] = np.zeros(3, np.float32)
    tensors["wte.weight"] = tensors["wte.weight"][:-1].copy()
    tensors["h.1.mlp.c_proj.weight"][3, 4] = np.nan
    tensors["h.0.ln_2.weight"][0] = -np.inf
    tensors["ln_f.weight"] = tensors["ln_f.weight"].astype(np.int8)
    message = refusal(write_model(tmp_path, tensors))
    for part in (
        f"{tmp_path} does not hold the weights of the model in its config.json: ",
        "missing: wpe.weight, h.0.ln_1.bias, h.1.ln_1.bias and 2 more",
        "not expected: h.2.ln_1.bias, score.weight;",
        "wrong shape: wte.weight [269, 8] (expected [270, 8])",
        "wrong type: ln_f.weight I8 (expected F64, F32, F16, BF16)",
        "not finite as float32: h.0.ln_2.weight, h.1.mlp.c_proj.weight",
    ):
        assert part in message, (part, message)


def test_a_transposed_matrix_is_refused(tmp_path: Path):
    tensors = random_tensors()
    tensors["h.0.mlp.c_fc.weight"] = np.ascontiguousarray(tensors["h.0.mlp.c_fc.weight"].T)
    assert "wrong shape: h.0.mlp.c_fc.weight [20, 8] (expected [8, 20])" in refusal(write_model(tmp_path, tensors))


@pytest.mark.parametrize("change", ["other values", "other shape", "other type"])
def test_a_tied_head_that_is_another_is_refused(tmp_path: Path, change: str):
    tensors = random_tensors()
    head = {
        "other values": tensors["wte.weight"] + 1,
        "other shape": tensors["wte.weight"][1:].copy(),
        "other type": tensors["wte.weight"].astype(np.int32),
    }[change]
    message = refusal(write_model(tmp_path, tensors | {"lm_head.weight": head}))
    assert "not the same as wte.weight: lm_head.weight; if the model has a head of its own, set tie_word_" in message


def test_an_untied_head_that_is_not_there_is_missed(tmp_path: Path):
    message = refusal(write_model(tmp_path, settings={"tie_word_embeddings": False}))
    assert "missing: lm_head.weight; if the head is the token embedding, set tie_word_embeddings to true" in message


@pytest.mark.parametrize("wrapper", ["_orig_mod.", "module.", "module._orig_mod."])
def test_what_wrappers_put_before_names_is_taken_away(tmp_path: Path, wrapper: str):
    tensors = random_tensors()
    named = {f"{wrapper}transformer.{name}": value for name, value in tensors.items()}
    assert_holds(load_weights(write_model(tmp_path, named)), tensors)
    write_model(tmp_path, named | {"transformer.wte.weight": tensors["wte.weight"]})
    assert "wte.weight is there twice" in refusal(tmp_path)


def as_linear(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Matrices as PyTorch's Linear stores them."""
    return {
        name: np.ascontiguousarray(value.T) if value.ndim == 2 and name.startswith("h.") else value
        for name, value in tensors.items()
    }


def without(tensors: dict[str, np.ndarray], end: str) -> dict[str, np.ndarray]:
    return {name: value for name, value in tensors.items() if not name.endswith(end)}


def with_parts(tensors: dict[str, np.ndarray], *parts: str, dtype: str = "int32") -> dict[str, np.ndarray]:
    """One matrix as quantised files store it."""
    name = "h.0.mlp.c_fc"
    return without(tensors, f"{name}.weight") | {f"{name}.{part}": np.ones((2, 2), dtype) for part in parts}


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda tensors: without(tensors, ".bias"), "a GPT2LMHeadModel without these biases cannot be read; biases of"),
        (as_linear, "matrices that are transposed cannot be read: a GPT2LMHeadModel stores them as [in, out]"),
        (
            lambda tensors: with_parts(tensors, "qweight", "qzeros", "scales", "g_idx"),
            "quantised weights are read from",
        ),
        (lambda tensors: with_parts(tensors, "weight", "SCB", dtype="int8"), "quantised weights are read from GGUF"),
        (
            lambda tensors: with_parts(tensors, "weight", "weight_scale_inv", dtype=ml_dtypes.float8_e4m3fn),
            "quantised weights are read from GGUF files only; get the model in one of F64, F32, F16, BF16",
        ),
        (
            lambda tensors: {f"h.0.attn.c_attn.lora_{part}.weight": np.ones((2, 2), "f4") for part in "AB"},
            "adapters are not read; merge them into the model they belong to",
        ),
        (
            lambda tensors: {f"text.model.{name}": value for name, value in tensors.items()},
            "its names begin with 'text.model.'; rename them to begin with 'transformer.', or with nothing",
        ),
    ],
    ids=["no biases", "transposed", "gptq", "int8", "fp8", "adapter", "prefix"],
)
def test_what_is_not_read_is_said(tmp_path: Path, change, part: str):
    message = refusal(write_model(tmp_path, change(random_tensors())))
    assert part in message and "again" not in message


def test_what_is_merely_not_there_is_to_be_got_again(tmp_path: Path):
    message = refusal(write_model(tmp_path, without(random_tensors(), "c_fc.weight")))
    assert message.endswith("expected the tensors of a GPT2LMHeadModel; if these are, get the model's files again")


@pytest.mark.parametrize("n_bytes", [0, 5, 100, 5000, -1])
def test_a_truncated_file_is_named(tmp_path: Path, n_bytes: int):
    file = write_model(tmp_path) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:n_bytes])
    message = refusal(tmp_path)
    assert message.startswith(f"damaged or truncated weights: {file} (") and "get the model's files again" in message


def test_a_file_that_is_not_safetensors_is_named(tmp_path: Path):
    file = write_model(tmp_path) / "model.safetensors"
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0123456789\nsize 497774208\n")
    assert refusal(tmp_path).startswith(f"damaged or truncated weights: {file} (")


def test_damaged_shards_are_named_together(tmp_path: Path):
    write_shards(write_model(tmp_path), random_tensors(), 4)
    for shard in (2, 4):
        file = tmp_path / f"model-0000{shard}-of-00004.safetensors"
        file.write_bytes(file.read_bytes()[:-7])
    message = refusal(tmp_path)
    assert re.search("model-00002-of-00004.*model-00004-of-00004", message)
    assert "model-00001" not in message


def test_missing_shards_are_named(tmp_path: Path):
    write_shards(write_model(tmp_path), random_tensors(), 4)
    (tmp_path / "model-00003-of-00004.safetensors").unlink()
    message = refusal(tmp_path)
    assert "of the 4 shards in" in message and "1 are missing: model-00003-of-00004.safetensors" in message


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path):
    write_shards(write_model(tmp_path), random_tensors(), 2)
    save_file({"transformer.wte.weight": random_tensors()["wte.weight"]}, tmp_path / "model-00002-of-00002.safetensors")
    assert "transformer.wte.weight is there twice" in refusal(tmp_path)


@pytest.mark.parametrize("index", ["", "[]", "{}", '{"weight_map": {}}', "\x00"])
def test_an_index_that_is_none_is_named(tmp_path: Path, index: str):
    write_shards(write_model(tmp_path), random_tensors(), 2)
    (tmp_path / "model.safetensors.index.json").write_text(index)
    assert "model.safetensors.index.json" in refusal(tmp_path)


def test_a_directory_without_safetensors_is_refused(tmp_path: Path):
    (write_model(tmp_path) / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    message = refusal(tmp_path)
    assert message.startswith(f"no weights in {tmp_path}") and "files of type .bin are not read" in message


# --- configurations


def config_of(directory: Path, settings: dict) -> GPT2Config:
    (directory / "config.json").write_text(json.dumps(settings))
    return parse_config(*read_settings(directory), directory / "config.json")


def test_the_published_configuration_is_the_default(tmp_path: Path):
    published = {  # of openai-community/gpt2, as far as it says something about the function
        "activation_function": "gelu_new",
        "architectures": ["GPT2LMHeadModel"],
        "layer_norm_epsilon": 1e-05,
        "model_type": "gpt2",
        "n_ctx": 1024,
        "n_embd": 768,
        "n_head": 12,
        "n_layer": 12,
        "n_positions": 1024,
        "vocab_size": 50257,
    }
    assert config_of(tmp_path, published) == GPT2Config()
    assert config_of(tmp_path, {"model_type": "gpt2"}) == GPT2Config()


def test_inner_size_and_harmless_options(tmp_path: Path):
    assert config_of(tmp_path, SETTINGS | {"n_inner": None}).d_mlp == 4 * WIDTH
    assert config_of(tmp_path, {**SETTINGS, "n_inner": 33}).d_mlp == 33
    assert config_of(tmp_path, SETTINGS | {"reorder_and_upcast_attn": True}) == config_of(tmp_path, SETTINGS)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"model_type": "mamba"}, "model_type 'mamba'; only models of type 'gpt2' or 'llama'"),
        ({"model_type": None}, "model_type None"),
        (
            {"activation_function": "prelu"},
            "activation_function is 'prelu', expected one of gelu_new, gelu_fast",
        ),
        ({"activation_function": ["relu"]}, "activation_function is ['relu']"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True, only False"),
        ({"add_cross_attention": True}, "add_cross_attention is True, only False"),
        ({"scale_attn_weights": False}, "scale_attn_weights is False, only True"),
        ({"n_head": 3}, "n_embd 8 cannot be divided by n_head 3"),
        ({"n_head": 0}, "n_head is 0, expected a positive integer"),
        ({"n_embd": "8"}, "n_embd is '8', expected a positive integer"),
        ({"n_embd": None, "n_inner": None}, "n_embd is None, expected a positive integer"),
        ({"n_layer": True}, "n_layer is True, expected a positive integer"),
        ({"n_inner": -4}, "n_inner is -4, expected a positive integer"),
        ({"layer_norm_epsilon": 0}, "layer_norm_epsilon is 0, expected a positive number"),
        ({"layer_norm_epsilon": float("nan")}, "layer_norm_epsilon is nan"),
        ({"n_layer": 0, "scale_attn_weights": False}, "n_layer is 0, expected a positive integer; scale_attn_weights"),
    ],
)
def test_configurations_of_another_function_are_refused(tmp_path: Path, settings: dict, problem: str):
    with pytest.raises(UserError, match=re.escape(problem)):
        config_of(tmp_path, SETTINGS | settings)


@pytest.mark.parametrize("content", ["", "{", "[1]", "null", "\x80"])
def test_a_config_that_is_no_json_object_is_named(tmp_path: Path, content: str):
    (tmp_path / "config.json").write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "config.json"))):
        read_settings(tmp_path)
