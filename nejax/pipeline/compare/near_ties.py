"""Whether a difference between two runs' results for one neuron is a near-tie: the values that decide it are close.

Each function takes what two runs stored of the same neuron. The runs round differently, so whatever depends on which of
two values is greater may differ, if they are within a tolerance of each other; nothing else may.
"""

import functools
import operator
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nejax.pipeline.passes.gather import WINDOW_BEFORE


class Kept(NamedTuple):
    """What one run kept of one neuron: at most one example of each sequence, strongest first."""

    activation: dict[int, float]
    """By sequence."""
    position: dict[int, int]
    """Of the peak, by sequence."""
    window: dict[int, np.ndarray]
    """Activations around the peak, as in `Revisited`, by sequence, of those that were chosen."""
    threshold: float
    """An example counts if its activation is above it."""
    weakest: float
    """The weakest example's activation if no more could be kept, otherwise -inf."""

    def counting(self) -> list[int]:
        """The sequences of the examples that count, strongest first."""
        return [sequence for sequence, activation in self.activation.items() if activation > self.threshold]


class Dendrogram(NamedTuple):
    """One run's dendrogram of one neuron, and its cut."""

    merges: np.ndarray
    """[n - 1, 4] as in `Linkage`."""
    n_merges: int
    height: float
    """Where it was cut."""
    rank: np.ndarray
    """[n] a number for each leaf, the same in both runs for the same example."""
    label: np.ndarray
    """[n] the feature of each leaf; -1 where there is no example."""

    def features(self) -> set[int]:
        """The leaves of every feature: a bit for each rank."""
        found: dict[int, int] = {}
        for label, rank in zip(self.label.tolist(), self.rank.tolist(), strict=True):
            found[label] = found.get(label, 0) | 1 << rank
        return {leaves for label, leaves in found.items() if label >= 0}

    def clusters(self) -> dict[int, float]:
        """The height of every merge, by the leaves of the cluster it makes."""
        made = [1 << rank for rank in self.rank.tolist()]
        heights = {}
        for one, other, height, _ in self.merges[: self.n_merges].tolist():
            made.append(made[int(one)] | made[int(other)])
            heights[made[-1]] = height
        return heights


def kept_differences(a: Kept, b: Kept, slack: float) -> list[bool]:
    """Every difference between the examples that count in two runs, and whether it is a near-tie.

    Args:
        a: of one run.
        b: of the other.
        slack: how far apart the activations of a near-tie may be.

    Returns:
        An entry for each example that counts in one run only, or has its peak elsewhere in its sequence, and for each
        pair in another order.
    """
    order_a, order_b = a.counting(), b.counting()
    both = set(order_a) & set(order_b)
    alone = [(a, b, s) for s in order_a if s not in both] + [(b, a, s) for s in order_b if s not in both]
    found = [_is_at_the_edge(*case, slack) for case in alone]
    found += [_peaks_are_level(a, b, s, slack) for s in order_a if s in both and a.position[s] != b.position[s]]
    for s, t in swapped_pairs(order_a, order_b):
        found.append(
            abs(a.activation[s] - a.activation[t]) <= slack and abs(b.activation[s] - b.activation[t]) <= slack
        )
    return found


def swapped_pairs(a: Sequence[int], b: Sequence[int]) -> list[tuple[int, int]]:
    """The pairs that both lists have, each in another order than the other."""
    place = {item: i for i, item in enumerate(b)}
    common = [item for item in a if item in place]
    places = np.array([place[item] for item in common], int)
    first, second = np.nonzero(np.triu(places[:, None] > places[None, :], 1))
    return [(common[i], common[j]) for i, j in zip(first.tolist(), second.tolist(), strict=True)]


def is_near_split(a: Dendrogram, b: Dendrogram, tolerance: float) -> bool:
    """Whether two different divisions of the same examples by average linkage come from a near-tie.

    Wherever the features differ, there must be a reason: either a merge is as high as the cut; or two pairs of clusters
        were equally near to merge, and each run merged another one. Up to there both had made the same merges: the
        lowest cluster that only one run has, and the lowest that only the other has, were made at
    the same height, below the cut. (A dendrogram does not hold how near the other pair was. That the runs' distances
    agree otherwise is shown by their mean and maximum.)

    Args:
        a: of one run.
        b: of the other.
        tolerance: how far apart the heights of a near-tie may be.
    """
    features_a, features_b = a.features(), b.features()
    regions: list[int] = []
    for feature in features_a | features_b:
        touched = [region for region in regions if region & feature]
        regions = [region for region in regions if not region & feature]
        regions.append(functools.reduce(operator.or_, touched, feature))
    clusters_a, clusters_b = a.clusters(), b.clusters()
    for region in regions:
        if region in features_a and region in features_b:
            continue
        within_a, within_b = ({c: h for c, h in found.items() if not c & ~region} for found in (clusters_a, clusters_b))
        if not _is_near_region(within_a, within_b, a.height, b.height, tolerance):
            return False
    return True


def _is_near_region(a: dict[int, float], b: dict[int, float], cut_a: float, cut_b: float, tolerance: float) -> bool:
    """Whether a near-tie is among two runs' clusters of the same leaves, given with the heights of their merges."""
    if any(abs(h - cut) <= tolerance for clusters, cut in ((a, cut_a), (b, cut_b)) for h in clusters.values()):
        return True
    # A cluster that both runs come to is as far from all others in both, however it was made.
    met = [cluster for cluster, h in a.items() if h <= cut_a and b.get(cluster, np.inf) <= cut_b]
    fork_a, fork_b = (
        min((h for c, h in one.items() if c not in other and not any(c & m == c for m in met)), default=np.inf)
        for one, other in ((a, b), (b, a))
    )
    return fork_a <= cut_a and fork_b <= cut_b and abs(fork_a - fork_b) <= tolerance


def _is_at_the_edge(run: Kept, other: Kept, sequence: int, slack: float) -> bool:
    """Whether an example that counts in `run` only just does so, and in the other run only just does not.

    Of one that the other run has not kept, only an upper bound is known: the weakest there.
    """
    activation = run.activation[sequence]
    if sequence not in other.activation:
        return abs(activation - other.weakest) <= slack
    missed = abs(other.activation[sequence] - other.threshold)
    return abs(activation - run.threshold) <= slack and missed <= slack


def _peaks_are_level(a: Kept, b: Kept, sequence: int, slack: float) -> bool:
    """Whether a sequence's activation is nearly as high at the place where the other run has its peak.

    Both peaks must be equally high; and where a run stored its activation at the other's peak, that must be, too.
    """
    if abs(a.activation[sequence] - b.activation[sequence]) > slack:
        return False
    for run, other in ((a, b), (b, a)):
        at = other.position[sequence] - run.position[sequence] + WINDOW_BEFORE
        window = run.window.get(sequence)
        if window is not None and 0 <= at < len(window):
            peak = run.activation[sequence]
            rounding = abs(peak) * float(np.finfo(window.dtype).eps) + float(np.finfo(window.dtype).tiny)
            if not abs(float(window[at]) - peak) <= slack + rounding:
                return False
    return True
