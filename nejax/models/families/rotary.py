"""Rotary positions (Su et al. 2021, arXiv 2104.09864): their settings in `config.json`, and the rotation."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from nejax.models.families.config_keys import refused_values, shortened

ROTARY_KEYS = ("rope_scaling", "rope_parameters", "rope_theta", "original_max_position_embeddings")
"""The keys of `config.json` that `read_rotary` reads."""

KINDS: Mapping[str, Mapping[str, str]] = {
    "default": {},
    "linear": {"factor": "factor"},
    "llama3": {
        "factor": "factor",
        "low_freq_factor": "low_freq_factor",
        "high_freq_factor": "high_freq_factor",
        "n_positions": "original_max_position_embeddings",
    },
}
"""Kind of scaling -> field of `RotaryScaling` -> key."""
_READ = ("rope_type", "type", "rope_theta")
_HARMLESS = ("original_max_position_embeddings", "beta_fast", "beta_slow", "truncate", "finetuned")
"""Of kinds that are refused; of no effect on the others."""
_NEUTRAL = {
    "factor": (None, 1),
    "low_freq_factor": (None,),
    "high_freq_factor": (None,),
    "partial_rotary_factor": (None, 1),
    "attention_factor": (None, 1),
}


class RotaryScaling(NamedTuple):
    """How rotary frequencies are scaled to reach beyond the length of the first training.

    Frequencies whose wavelength is longer than `n_positions / low_freq_factor` are divided by `factor`, those shorter
    than `n_positions / high_freq_factor` are kept, and those between are interpolated (Llama 3.1). If both factors are
    infinite, all are divided: linear scaling (Chen et al. 2023, arXiv 2306.15595).
    """

    factor: float
    low_freq_factor: float = math.inf
    high_freq_factor: float = math.inf
    n_positions: int = 0
    """Before."""


class Rotary(NamedTuple):
    """The settings of rotary positions in a `config.json`."""

    base: float
    scaling: RotaryScaling | None


def rotary_frequencies(d_head: int, base: float, scaling: RotaryScaling | None) -> np.ndarray:
    """The angle by which each pair of a head's dimensions turns from one position to the next, `[d_head / 2]` float32.

    `base^(-2 i / d_head)` for pair `i`, scaled as `RotaryScaling` says.
    """
    frequency = 1.0 / base ** (np.arange(0, d_head, 2, dtype=np.float32) / d_head)
    if scaling is None:
        return frequency.astype(np.float32)
    if math.isinf(scaling.low_freq_factor):
        return (frequency / scaling.factor).astype(np.float32)
    turns = scaling.n_positions * frequency / (2 * np.pi)
    kept = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    kept = np.clip(kept, 0.0, 1.0)
    return (frequency * (kept + (1 - kept) / scaling.factor)).astype(np.float32)


def rotate(
    x: Float[Array, "batch heads seq d_head"], position: Int[Array, "..."], frequency: np.ndarray
) -> Float[Array, "batch heads seq d_head"]:
    """Turn queries or keys by their positions: dimension `i` of the first half and of the second are a pair.

    Args:
        x: of every head.
        position: `[seq]`, or `[batch, seq]`.
        frequency: `[d_head / 2]`, see `rotary_frequencies`.
    """
    angle = position[..., None].astype(jnp.float32) * frequency
    angle = angle.reshape(-1, 1, *angle.shape[-2:])  # [batch or 1, 1, seq, d_head / 2]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x.dtype)


def read_rotary(settings: Mapping[str, Any], default_base: float) -> tuple[Rotary, list[str]]:
    """What the settings of a `config.json` say of rotary positions, and what is wrong with it.

    The base is a key of its own or in `rope_parameters`; scaling in that object or, before version 5 of transformers,
    in `rope_scaling`. Versions differ in which they prefer, so where two of these are given they have to agree.
    """
    places = {key: settings[key] for key in ("rope_scaling", "rope_parameters") if settings.get(key)}
    problems = [
        f"{key} is {shortened(rope)}, expected an object" for key, rope in places.items() if not isinstance(rope, dict)
    ]
    if problems:
        return Rotary(default_base, None), problems
    read = []
    for place, rope in (places or {"rope_parameters": {}}).items():
        found, wrong = _read_place(place, rope, settings, default_base)
        read.append(found)
        problems += wrong
    if not problems and len(set(read)) > 1:
        problems.append(f"{' and '.join(places)} contradict each other: {' and '.join(map(_in_words, read))}")
    return read[0], problems


def rotary_settings(rotary: Rotary) -> dict[str, Any]:
    """Rotary positions as `config.json` has them; `read_rotary` reads them back."""
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": rotary.base}
    if scaling := rotary.scaling:
        kind = "linear" if math.isinf(scaling.low_freq_factor) else "llama3"
        rope |= {"rope_type": kind} | {key: getattr(scaling, field) for field, key in KINDS[kind].items()}
    return {"rope_parameters": rope}


def _read_place(
    place: str, rope: Mapping[str, Any], settings: Mapping[str, Any], default_base: float
) -> tuple[Rotary, list[str]]:
    problems = []
    base = rope.get("rope_theta", settings.get("rope_theta", default_base))
    if type(base) not in (int, float) or not 1 < base < math.inf:
        problems.append(f"rope_theta is {shortened(base)}, expected a number above 1")
    elif settings.get("rope_theta", base) != base:
        problems.append(f"rope_theta is {settings['rope_theta']!r}, and {base!r} in {place}")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in tuple(KINDS):
        kinds = ", ".join(map(repr, KINDS))
        return Rotary(default_base, None), [*problems, f"rope_type is {kind!r}, only {kinds} are implemented ({place})"]
    if rope.get("type", kind) != kind:
        problems.append(f"{place} have rope_type {kind!r} and type {rope['type']!r}")
    keys = KINDS[kind]
    others = {key: value for key, value in rope.items() if key not in (*_READ, *keys.values())}
    problems += [f"{place}.{problem}" for problem in refused_values(_NEUTRAL, others)]
    problems += [
        f"{place}.{key} is {shortened(value)}, which is not implemented"
        for key, value in others.items()
        if key not in (*_NEUTRAL, *_HARMLESS) and value is not None
    ]
    found: dict[str, Any] = {field: rope.get(key) for field, key in keys.items()}
    wrong = [key for field, key in keys.items() if type(found[field]) not in (int, float) or not found[field] > 0]
    problems += [f"{place} have no positive number as {key}" for key in wrong]
    if problems or not keys:
        return Rotary(base, None), problems
    scaling = RotaryScaling(**found)
    if kind == "llama3":
        before = settings.get("original_max_position_embeddings", scaling.n_positions)
        if before != scaling.n_positions:
            problems.append(f"original_max_position_embeddings is {before!r}, and {scaling.n_positions!r} in {place}")
        if not scaling.low_freq_factor < scaling.high_freq_factor:
            problems.append(
                f"low_freq_factor {scaling.low_freq_factor} is not below high_freq_factor {scaling.high_freq_factor}"
            )
    return Rotary(base, scaling), problems


def _in_words(rotary: Rotary) -> str:
    rope = rotary_settings(rotary)["rope_parameters"]
    return ", ".join(f"{key} {value}" for key, value in rope.items())
