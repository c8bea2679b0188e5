"""GPT-2's configuration and weights in files: the layout of Hugging Face, read and written.

A directory holds `config.json` and the tensors in `model.safetensors`, or in shards listed by
`model.safetensors.index.json`. One table says which tensor fills which parameter of `nejax.models.gpt2.GPT2`.
The four matrices of a layer are stored `[in, out]` (transformers' Conv1D), as they are used: no transposes.
"""

import math
import re
import shutil
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import transformers
from flax import nnx
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from nejax.errors import UserError
from nejax.models.files import listed, read_json
from nejax.models.gpt2 import ACTIVATIONS, GPT2, GPT2Config

NAMES = {
    "wte.weight": "token_embedding.embedding",
    "wpe.weight": "position_embedding.embedding",
    "h.{}.ln_1.weight": "blocks.attention_norm.scale",
    "h.{}.ln_1.bias": "blocks.attention_norm.bias",
    "h.{}.attn.c_attn.weight": "blocks.attention.qkv.kernel",
    "h.{}.attn.c_attn.bias": "blocks.attention.qkv.bias",
    "h.{}.attn.c_proj.weight": "blocks.attention.output.kernel",
    "h.{}.attn.c_proj.bias": "blocks.attention.output.bias",
    "h.{}.ln_2.weight": "blocks.mlp_norm.scale",
    "h.{}.ln_2.bias": "blocks.mlp_norm.bias",
    "h.{}.mlp.c_fc.weight": "blocks.mlp_in.kernel",
    "h.{}.mlp.c_fc.bias": "blocks.mlp_in.bias",
    "h.{}.mlp.c_proj.weight": "blocks.mlp_out.kernel",
    "h.{}.mlp.c_proj.bias": "blocks.mlp_out.bias",
    "ln_f.weight": "final_norm.scale",
    "ln_f.bias": "final_norm.bias",
}
"""Tensor name -> path of the parameter it fills. `{}` is the layer, the first axis of that parameter."""

_PREFIX = "transformer."  # in the files of models saved with their head; the published GPT-2 files do without
_HEAD, _EMBEDDING = "lm_head.weight", "wte.weight"  # GPT-2 uses one matrix for both
_IGNORED = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")  # causal masks

_CONFIG_KEYS = {
    "vocab_size": "vocab_size",
    "n_positions": "n_positions",
    "d_model": "n_embd",
    "n_layers": "n_layer",
    "n_heads": "n_head",
    "d_mlp": "n_inner",
    "layer_norm_epsilon": "layer_norm_epsilon",
    "activation": "activation_function",
}
_FIXED_OPTIONS = {
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}
"""Options of `config.json` that change the function. Only these values, the defaults, are implemented."""

_STORED_DTYPES = ("F64", "F32", "F16", "BF16")
_DTYPES = ("float32", "bfloat16", "float16")


