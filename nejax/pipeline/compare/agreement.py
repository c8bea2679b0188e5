"""How far two clusterings of the same items agree, for all neurons of a layer at once."""

from typing import NamedTuple

import jax
import numpy as np

from nejax.neuron.clustering.quality import adjusted_rand_index


class Agreement(NamedTuple):
    """How far two clusterings agree on what both have, for each neuron."""

    n: np.ndarray
    """[n_neurons] items that both have."""
    same: np.ndarray
    """[n_neurons] whether the clusters are the same but for their names."""
    rand_index: np.ndarray
    """[n_neurons] adjusted for chance, see `adjusted_rand_index`; NaN for fewer than two items."""


def agreement(neuron: np.ndarray, label_a: np.ndarray, label_b: np.ndarray, *, n_neurons: int) -> Agreement:
    """Compare two clusterings of every neuron at once.

    Args:
        neuron: [n_items] which neuron's each item is.
        label_a: [n_items] its cluster in one clustering, from 0, or -1 for one more.
        label_b: [n_items] in the other.
        n_neurons: how many there are.
    """
    n = np.bincount(neuron, minlength=n_neurons)
    order = np.argsort(neuron, kind="stable")
    place = np.arange(len(neuron)) - (n.cumsum() - n)[neuron[order]]
    # A power of two: few widths are compiled.
    width = 1 << (int(n.max(initial=1)) - 1).bit_length()
    a, b = np.full((2, n_neurons, width), -1, np.int32)
    a[neuron[order], place], b[neuron[order], place] = label_a[order] + 1, label_b[order] + 1
    index = np.asarray(_of_neurons(a, b))
    return Agreement(n, np.isnan(index) | (index == 1), index)


_of_neurons = jax.jit(jax.vmap(adjusted_rand_index))
