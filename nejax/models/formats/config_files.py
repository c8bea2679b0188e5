"""The shape of a model as its `config.json` describes it, in the layout of Hugging Face."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nejax.errors import UserError
from nejax.models.families.activations import ACTIVATIONS
from nejax.models.families.config_keys import neutral_keys, refused_values, shortened, without_aliases
from nejax.models.families.every import FAMILIES
from nejax.models.families.family import Family
from nejax.models.formats.files import read_json


def read_settings(directory: Path) -> tuple[Family, dict[str, Any]]:
    """What a directory's `config.json` holds, and the family that it says the model is of.

    Raises:
        UserError: no such file, or no family that can be read.
    """
    path = directory / "config.json"
    if not path.is_file():
        raise UserError(f"no config.json in {directory}; expected a model directory in the layout of Hugging Face")
    settings = read_json(path)
    for family in FAMILIES:
        if settings.get("model_type") == family.model_type:
            return family, settings
    known = " or ".join(repr(family.model_type) for family in FAMILIES)
    raise UserError(f"{path} has model_type {settings.get('model_type')!r}; only models of type {known} can be read")


def parse_config(family: Family, settings: Mapping[str, Any], path: Path) -> Any:
    """The configuration that the settings of a `config.json` describe.

    Args:
        family: of the model.
        settings: what the file says; what it does not say has the family's default.
        path: the file, for a user.

    Raises:
        UserError: values out of range, keys that contradict each other, or options that are not implemented, all
            listed.
    """
    settings, contradictions = without_aliases(family, settings)
    defaults = family.config()._asdict()
    values = defaults | {field: settings[key] for field, key in family.config_keys.items() if key in settings}
    values |= {field: defaults[field] for field in family.derived if values[field] is None}
    problems = _problems(family, values, defaults) or family.complete(values, settings)
    problems += contradictions + refused_values(neutral_keys(family), settings)
    if problems:
        raise UserError(f"{path} describes a model that cannot be read: {'; '.join(problems)}")
    return family.config(**values)


def settings_of(family: Family, config: Any) -> dict[str, Any]:
    """What `config.json` says of a configuration; `parse_config` reads it back."""
    return {key: getattr(config, field) for field, key in family.config_keys.items()} | family.settings(config)


def _problems(family: Family, values: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    """What is wrong with single values, in the words of `config.json`."""
    problems = []
    for field, key in family.config_keys.items():
        value, kind = values[field], type(defaults[field])
        if kind is int and (type(value) is not int or value < 1):
            problems.append(f"{key} is {shortened(value)}, expected a positive integer")
        elif kind is float and (type(value) not in (int, float) or not 0 < value < math.inf):
            problems.append(f"{key} is {shortened(value)}, expected a positive number")
        elif kind is bool and type(value) is not bool:
            problems.append(f"{key} is {shortened(value)}, expected true or false")
        elif kind is str and value not in tuple(ACTIVATIONS):
            problems.append(f"{key} is {shortened(value)}, expected one of {', '.join(ACTIVATIONS)}")
    return problems
