"""Neurons whose features clearly differ, selected by measures alone."""

from collections.abc import Mapping

import numpy as np

from nejax.atlas.atlas import Atlas
from nejax.atlas.entries import Feature
from nejax.atlas.neuron import Neuron


def clearest(
    atlas: Atlas,
    n: int,
    *,
    n_features: int = 3,
    n_examples: int = 6,
    n_documents: int = 3,
    share: float = 2 / 3,
    by_layer: bool = True,
) -> list[Neuron]:
    """The neurons of an atlas with several large features that stand furthest apart, see `rank_clearest`.

    Args:
        atlas: an open atlas.
        n: how many, at most.
        n_features: large features a neuron must have.
        n_examples: examples that make a feature large.
        n_documents: a feature is large only if its examples come from so many documents: within one document it may be
            only a name.
        share: of the neuron's examples, that must be in large features.
        by_layer: no more than one of a layer.

    Returns:
        Neurons, best first; of an atlas with two sides, sides of neurons.
    """
    found: list[Neuron] = []
    tables = atlas.neurons_table(), atlas.features_table()
    for neuron_id in rank_clearest(*tables, n_features=n_features, n_examples=n_examples, share=share):
        layer, index = divmod(int(neuron_id), atlas.d_mlp)
        if len(found) == n:
            break
        if by_layer and any(layer == other.layer for other in found):
            continue
        neuron = atlas.neuron(layer, index)
        large = large_features(neuron, n_examples, n_documents)
        held = sum(feature.n_examples for feature in large)
        if len(large) >= n_features and held >= share * neuron.n_examples:
            found.append(neuron)
    return found


def large_features(neuron: Neuron, n_examples: int, n_documents: int) -> list[Feature]:
    """The features of a neuron with at least so many examples, from so many documents."""
    return [
        feature
        for feature in neuron.features
        if feature.n_examples >= n_examples and len({example.document for example in feature.examples}) >= n_documents
    ]


def rank_clearest(
    neurons: Mapping[str, np.ndarray],
    features: Mapping[str, np.ndarray],
    *,
    n_features: int = 3,
    n_examples: int = 6,
    share: float = 2 / 3,
) -> np.ndarray:
    """The neurons with several large features, those whose features stand furthest apart first.

    A neuron qualifies if at least `n_features` of its features have at least `n_examples` examples each, and these
    features hold at least a `share` of all its examples. Of those, the ones with the highest silhouette come first:
    the mean over the examples of how much nearer each is to its own feature than to the nearest other (Rousseeuw 1987).

    Args:
        neurons: the columns `n_examples` and `silhouette` of an atlas's table of neurons.
        features: the columns `neuron_id` and `n_examples` of its table of features.
        n_features: large features a neuron must have.
        n_examples: examples that make a feature large.
        share: of the neuron's examples, that must be in large features.

    Returns:
        Rows of the table of neurons.
    """
    large = features["n_examples"] >= n_examples
    owner, size = features["neuron_id"][large], features["n_examples"][large]
    n_large = np.bincount(owner, minlength=len(neurons["n_examples"]))
    held = np.bincount(owner, weights=size, minlength=len(neurons["n_examples"]))
    qualifies = (n_large >= n_features) & (held >= share * neurons["n_examples"]) & ~np.isnan(neurons["silhouette"])
    order = np.flatnonzero(qualifies)
    return order[np.argsort(-neurons["silhouette"][order], kind="stable")]
