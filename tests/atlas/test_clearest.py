"""The choice of neurons against a plain loop over tables made by hand."""

from typing import Any

import numpy as np

from nejax.atlas.clearest import rank_clearest


def ranked(sizes: list[list[int]], silhouettes: list[float], d_mlp: int, **rule: Any) -> list[int]:
    """Of neurons with features of these sizes, in layers of `d_mlp`."""
    neurons = {
        "n_examples": np.array([sum(of_neuron) for of_neuron in sizes]),
        "silhouette": np.array(silhouettes),
        "layer": np.arange(len(sizes)) // d_mlp,
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
    of_all = sizes, [0.1, 0.9, 0.3, 0.9, 0.9, np.nan, 0.2], 7
    assert ranked(*of_all, by_layer=False) == [2, 6, 0]
    assert ranked(*of_all, share=0.5, by_layer=False) == [3, 2, 6, 0]
    assert ranked(*of_all) == [2]


def test_one_of_a_layer():
    silhouettes = np.random.default_rng(0).random(30).tolist()
    best = [max(range(start, start + 6), key=silhouettes.__getitem__) for start in range(0, 30, 6)]
    assert ranked([[6, 6, 6]] * 30, silhouettes, 6) == sorted(best, key=lambda i: -silhouettes[i])
    by_all = ranked([[6, 6, 6]] * 30, silhouettes, 6, by_layer=False)
    assert by_all == sorted(range(30), key=lambda i: -silhouettes[i])


def test_a_neuron_without_a_silhouette_is_none():
    assert ranked([[6, 6, 6]], [np.nan], 1) == []