def read_config(directory: Path) -> GPT2Config:
    """The shape of the model that a directory's `config.json` describes.

    Raises:
        UserError: no such file, not a GPT-2, or a GPT-2 with options that are not implemented (all listed).
    """
    path = directory / "config.json"
    if not path.is_file():
        raise UserError(f"no config.json in {directory}; expected a model directory in the layout of Hugging Face")
    settings = read_json(path)
    if settings.get("model_type") != "gpt2":
        raise UserError(f"{path} has model_type {settings.get('model_type')!r}; only models of type 'gpt2' can be read")

    defaults = GPT2Config()._asdict()
    values: dict[str, Any] = {field: settings.get(key, defaults[field]) for field, key in _CONFIG_KEYS.items()}
    if settings.get("n_inner") is None and type(values["d_model"]) is int:
        values["d_mlp"] = 4 * values["d_model"]
    problems = _config_problems(values)
    for option, expected in _FIXED_OPTIONS.items():
        if settings.get(option, expected) is not expected:
            problems.append(f"{option} is {settings[option]!r}, only {expected!r} is implemented")
    if problems:
        raise UserError(f"{path} describes a model that cannot be read: {'; '.join(problems)}")
    return GPT2Config(**values)


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files that hold a directory's weights: one, or the shards of its index.

    Raises:
        UserError: there are none, or the index names shards that are not there.
    """
    single, index = directory / "model.safetensors", directory / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if not index.is_file():
        raise UserError(
            f"no weights in {directory}; expected model.safetensors or model.safetensors.index.json with its "
            "shards (files of type .bin are not read: save the model again with a current transformers)"
        )
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{index} has no weight_map; expected the index of a sharded model; get the file again")
    files = [directory / name for name in sorted({str(name) for name in weight_map.values()})]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise UserError(f"of the {len(files)} shards in {index}, {len(missing)} are missing: {listed(missing)}")
    return files


def load_gpt2(directory: Path | str, *, dtype: Any = jnp.float32) -> GPT2:
    """The model in a directory. Files are read tensor by tensor: memory holds little more than one copy.

    Args:
        directory: `config.json` and safetensors, names with or without `transformer.` before them.
        dtype: of the weights, and of the operands of matrix products: float32, bfloat16 or float16.

    Raises:
        UserError: see `read_config` and `weight_files`; damaged files; tensors that are missing, not
            expected, of another shape or type, or not finite in `dtype`, all in one list.
    """
    directory, dtype = Path(directory), _float_dtype(dtype)
    config = read_config(directory)
    stored = _stored_tensors(weight_files(directory))
    problems = _misplaced_tensors(stored, config.n_layers)
    if read_json(directory / "config.json").get("tie_word_embeddings") is False and _HEAD not in stored:
        problems["missing"].append(_HEAD)

    abstract = nnx.eval_shape(lambda: GPT2(config, dtype=dtype, param_dtype=dtype, rngs=nnx.Rngs(params=0)))
    graph, state = nnx.split(abstract)
    leaves = leaves_of(state)
    for template, path in NAMES.items():
        values = np.empty(leaves[path].shape, dtype)
        for name, part in _parts(template, values):
            kind, detail = _fill(part, stored.get(name))
            if kind:
                problems[kind].append(name + detail)
        leaves[path].set_value(jax.device_put(values))
    if problems:
        raise UserError(
            f"{directory} does not hold the weights of the model in its config.json: "
            f"{'; '.join(f'{kind}: {listed(names)}' for kind, names in problems.items())}; "
            "get the model's files again"
        )
    return nnx.merge(graph, state)


def save_gpt2(model: GPT2, directory: Path | str, tokenizer: Any = None, *, dtype: Any = jnp.float32) -> None:
    """Write a model as a directory that `load_gpt2` and transformers' `GPT2LMHeadModel` load.

    Args:
        model: the model.
        directory: made if it is not there; files of the same names are replaced.
        tokenizer: a transformers tokenizer, saved beside the model; `config.json` gets its BOS and EOS ids.
        dtype: of the weights in the file: float32, bfloat16 or float16.

    Raises:
        UserError: another dtype, or weights that are not finite in it; nothing has been written then.
    """
    dtype, directory = _float_dtype(dtype), Path(directory)
    leaves = leaves_of(nnx.state(model))
    tensors = {}
    for template, path in NAMES.items():
        with np.errstate(over="ignore"):  # float16 ends at 65504; what is beyond becomes infinite and is refused
            values = np.asarray(leaves[path].get_value()).astype(dtype, copy=False)
        tensors |= {_PREFIX + name: part for name, part in _parts(template, values)}
    not_finite = [name for name, values in tensors.items() if not np.isfinite(values).all()]
    if not_finite:
        raise UserError(
            f"the model cannot be saved as {dtype}: not finite: {listed(not_finite)}; "
            "save it as float32, or weights from before its training diverged"
        )

    directory.mkdir(parents=True, exist_ok=True)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    settings = {key: getattr(model.config, field) for field, key in _CONFIG_KEYS.items()}
    transformers.GPT2Config(
        architectures=["GPT2LMHeadModel"],
        bos_token_id=getattr(tokenizer, "bos_token_id", None),
        eos_token_id=getattr(tokenizer, "eos_token_id", None),
        dtype=str(dtype),
        **settings,
    ).save_pretrained(directory)
    # safetensors makes files that only their owner can read.
    shutil.copymode(directory / "config.json", directory / "model.safetensors")
    if tokenizer is not None:
        tokenizer.save_pretrained(directory)


class _Stored(NamedTuple):
    """Where a tensor is, and what its file's header says about it."""

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: str

    def read(self) -> np.ndarray:
        # Pages of an open file count as this process's memory until it is closed: open it for each tensor.
        with safe_open(self.file, framework="np") as opened:
            return opened.get_tensor(self.name)


