"""What a model would find in a corpus, drawn at random: each function the same at every call.

A neuron answers to a few kinds of token. The inputs of a layer lie around a centre for each kind, so that the neurons'
embeddings fall into clusters.
"""

import numpy as np

from nejax.pipeline.corpus.windows import Sequences
from nejax.pipeline.passes.gather import WINDOW_AFTER, WINDOW_BEFORE
from nejax.pipeline.passes.histogram import N_BINS
from nejax.pipeline.passes.select import Chosen

N_KINDS, N_PLACES = 1024, 16
"""Kinds of token that neurons answer to, and places in the corpus of each kind, at most."""

N_OWN = 8
"""Kinds that one neuron answers to."""

SPREAD = 1.0
"""Standard deviation of the inputs of one kind around their centre; that of the centres is 1."""


def places_of_kinds(tokens: np.ndarray, can_peak: np.ndarray) -> np.ndarray:
    """[n_kinds, N_PLACES, 2] (sequence, position): places with the same token, of frequent tokens; -1 for no more."""
    found = _random("places").permutation(np.argwhere(can_peak).astype(np.int32))
    token = tokens[tuple(found.T)]
    kinds, count = np.unique(token, return_counts=True)
    kinds = kinds[np.argsort(-count, kind="stable")][:N_KINDS]
    places = np.full((len(kinds), N_PLACES, 2), -1, np.int32)
    for own, kind in zip(places, kinds, strict=True):
        some = found[np.flatnonzero(token == kind)[:N_PLACES]]
        own[: len(some)] = some
    return places


def inputs_of_kinds(layer: int, n_kinds: int, d_model: int) -> np.ndarray:
    """[n_kinds * N_PLACES, d_model] float32: the layer's inputs at these places."""
    rng = _random("inputs", layer)
    centres = rng.standard_normal((n_kinds, 1, d_model), np.float32)
    inputs = centres + SPREAD * rng.standard_normal((n_kinds, N_PLACES, d_model), np.float32)
    return inputs.reshape(-1, d_model)


def places_of_neurons(layer: int, places: np.ndarray, d_mlp: int, n_examples: int) -> np.ndarray:
    """[d_mlp, n_examples] int32: which of the places excite each neuron; -1 for no more."""
    rng, n_kinds = _random("examples", layer), len(places)
    n_own = min(n_kinds, max(N_OWN, 2 * -(-n_examples // N_PLACES)))
    kinds = np.argpartition(rng.random((d_mlp, n_kinds), np.float32), n_own - 1, axis=1)[:, :n_own]
    rows = np.where(places[kinds][..., 0] >= 0, kinds[..., None] * N_PLACES + np.arange(N_PLACES), -1)
    # some kinds are more frequent than others; what is not there comes last
    wanted = 3 * rng.standard_normal((d_mlp, n_own, 1), np.float32) + rng.gumbel(size=rows.shape)
    chosen = np.take_along_axis(rows.reshape(d_mlp, -1), _order(rows, wanted)[:, :n_examples], axis=1)
    chosen = np.take_along_axis(chosen, _order(chosen, rng.random(chosen.shape, np.float32)), axis=1)
    return np.pad(chosen, ((0, 0), (0, n_examples - chosen.shape[1])), constant_values=-1).astype(np.int32)


def _order(rows: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    return np.argsort(-np.where(rows >= 0, wanted, -np.inf).reshape(len(rows), -1), axis=1)


def examples_at(places: np.ndarray, rows: np.ndarray) -> Chosen:
    """The examples of all neurons.

    Args:
        places: of `places_of_kinds`.
        rows: [n_layers, d_mlp, n_examples], which of them.
    """
    rng, there = _random("activations"), rows >= 0
    highest = rng.gamma(8, 0.5, (*rows.shape[:2], 1)).astype(np.float32)
    share = -np.sort(-rng.uniform(0.4, 1, rows.shape).astype(np.float32))
    sequence, position = np.moveaxis(places.reshape(-1, 2)[rows], -1, 0)
    return Chosen(np.where(there, sequence, -1), np.where(there, position, 0), np.where(there, highest * share, np.nan))


def windows_around(chosen: Chosen, sequences: Sequences) -> np.ndarray:
    """[n_layers, d_mlp, n_examples, window] float16 activations: mostly nothing, here and there something."""
    windows = np.empty((*chosen.sequence.shape, WINDOW_BEFORE + 1 + WINDOW_AFTER), np.float16)
    for layer in range(len(windows)):
        noise = _random("windows", layer).standard_normal(windows[layer].shape, np.float32)
        activation = chosen.activation[layer][..., None]
        around = np.maximum(noise - 1.5, 0.05 * noise) * activation / 4
        around[..., WINDOW_BEFORE] = activation[..., 0]
        at = chosen.position[layer][..., None] + np.arange(-WINDOW_BEFORE, WINDOW_AFTER + 1)
        outside = (at < 0) | (at >= sequences.length[chosen.sequence[layer]][..., None])
        windows[layer] = np.where(outside, np.nan, around)
    return windows


def histograms(n_layers: int, d_mlp: int, n_tokens: int) -> np.ndarray:
    """[n_layers, d_mlp, N_BINS] uint32: most of the tokens are in some of the lowest bins."""
    width = _random("histogram").uniform(1, 6, (n_layers, d_mlp, 1))
    share = np.exp(-np.abs(np.arange(N_BINS) - 4) / width)
    counts = np.floor(n_tokens * share / share.sum(axis=-1, keepdims=True)).astype(np.uint32)
    counts[..., 4] += (n_tokens - counts.sum(axis=-1)).astype(np.uint32)
    return counts


def similar_features(n_features: int, k: int, most_of_neuron: int) -> dict[str, np.ndarray]:
    """Features of other neurons, [n_features, k], and similarities: of some features many, of some few.

    Args:
        n_features: of all neurons; those of one neuron follow each other.
        k: at most so many each.
        most_of_neuron: most features of one neuron.
    """
    rng = _random("similar")
    offset = rng.integers(most_of_neuron, max(n_features - most_of_neuron, most_of_neuron + 1), (n_features, k))
    feature = ((np.arange(n_features)[:, None] + offset) % n_features).astype(np.int32)
    similarity = -np.sort(-rng.uniform(0.8, 1, (n_features, k)).astype(np.float32))
    there = (np.arange(k) < rng.integers(0, k + 1, (n_features, 1))) & (n_features > 2 * most_of_neuron)
    return {"feature": np.where(there, feature, -1), "similarity": np.where(there, similarity, np.nan)}


def _random(what: str, layer: int = 0) -> np.random.Generator:
    return np.random.default_rng([*what.encode(), layer])
