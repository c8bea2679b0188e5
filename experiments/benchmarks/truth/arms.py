"""What a rule may see of a neuron: its distances, by the neuron's embeddings or by something else."""

from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Array

import nejax
from benchmarks.truth.mapped import mapped
from benchmarks.truth.units import N_EXAMPLES, Unit
from nejax.neuron.defaults import HEIGHT_QUANTILE

Arm = Literal["neuron embeddings", "raw inputs", "shuffled dimensions"]
"""`x * w`; `x` alone, as if all weights were 1; `x * w` with each dimension shuffled among the examples, which leaves
no cluster."""

ARMS: tuple[Arm, ...] = get_args(Arm)

NULL: Arm = "shuffled dimensions"
"""The arm in which nothing is to be found."""


class Views(NamedTuple):
    """Many neurons, as one arm shows them."""

    distances: np.ndarray
    """[m, n, n] cosine distances."""
    mask: np.ndarray
    """[m, n] bool: which examples there are; they come first."""
    calibrated: np.ndarray
    """[m] the height at which an atlas cuts: a low quantile of the distances of unrelated inputs."""
    unrelated: np.ndarray
    """[m] the median of these distances."""


def views_of(units: list[Unit], arm: Arm) -> Views:
    """All units, in their order."""
    views: list[tuple[np.ndarray, ...]] = [()] * len(units)
    for d in {len(unit.w) for unit in units}:
        rows = [i for i, unit in enumerate(units) if len(unit.w) == d]
        shown = [_shown(units[i], arm) for i in rows]
        x, mask, w, reference = (np.stack(field) for field in zip(*shown, strict=True))
        distances, low, middle = _distances(x, w, reference)
        for place, i in enumerate(rows):
            views[i] = distances[place], mask[place], low[place], middle[place]
    return Views(*(np.stack(field) for field in zip(*views, strict=True)))


def _shown(unit: Unit, arm: Arm) -> tuple[np.ndarray, ...]:
    x, w = unit.x, unit.w
    if arm == "raw inputs":
        w = np.ones_like(w)
    elif arm == NULL:
        x = np.random.default_rng(unit.seed).permuted(x, axis=0)
    missing = N_EXAMPLES - len(x)
    return np.pad(x, ((0, missing), (0, 0))), np.arange(N_EXAMPLES) < len(x), w, unit.reference


@mapped
def _distances(x: Array, w: Array, reference: Array) -> tuple[Array, Array, Array]:
    low, middle = (nejax.calibrated_height(reference, w, quantile=q) for q in (HEIGHT_QUANTILE, 0.5))
    return nejax.embedding_distances(x, w), low, middle


def by_token(units: list[Unit]) -> np.ndarray:
    """[m, n] labels: examples with the same token at the peak are one cluster."""
    labels = np.full((len(units), N_EXAMPLES), -1)
    for row, unit in zip(labels, units, strict=True):
        assert unit.token is not None
        row[: len(unit.token)] = np.unique(unit.token, return_inverse=True)[1]
    return labels
