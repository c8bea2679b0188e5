"""What a rule found beside what is there."""

from typing import NamedTuple

import numpy as np

import nejax
from benchmarks.truth.mapped import mapped
from benchmarks.truth.rules import large_only
from benchmarks.truth.units import Unit


class Score(NamedTuple):
    """Of one neuron and one rule."""

    found: int
    """Clusters."""
    is_right: bool
    """One or none where there is one or none; else between the fewest and the most features that are right."""
    is_split: bool
    """More than there can be."""
    is_merged: bool
    """Fewer than there must be."""
    ari: float
    """Adjusted Rand index over the examples of the features that count; NaN where fewer than two do."""
    unassigned: float
    """Share of all examples."""
    is_apart: bool
    """Each example is a cluster."""


def scores_of(units: list[Unit], labels: np.ndarray) -> list[Score]:
    """Of each neuron.

    Args:
        units: with their answers.
        labels: [m, n] the cluster of each example, -1 for none; those left out count as one cluster in the index.
    """
    n = labels.shape[1]
    known = np.stack([np.pad(unit.is_supported, (0, n - len(unit.label))) for unit in units])
    true = np.stack([np.pad(unit.label, (0, n - len(unit.label))) for unit in units])
    found = np.where(labels < 0, n, labels)
    index = _index(*(np.where(known, of, -1).astype(np.int32) for of in (true, found)))
    return [_score(*each) for each in zip(units, labels, index, strict=True)]


def _score(unit: Unit, labels: np.ndarray, index: float) -> Score:
    labels = labels[: len(unit.label)]
    fewest, features, most = unit.answer
    found = len(np.unique(labels[labels >= 0]))
    is_split, is_merged = found > max(most, 1), fewest > 1 and found < fewest
    ari = float(index) if features > 1 else float("nan")
    counts = found, not (is_split or is_merged), is_split, is_merged
    return Score(*counts, ari, float(np.mean(labels < 0)), found == len(labels))


_index = mapped(nejax.adjusted_rand_index)


LARGE = "clusters of 5"

FORMS = {"all clusters": lambda labels: labels, LARGE: large_only}
"""Which clusters count as features."""
