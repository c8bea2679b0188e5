"""What a family of language models says of itself, so that its files can be read and written.

A family is one file of this folder (GPT-2 in `gpt2.py`, Llama in `llama.py`) and a line in
`nejax.models.families.every`.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np


class GGUFLayout(NamedTuple):
    """How a family is kept in GGUF files."""

    architecture: str
    """`general.architecture` of such a file, which is the prefix of its keys too."""
    keys: Mapping[str, str]
    """Key of `config.json` -> key in the file, without the prefix. What the file lacks keeps its default."""
    restore: Callable[[str, np.ndarray, Mapping[str, Any]], np.ndarray]
    """Undoes what the conversion to GGUF did to a tensor: the tensor's name in the layout of Hugging Face, its values,
    the settings of `config.json` -> the values there."""


class Family(NamedTuple):
    """One family of models, in the layout of Hugging Face."""

    model_type: str
    """`model_type` of `config.json`."""
    architecture: str
    """What transformers calls the model with its head."""
    prefix: str
    """What stands before every tensor's name but the head's, in files of models that were saved with their head."""
    names: Mapping[str, str]
    """Tensor name without prefix -> path of the parameter it fills. `{}` is the layer, the first axis of that
    parameter. An entry whose parameter a model does not have (a bias, a head of its own) does not count for it."""
    ignored: str
    """A pattern of tensors that hold no parameter."""
    embedding: str
    """The tensor of the token embedding, which a tied head repeats."""
    kernels_are_transposed: bool
    """Whether the matrices are stored `[out, in]`."""
    config: Any
    """The class of its configuration: a NamedTuple, whose defaults hold where `config.json` is silent."""
    config_keys: Mapping[str, str]
    """Field of the configuration -> key of `config.json`."""
    aliases: Mapping[str, str]
    """Other names of keys, as transformers knows them -> the key."""
    also_read: tuple[str, ...]
    """Keys that `complete` reads besides."""
    neutral: Mapping[str, tuple[Any, ...]]
    """Keys that change the function -> their only values that are implemented; `config_keys` has more."""
    harmless: frozenset[str]
    """Keys without effect on the function. `config_keys` has more."""
    derived: tuple[str, ...]
    """Fields that `complete` sets where `config.json` is silent or says null."""
    complete: Callable[[dict[str, Any], Mapping[str, Any]], list[str]]
    """Called with the configuration's values and the settings of `config.json`, once each value is of the right type:
    sets the values that depend on others, and returns what is wrong with them all together."""
    settings: Callable[[Any], dict[str, Any]]
    """What of `config.json` the table of keys does not say, from a configuration."""
    model: Callable[..., Any]
    """From a configuration, `dtype`, `param_dtype` and `rngs` to the model."""
    gguf: GGUFLayout | None = None
