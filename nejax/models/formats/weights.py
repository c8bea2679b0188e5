"""A model's weights in files: the layout of Hugging Face, read and written.

A directory holds `config.json` and the tensors in `model.safetensors`, or in shards listed by
`model.safetensors.index.json`. The table of a model's family says which tensor fills which parameter.
"""

import re
import shutil
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import transformers
from flax import nnx
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from nejax.errors import UserError
from nejax.models.families.config_keys import warn_of_unknown
from nejax.models.families.every import FAMILIES
from nejax.models.families.family import Family
from nejax.models.formats.config_files import parse_config, read_settings, settings_of
from nejax.models.formats.files import listed, read_json
from nejax.models.formats.model_files import ModelFiles, StoredTensor
from nejax.models.formats.tensor_problems import HEAD, STORED_DTYPES, misplaced_tensors, remedy

_WRAPPERS = re.compile(r"^(_orig_mod\.|module\.)+")
"""Prefixes that torch.compile and data parallelism add to every name."""
_DTYPES = ("float32", "bfloat16", "float16")


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


def open_directory(directory: Path | str) -> ModelFiles:
    """A model directory in the layout of Hugging Face, names with or without the family's prefix before them.

    Keys of `config.json` that are on no list are named on standard error, see `nejax.models.families.config_keys`.

    Raises:
        UserError: see `read_settings` and `weight_files`; damaged files.
    """
    directory = Path(directory)
    family, settings = read_settings(directory)
    parse_config(family, settings, directory / "config.json")  # what can be refused without the weights, is
    warn_of_unknown(family, settings, directory / "config.json")
    return ModelFiles(directory, family, settings, _stored_tensors(weight_files(directory), family.prefix))


def load_weights(files: ModelFiles | Path | str, *, dtype: Any = jnp.float32) -> Any:
    """The model in its files. They are read tensor by tensor: memory holds little more than one copy.

    Args:
        files: what was found of it, or a directory, see `open_directory`.
        dtype: of the weights, and of the operands of matrix products: float32, bfloat16 or float16.

    Returns:
        A `nejax.models.families.transformer.Transformer` of the files' family.

    Raises:
        UserError: see `parse_config`; tensors that are missing, not expected, of another shape or type, or not finite
            in `dtype`, all in one list.
    """
    dtype = _float_dtype(dtype)
    path, family, settings, stored = files if isinstance(files, ModelFiles) else open_directory(files)
    source = path / "config.json" if path.is_dir() else path
    config = parse_config(family, settings, source)
    abstract = nnx.eval_shape(lambda: family.model(config, dtype=dtype, param_dtype=dtype, rngs=nnx.Rngs(params=0)))
    graph, state = nnx.split(abstract)
    leaves = leaves_of(state)
    names = _names_of(family, leaves)
    if config.tied_head and family.embedding not in stored and HEAD in stored:
        stored = stored | {family.embedding: stored[HEAD]}  # one matrix, whichever of its names it has
    problems = misplaced_tensors(stored, family, names, config.n_layers)
    for template, parameter in names.items():
        values = np.empty(leaves[parameter].shape, dtype)
        for name, part in _parts(template, parameter, values, family):
            kind, detail = _fill(part, stored.get(name))
            if kind:
                problems[kind].append(name + detail)
        leaves[parameter].set_value(jax.device_put(values))
    if problems:
        raise UserError(
            f"{path} does not hold the weights of the model in its {'config.json' if path.is_dir() else 'metadata'}: "
            f"{'; '.join(f'{kind}: {listed(found)}' for kind, found in problems.items())}; "
            f"{remedy(problems, family, names)}"
        )
    return nnx.merge(graph, state)


