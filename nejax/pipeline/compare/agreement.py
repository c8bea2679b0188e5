"""How far two clusterings of the same items agree, for all neurons of a layer at once."""

from typing import NamedTuple

import numpy as np


class Agreement(NamedTuple):
    """How far two clusterings agree on what both have, for each neuron."""

    n: np.ndarray
    """[n_neurons] items that both have."""
    same: np.ndarray
    """[n_neurons] whether the clusters are the same but for their names."""
    rand_index: np.ndarray
    """[n_neurons] adjusted for chance: 1 where they are the same, 0 expected of clusters of the same sizes drawn at
    random; NaN for fewer than two items."""


def agreement(neuron: np.ndarray, label_a: np.ndarray, label_b: np.ndarray, *, n_neurons: int) -> Agreement:
    """Compare two clusterings of every neuron at once.

    Adjusted Rand index: with the pairs of items that are together in both, `p`, in one, `p_a`, in the other, `p_b`, of
    all `P` pairs: `(p - p_a p_b / P) / ((p_a + p_b) / 2 - p_a p_b / P)`. Source: Hubert and Arabie 1985.

    Args:
        neuron: [n_items] which neuron's each item is.
        label_a: [n_items] its cluster in one clustering, from 0, or -1.
        label_b: [n_items] in the other.
        n_neurons: how many there are.
    """
    base = 2 + int(max(label_a.max(initial=0), label_b.max(initial=0)))

    def count(label: np.ndarray, n_labels: int) -> tuple[np.ndarray, np.ndarray]:
        cluster, size = np.unique(neuron.astype(np.int64) * n_labels + label, return_counts=True)
        owner = cluster // n_labels
        pairs = np.bincount(owner, weights=size * (size - 1) / 2, minlength=n_neurons)
        return np.bincount(owner, minlength=n_neurons), pairs

    n = np.bincount(neuron, minlength=n_neurons)
    k_a, p_a = count(label_a + 1, base)
    k_b, p_b = count(label_b + 1, base)
    k, p = count((label_a + 1) * base + label_b + 1, base * base)
    same = (k == k_a) & (k == k_b)
    chance = p_a * p_b / np.maximum(n * (n - 1) / 2, 1)
    spread = (p_a + p_b) / 2 - chance
    index = np.where(same, 1.0, (p - chance) / np.where(spread > 0, spread, 1))
    return Agreement(n, same, np.where(n < 2, np.nan, index))
