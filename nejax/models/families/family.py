"""The description of a family of language models, from which its files are read and written.

A family is one file of this folder (GPT-2 in `gpt2.py`, Llama in `llama.py`) and a line in
`nejax.models.families.every`.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np


class GGUFLayout(NamedTuple):
    """The layout of a family's GGUF files."""

    architecture: str
    """`general.architecture` of such a file, also the prefix of its keys."""
    keys: Mapping[str, str]
    """Key of `config.json` -> key in the file, without the prefix. A key that the file lacks keeps its default."""
    restore: Callable[[str, np.ndarray, Mapping[str, Any]], np.ndarray]
    """Undoes what the conversion to GGUF did to a tensor: the tensor's name in the layout of Hugging Face, its values,
    the settings of `config.json` -> the values there."""


class Family(NamedTuple):
    """One family of models, in the layout of Hugging Face."""

    model_type: str
    """`model_type` of `config.json`."""
    architecture: str
    """The class of the model with its head in transformers."""
    prefix: str
    """The prefix of every tensor's name but the head's, in files of models that were saved with their head."""
    names: Mapping[str, str]
    """Tensor name without prefix -> path of the parameter it fills. `{}` is the layer, the first axis of that
    parameter. An entry is ignored where a model does not have the parameter (a bias, an untied head)."""
    ignored: str
    """A pattern of tensors that hold no parameter."""
    embedding: str
    """The tensor of the token embedding, which a tied head repeats."""
    kernels_are_transposed: bool
    """Whether the matrices are stored `[out, in]`."""
    config: Any
    """The class of its configuration: a NamedTuple, whose defaults are those of keys that `config.json` lacks."""
    config_keys: Mapping[str, str]
    """Field of the configuration -> key of `config.json`."""
    aliases: Mapping[str, str]
    """Aliases of keys in transformers -> the key."""
    also_read: tuple[str, ...]
    """Further keys that `complete` reads."""
    neutral: Mapping[str, tuple[Any, ...]]
    """Keys that change the function -> their only values that are implemented; `config_keys` has more."""
    harmless: frozenset[str]
    """Keys without effect on the function. `config_keys` has more."""
    derived: tuple[str, ...]
    """Fields that `complete` sets where `config.json` lacks the key or has null."""
    complete: Callable[[dict[str, Any], Mapping[str, Any]], list[str]]
    """Called with the configuration's values and the settings of `config.json`, once each value is of the right type:
    sets the values that depend on others, and returns all problems."""
    settings: Callable[[Any], dict[str, Any]]
    """From a configuration to the keys of `config.json` that are not in `config_keys`."""
    model: Callable[..., Any]
    """From a configuration, `dtype`, `param_dtype` and `rngs` to the model."""
    gguf: GGUFLayout | None = None