def save_weights(model: Any, directory: Path | str, tokenizer: Any = None, *, dtype: Any = jnp.float32) -> None:
    """Write a model as a directory that `load_weights` and transformers load.

    Args:
        model: of one of the families.
        directory: made if it is not there; files of the same names are replaced.
        tokenizer: a transformers tokenizer, saved beside the model; `config.json` gets its BOS and EOS ids.
        dtype: of the weights in the file: float32, bfloat16 or float16.

    Raises:
        UserError: another dtype, or weights that are not finite in it; nothing has been written then.
    """
    dtype, directory = _float_dtype(dtype), Path(directory)
    family = next(family for family in FAMILIES if family.model is type(model))
    leaves = leaves_of(nnx.state(model))
    tensors = {}
    for template, parameter in _names_of(family, leaves).items():
        with np.errstate(over="ignore"):  # float16 ends at 65504; what is beyond becomes infinite and is refused
            values = np.asarray(leaves[parameter].get_value()).astype(dtype, copy=False)
        for name, part in _parts(template, parameter, values, family):
            tensors[name if name == HEAD else family.prefix + name] = np.ascontiguousarray(part)
    not_finite = [name for name, values in tensors.items() if not np.isfinite(values).all()]
    if not_finite:
        raise UserError(
            f"the model cannot be saved as {dtype}: not finite: {listed(not_finite)}; "
            "save it as float32, or weights from before its training diverged"
        )

    directory.mkdir(parents=True, exist_ok=True)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    transformers.AutoConfig.for_model(
        family.model_type,
        architectures=[family.architecture],
        bos_token_id=getattr(tokenizer, "bos_token_id", None),
        eos_token_id=getattr(tokenizer, "eos_token_id", None),
        dtype=str(dtype),
        **settings_of(family, model.config),
    ).save_pretrained(directory)
    # safetensors makes files that only their owner can read.
    shutil.copymode(directory / "config.json", directory / "model.safetensors")
    if tokenizer is not None:
        tokenizer.save_pretrained(directory)


def _names_of(family: Family, leaves: Mapping[str, nnx.Variable]) -> dict[str, str]:
    """The family's table, without what this model does not have."""
    return {name: parameter for name, parameter in family.names.items() if parameter in leaves}


def _stored_tensors(files: list[Path], prefix: str) -> dict[str, StoredTensor]:
    """What the files hold, by name without prefix."""
    stored: dict[str, StoredTensor] = {}
    damaged = []
    for file in files:
        try:
            with safe_open(file, framework="np") as opened:
                names = opened.keys()
                for name in names:
                    header = opened.get_slice(name)
                    tensor = StoredTensor(tuple(header.get_shape()), header.get_dtype(), partial(_read, file, name))
                    if stored.setdefault(_WRAPPERS.sub("", name).removeprefix(prefix), tensor) is not tensor:
                        damaged.append(f"{file} ({name} is there twice)")
        except (SafetensorError, OSError) as error:
            damaged.append(f"{file} ({error})")
    if damaged:
        raise UserError(f"damaged or truncated weights: {listed(damaged)}; get the model's files again")
    return stored


def _read(file: Path, name: str) -> np.ndarray:
    # Pages of an open file count as this process's memory until it is closed: open it for each tensor.
    with safe_open(file, framework="np") as opened:
        return opened.get_tensor(name)


def _parts(template: str, parameter: str, values: np.ndarray, family: Family) -> Iterator[tuple[str, np.ndarray]]:
    """A parameter as the tensors of a file: each layer's name and view, or the one name and the whole."""
    if family.kernels_are_transposed and parameter.endswith(".kernel"):
        values = values.swapaxes(-1, -2)
    if "{}" in template:
        yield from ((template.format(layer), part) for layer, part in enumerate(values))
    else:
        yield template, values


def _fill(part: np.ndarray, tensor: StoredTensor | None) -> tuple[str, str]:
    """Read a tensor into its place; return the kind of problem and its detail, empty if there is none."""
    if tensor is None:
        return "missing", ""
    if tensor.shape != part.shape:
        return "wrong shape", f" {list(tensor.shape)} (expected {list(part.shape)})"
    if tensor.dtype not in STORED_DTYPES:
        return "wrong type", f" {tensor.dtype} (expected {', '.join(STORED_DTYPES)})"
    with np.errstate(over="ignore"):  # float16 ends at 65504; what is beyond becomes infinite and is refused
        part[...] = tensor.read()
    return ("" if np.isfinite(part).all() else f"not finite as {part.dtype}"), ""


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
