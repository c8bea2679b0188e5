"""The choice of neurons against a plain loop over tables made by hand."""

from typing import Any

import numpy as np

from nejax.atlas.atlas import Atlas
from nejax.atlas.clearest import clearest, rank_clearest
from nejax.atlas.neuron import Neuron


def ranked(sizes: list[list[int]], silhouettes: list[float], **rule: Any) -> list[int]:
    """Of neurons with features of these sizes."""
    neurons = {
        "n_examples": np.array([sum(of_neuron) for of_neuron in sizes]),
        "silhouette": np.array(silhouettes),
    }
    owner = np.repeat(np.arange(len(sizes)), [len(of_neuron) for of_neuron in sizes])
    features = {"neuron_id": owner, "n_examples": np.array([n for of_neuron in sizes for n in of_neuron])}
    return rank_clearest(neurons, features, **rule).tolist()


def test_only_neurons_with_several_large_features_qualify():
    sizes = [
        [6, 6, 6],  # the least that qualifies
        [6, 6, 5],  # one is too small
        [6, 6, 6, 4, 5],  # exactly two thirds are in large ones
        [6, 6, 6] + [1] * 10,  # less than two thirds
        [30],
        [],
        [20, 10, 8],
    ]
    silhouettes = [0.1, 0.9, 0.3, 0.9, 0.9, np.nan, 0.2]
    assert ranked(sizes, silhouettes) == [2, 6, 0]
    assert ranked(sizes, silhouettes, share=0.5) == [3, 2, 6, 0]


def test_of_an_atlas(atlas: Atlas):
    """Whatever is found qualifies, is in order, and nothing better was passed over."""
    rule = {"n_features": 2, "n_examples": 2, "share": 0.3}
    found = clearest(atlas, 1000, n_documents=2, by_layer=False, **rule)

    def qualifies(neuron: Neuron) -> bool:
        large = [f for f in neuron.features if f.n_examples >= 2 and len({e.document for e in f.examples}) >= 2]
        enough = sum(f.n_examples for f in large) >= 0.3 * neuron.n_examples
        return len(large) >= 2 and enough and not np.isnan(neuron.silhouette)

    expected = [
        n for layer in range(atlas.n_layers) for i in range(atlas.d_mlp) if qualifies(n := atlas.neuron(layer, i))
    ]
    expected.sort(key=lambda neuron: -neuron.silhouette)
    assert [(n.layer, n.index) for n in found] == [(n.layer, n.index) for n in expected] and len(found) > 5
    one_each = clearest(atlas, 1000, n_documents=2, **rule)
    layers = [neuron.layer for neuron in one_each]
    assert len(set(layers)) == len(layers)
    assert all(neuron.index == next(n.index for n in found if n.layer == neuron.layer) for neuron in one_each)
    assert [n.index for n in clearest(atlas, 2, n_documents=2, by_layer=False, **rule)] == [n.index for n in found[:2]]


def test_a_neuron_without_a_silhouette_is_none():
    assert ranked([[6, 6, 6]], [np.nan]) == []
