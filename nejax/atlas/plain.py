"""What an atlas's objects hold, as values that JSON can hold."""

import dataclasses
import math
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """A value as dictionaries, lists, strings, numbers, true, false and None, which `json.dumps` takes as they are.

    Dataclasses and NamedTuples become dictionaries of their fields, arrays nested lists, NaN and infinities None.
    """
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if dataclasses.is_dataclass(value):
        return fields_of(value)
    if isinstance(value, tuple) and (as_dict := getattr(value, "_asdict", None)):
        return plain(as_dict())
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def fields_of(entry: Any, *left_out: str) -> dict[str, Any]:
    """The public fields of a dataclass, except some, as plain values."""
    names = [field.name for field in dataclasses.fields(entry) if not field.name.startswith("_")]
    return {name: plain(getattr(entry, name)) for name in names if name not in left_out}
