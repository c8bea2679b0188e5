"""A layer's rows of the atlas's tables, as columns."""

import json
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from nejax.neuron.polysemanticity import DISTANCES
from nejax.neuron.streaming.moments import shape_of
from nejax.pipeline.passes.census import Census
from nejax.pipeline.passes.collect import Collection
from nejax.pipeline.stages.features import Features
from nejax.pipeline.stages.inputs import Inputs

N_PEAK_TOKENS = 5
"""How many of its most frequent peak tokens a feature is listed with."""

Columns = dict[str, np.ndarray]
"""A part of a table: one array for each column, named as in `nejax.atlas.schema.SCHEMA`."""


class LayerTables(NamedTuple):
    """A layer's rows of three tables."""

    neurons: Columns
    features: Columns
    examples: Columns


def layer_tables(
    layer: int,
    found: Features,
    inputs: Inputs,
    collection: Collection,
    peaks: np.ndarray,
    texts: Sequence[str],
    first_feature: int,
    first_example: int,
    census: Census | None,
) -> LayerTables:
    """A layer's rows.

    Args:
        layer: its index.
        found: the layer's features.
        inputs: all layers' examples.
        collection: what is known of all layers' neurons.
        peaks: [n_examples] the number of the text at the peak of each of the layer's examples.
        texts: by number.
        first_feature: id of the layer's first feature.
        first_example: id of the layer's first example.
        census: if there was one.
    """
    there, measures = inputs.chosen.sequence[layer] >= 0, found.measures
    n_features, n_examples = measures.n_clusters, measures.n_examples
    none = np.full(len(there), np.nan)
    neurons = {
        "id": layer * len(there) + np.arange(len(there)),
        "layer": np.full(len(there), layer),
        "neuron": np.arange(len(there)),
        "n_examples": n_examples,
        "n_features": n_features,
        "repeats_left_out": inputs.repeats_left_out[layer],
        **_activity(layer, collection),
        "lowest_activation": inputs.lowest_activation[layer],
        **{name: getattr(measures, name) for name in DISTANCES},
        **{name: getattr(found, name) for name in ("silhouette", "coordinates_share", "height", "n_merges")},
        "corpus_mean_distance": none if census is None else census.corpus_mean_distance[layer],
        "coverage": none if census is None else census.neuron_coverage[layer],
        "first_example": first_example + np.cumsum(n_examples) - n_examples,
        "first_feature": first_feature + np.cumsum(n_features) - n_features,
    }
    neuron, rank = np.nonzero(there)
    examples = {
        "id": first_example + np.arange(len(neuron)),
        "neuron_id": neurons["id"][neuron],
        "feature_id": neurons["first_feature"][neuron] + found.label[there],
        "rank": rank,
        **{name: field[layer][there] for name, field in inputs.chosen._asdict().items()},
        "cohesion": found.cohesion[there],
    }
    features = _features(found, neurons, examples, peaks, texts, first_feature)
    features |= {"min_similarity": found.min_similarity} | _of_census(census, features["id"])
    return LayerTables(neurons, features, examples)


def _of_census(census: Census | None, ids: np.ndarray) -> Columns:
    """What a census says of features."""
    if census is None:
        return {name: np.full(len(ids), np.nan) for name in ("frequency", "coverage")}
    return {"frequency": census.frequency[ids], "coverage": census.coverage[ids]}


def _activity(layer: int, collection: Collection) -> Columns:
    """What a layer's neurons do over the whole corpus."""
    of_layer = jax.tree.map(lambda leaf: np.asarray(leaf)[layer], collection)
    shape = jax.vmap(shape_of)(of_layer.moments)
    maximum, n_tokens = of_layer.examples.activation[:, 0], np.float64(of_layer.moments.count)
    return {
        "max_activation": np.where(np.isfinite(maximum), maximum, np.nan),
        "firing_rate": of_layer.n_fired / np.where(n_tokens > 0, n_tokens, np.nan),
        **{name: np.asarray(column) for name, column in shape._asdict().items()},
    }


def _features(
    found: Features, neurons: Columns, examples: Columns, peaks: np.ndarray, texts: Sequence[str], first_feature: int
) -> Columns:
    """A layer's rows of the table of features."""
    neuron, feature = np.nonzero(found.central >= 0)
    n = len(neuron)
    member = examples["feature_id"] - first_feature
    size = np.bincount(member, minlength=n)
    strongest = np.full(n, -np.inf)
    np.maximum.at(strongest, member, examples["activation"])
    return {
        "id": first_feature + np.arange(n),
        "neuron_id": neurons["id"][neuron],
        "feature": feature,
        "n_examples": size,
        "central_example": neurons["first_example"][neuron] + found.central[neuron, feature],
        "cohesion": np.bincount(member, examples["cohesion"], n) / size,
        "max_activation": strongest,
        "peak_tokens": _most_frequent(member, peaks, texts, n),
    }


def _most_frequent(member: np.ndarray, peak: np.ndarray, texts: Sequence[str], n_features: int) -> np.ndarray:
    """Each feature's most frequent peak tokens as JSON, ties in favour of the stronger example.

    Args:
        member: [n_examples] the feature of each example, counted from 0.
        peak: [n_examples] number of the text at its peak.
        texts: by number.
        n_features: how many features there are.
    """
    _, first, count = np.unique(member * len(texts) + peak, return_index=True, return_counts=True)
    order = np.lexsort((first, -count, member[first]))
    first, count = first[order], count[order]
    listed: list[list[tuple[str, int]]] = [[] for _ in range(n_features)]
    for feature, text, times in zip(member[first].tolist(), peak[first].tolist(), count.tolist(), strict=True):
        if len(listed[feature]) < N_PEAK_TOKENS:
            listed[feature].append((texts[text], times))
    return np.array([json.dumps(pairs, ensure_ascii=False) for pairs in listed], object)
