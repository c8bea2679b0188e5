"""Neurons whose features are plainly different things, chosen by measures alone."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from nejax.atlas.atlas import Atlas
from nejax.atlas.neuron import Neuron


def clearest(atlas: Atlas, n: int, **rule: Any) -> list[Neuron]:
    """The neurons of an atlas whose features stand furthest apart.

    Args:
        atlas: an open atlas.
        n: how many, at most.
        rule: see `rank_clearest`.

    Returns:
        Neurons, best first; of an atlas with two sides, sides of neurons.
    """
    order = rank_clearest(atlas.neurons_table(), atlas.features_table(), **rule)
    return [atlas.neuron(*divmod(int(neuron), atlas.d_mlp)) for neuron in order[:n]]


def rank_clearest(
    neurons: Mapping[str, np.ndarray],
    features: Mapping[str, np.ndarray],
    *,
    n_features: int = 3,
    n_examples: int = 6,
    share: float = 2 / 3,
    by_layer: bool = True,
) -> np.ndarray:
    """The neurons with several large features, those whose features stand furthest apart first.

    A neuron qualifies if at least `n_features` of its features have at least `n_examples` examples each, and these
    features hold at least a `share` of all its examples. Of those, the ones with the highest silhouette come first:
    the mean over the examples of how much nearer each is to its own feature than to the nearest other (Rousseeuw 1987).

    Args:
        neurons: the columns `n_examples`, `silhouette` and `layer` of an atlas's table of neurons.
        features: the columns `neuron_id` and `n_examples` of its table of features.
        n_features: large features a neuron must have.
        n_examples: examples that make a feature large.
        share: of the neuron's examples, that must be in large features.
        by_layer: no more than one of a layer.

    Returns:
        Rows of the table of neurons.
    """
    large = features["n_examples"] >= n_examples
    owner, size = features["neuron_id"][large], features["n_examples"][large]
    n_large = np.bincount(owner, minlength=len(neurons["layer"]))
    held = np.bincount(owner, weights=size, minlength=len(neurons["layer"]))
    qualifies = (n_large >= n_features) & (held >= share * neurons["n_examples"]) & ~np.isnan(neurons["silhouette"])
    order = np.flatnonzero(qualifies)
    order = order[np.argsort(-neurons["silhouette"][order], kind="stable")]
    if by_layer:
        _, first = np.unique(neurons["layer"][order], return_index=True)
        order = order[np.sort(first)]
    return order