def _stored_tensors(files: list[Path]) -> dict[str, _Stored]:
    """What the files hold, by name without prefix."""
    stored: dict[str, _Stored] = {}
    damaged = []
    for file in files:
        try:
            with safe_open(file, framework="np") as opened:
                names = opened.keys()
                for name in names:
                    header = opened.get_slice(name)
                    tensor = _Stored(file, name, tuple(header.get_shape()), header.get_dtype())
                    if stored.setdefault(name.removeprefix(_PREFIX), tensor) is not tensor:
                        damaged.append(f"{file} ({name} is there twice)")
        except (SafetensorError, OSError) as error:
            damaged.append(f"{file} ({error})")
    if damaged:
        raise UserError(f"damaged or truncated weights: {listed(damaged)}; get the model's files again")
    return stored


def _misplaced_tensors(stored: dict[str, _Stored], n_layers: int) -> defaultdict[str, list[str]]:
    """What is wrong with the tensors that fill no parameter: kind of problem -> names."""
    problems: defaultdict[str, list[str]] = defaultdict(list)
    expected = {template.format(layer) for template in NAMES for layer in range(n_layers)} | {_HEAD}
    unexpected = [name for name in stored if name not in expected and not _IGNORED.fullmatch(name)]
    if unexpected:
        problems["not expected"] = sorted(unexpected)
    if _HEAD in stored and not _same(stored[_HEAD], stored.get(_EMBEDDING)):
        problems["not the same as wte.weight"].append(_HEAD)
    return problems


def _same(a: _Stored, b: _Stored | None) -> bool:
    if b is None or (a.shape, a.dtype) != (b.shape, b.dtype) or a.dtype not in _STORED_DTYPES:
        return False
    return np.array_equal(a.read(), b.read(), equal_nan=True)


def _parts(template: str, values: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """A parameter as the tensors of a file: each layer's name and view, or the one name and the whole."""
    if "{}" in template:
        yield from ((template.format(layer), part) for layer, part in enumerate(values))
    else:
        yield template, values


def _fill(part: np.ndarray, tensor: _Stored | None) -> tuple[str, str]:
    """Read a tensor into its place; return the kind of problem and its detail, empty if there is none."""
    if tensor is None:
        return "missing", ""
    if tensor.shape != part.shape:
        return "wrong shape", f" {list(tensor.shape)} (expected {list(part.shape)})"
    if tensor.dtype not in _STORED_DTYPES:
        return "wrong type", f" {tensor.dtype} (expected {', '.join(_STORED_DTYPES)})"
    with np.errstate(over="ignore"):  # float16 ends at 65504; what is beyond becomes infinite and is refused
        part[...] = tensor.read()
    return ("" if np.isfinite(part).all() else f"not finite as {part.dtype}"), ""


def _config_problems(values: dict[str, Any]) -> list[str]:
    """What is wrong with the would-be fields of a `GPT2Config`, in the words of `config.json`."""
    problems = []
    for field, key in _CONFIG_KEYS.items():
        value, default = values[field], GPT2Config._field_defaults[field]
        if type(default) is int and (type(value) is not int or value < 1):
            problems.append(f"{key} is {value!r}, expected a positive integer")
    if not problems and values["d_model"] % values["n_heads"]:
        problems.append(f"n_embd {values['d_model']} cannot be divided by n_head {values['n_heads']}")
    epsilon, activation = values["layer_norm_epsilon"], values["activation"]
    if type(epsilon) not in (int, float) or not 0 < epsilon < math.inf:
        problems.append(f"layer_norm_epsilon is {epsilon!r}, expected a positive number")
    if activation not in tuple(ACTIVATIONS):
        problems.append(f"activation_function is {activation!r}, expected one of {', '.join(ACTIVATIONS)}")
    return problems


def leaves_of(state: nnx.State) -> dict[str, nnx.Variable]:
    """The variables of a state by their paths, joined by dots."""
    return {".".join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(state)}


def _float_dtype(dtype: Any) -> np.dtype:
    try:
        found = jnp.dtype(dtype)
    except TypeError:
        found = None
    if found is None or found.name not in _DTYPES:
        raise UserError(f"weights cannot be of type {dtype!r}; expected one of {', '.join(_DTYPES)}")
    return found
