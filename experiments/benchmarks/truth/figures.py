"""Scores summed up, with their 95% intervals."""

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from benchmarks.truth import intervals
from benchmarks.truth.answers import Answers, Key
from benchmarks.truth.arms import ARMS
from benchmarks.truth.planted import FAMILIES
from benchmarks.truth.scoring import Score
from benchmarks.truth.units import Unit

ONE, SEVERAL, INSEPARABLE, ONE_SEEN = "none or one", "several", "several, inseparable", "one seen of several"
"""By what is there: at most one feature; at least two with enough examples, which can be told apart; which cannot; more
than one, but at most one of them with enough examples."""

COMMON, HELD_OUT, ALL = "common", "held out", "all"
"""Planted families; those with a shared direction are in neither. Chimeras are all in one."""

NUMBERED = "K", "d", "k", "noise"
"""Groups of neurons that have the same number of these: `"K = 2"`."""

SHARED = {family.name for family in FAMILIES if family.shared}


class Figures(NamedTuple):
    """Of one rule, for some neurons of a kind."""

    source: str
    group: str
    kind: str
    arm: str
    rule: str
    form: str
    """Which clusters count."""
    n: int
    """Neurons."""
    right: float
    """Share of them whose number is right."""
    right_from: float
    right_to: float
    split: float
    """Share with more clusters than features."""
    split_from: float
    split_to: float
    merged: float
    """Share with fewer."""
    merged_from: float
    merged_to: float
    ari: float | None
    """Median; None where at most one feature counts."""
    ari_from: float | None
    ari_to: float | None
    found: float
    """Median number of clusters."""
    found_least: int
    found_most: int
    unassigned: float
    """Mean share of the examples."""
    all_apart: float
    """Share of the neurons in which each example is a cluster."""


def figures_of(answers: Answers) -> list[Figures]:
    """For all groups of neurons by the neurons' embeddings; for the large ones by the other arms too."""
    members: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i, unit in enumerate(answers.units):
        for group in _groups(unit):
            members[group, kind_of(unit, bool(answers.is_separable[i]))].append(i)
    return [
        _figures(answers.units[0].source, group, kind, key, [scores[i] for i in rows])
        for (group, kind), rows in sorted(members.items(), key=_in_order)
        for key, scores in answers.scores.items()
        if key.arm == ARMS[0] or group in (COMMON, HELD_OUT, ALL)
    ]


def kind_of(unit: Unit, is_separable: bool) -> str:
    """What is there."""
    if unit.n_features < 2:
        return ONE
    return ONE_SEEN if unit.answer[1] < 2 else SEVERAL if is_separable else INSEPARABLE


def _groups(unit: Unit) -> Iterator[str]:
    yield unit.family
    if unit.source == "chimera":
        yield from (ALL, f"k = {unit.n_features}")
    elif unit.is_held_out:
        yield HELD_OUT
    elif unit.family not in SHARED:
        yield from (COMMON, f"K = {unit.n_features}", f"d = {len(unit.w)}", f"noise = {unit.noise:g}")


def _in_order(member: tuple[tuple[str, str], list[int]]) -> tuple[bool, str, float]:
    """What is large first, then families as they come, then by what has a number."""
    (group, _), _ = member
    words = group.split()
    what, number = (words[0], float(words[-1])) if words[0] in NUMBERED else ("", 0.0)
    return group not in (COMMON, HELD_OUT, ALL), what, number


def _figures(source: str, group: str, kind: str, key: Key, scores: list[Score]) -> Figures:
    columns = Score(*map(np.array, zip(*scores, strict=True)))  # pyright: ignore[reportArgumentType]
    n, shares = len(scores), []
    for hits in (columns.is_right, columns.is_split, columns.is_merged):
        shares += [float(np.mean(hits)), *intervals.of_share(int(np.sum(hits)), n)]
    ari = np.asarray(columns.ari)
    ari = ari[np.isfinite(ari)]
    median = (float(np.median(ari)), *intervals.of_median(ari)) if len(ari) else (None, None, None)
    found = np.asarray(columns.found)
    counts = float(np.median(found)), int(found.min()), int(found.max())
    more = float(np.mean(columns.unassigned)), float(np.mean(columns.is_apart))
    return Figures._make([source, group, kind, *key, n, *shares, *median, *counts, *more])
