"""A model's configuration and tensors in files, in any format."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nejax.models.families.family import Family


class StoredTensor(NamedTuple):
    """A tensor in a file."""

    shape: tuple[int, ...]
    """As it will be read, in the layout of Hugging Face."""
    dtype: str
    """The type of the numbers that are read, in the words of safetensors: F32, BF16."""
    read: Callable[[], np.ndarray]
    """Reads it, as numbers."""


class ModelFiles(NamedTuple):
    """What was found of a model."""

    path: Path
    """The directory or the file."""
    family: Family
    settings: dict[str, Any]
    """As `config.json` has them."""
    tensors: dict[str, StoredTensor]
    """By their names in the layout of Hugging Face, without the family's prefix."""
