"""The stage `similar`: which features of other neurons read nearly the same."""

from collections.abc import Iterator

import numpy as np

from nejax.pipeline.passes.similar import Similar, similar_features
from nejax.pipeline.stages.features import FEATURES
from nejax.pipeline.stages.inputs import INPUTS, inputs_of_layer
from nejax.pipeline.stages.run import Run
from nejax.pipeline.stages.stage import Facts, Stage


def _similar(run: Run) -> tuple[Similar, Facts]:
    """A row for every feature. Those with fewer than `similar_examples` examples have no similar ones and are none.

    The input of every feature, float32 [n_features, d_model], is the one large thing held: that of its central example,
    or with `similar_by="mean"` the mean over its examples.
    """
    s, (inputs, neuron, n_examples) = run.settings.similar, _inputs_of_features(run)
    ids = np.flatnonzero(n_examples >= s.least_examples)
    with run.bar("similar", lambda: len(ids) ** 2, "pairs") as advance:
        found = similar_features(
            inputs[ids],
            neuron[ids],
            k=s.n,
            threshold=s.threshold,
            recall=s.recall,
            mesh=run.mesh,
            progress=advance,
        )
    feature = np.full((len(inputs), s.n), -1, np.int32)
    similarity = np.full((len(inputs), s.n), np.nan, np.float32)
    feature[ids] = np.where(found.feature >= 0, ids[found.feature], -1)
    similarity[ids] = found.similarity
    facts = {"features": len(ids), "features_with_similar": int((found.feature >= 0).any(axis=1).sum())}
    return Similar(feature, similarity), facts


def _inputs_of_features(run: Run) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What stands for every feature, float32 [n_features, d_model], its neuron, and how many examples it has."""
    of_all, layers = INPUTS.of(run), [(found.central, found.label) for found in FEATURES.of(run)]
    d_mlp, d_model = of_all.input_of.shape[1], of_all.reference.shape[2]
    features = [np.nonzero(central >= 0) for central, _ in layers]
    inputs, start = np.empty((sum(len(neuron) for neuron, _ in features), d_model), np.float32), 0
    n_examples = np.empty(len(inputs), np.int32)
    for layer, ((central, label), (neuron, feature)) in enumerate(zip(layers, features, strict=True)):
        of_layer, input_of = inputs_of_layer(run, layer), of_all.input_of[layer]
        stop = start + len(neuron)
        if run.settings.similar.by == "mean":
            rows = _rows_of_features(label, input_of, neuron, feature)
            for one, examples in enumerate(rows, start):
                inputs[one] = of_layer[examples].mean(axis=0, dtype=np.float64)
        else:
            inputs[start:stop] = of_layer[input_of[neuron, central[neuron, feature]]]
        n_examples[start:stop] = _sizes(label)[neuron, feature]
        start = stop
    return inputs, np.concatenate([layer * d_mlp + neuron for layer, (neuron, _) in enumerate(features)]), n_examples


def _sizes(label: np.ndarray) -> np.ndarray:
    """How many of each neuron's examples have each label. [n_neurons, n_examples] -> the same shape"""
    sizes = np.zeros(label.shape, np.int32)
    neuron, example = np.nonzero(label >= 0)
    np.add.at(sizes, (neuron, label[neuron, example]), 1)
    return sizes


def _rows_of_features(
    label: np.ndarray, input_of: np.ndarray, neuron: np.ndarray, feature: np.ndarray
) -> Iterator[np.ndarray]:
    """Which rows of its layer's inputs the examples of each feature have: one for each example, so some come twice."""
    order = np.argsort(label, axis=1, kind="stable")
    label, input_of = np.take_along_axis(label, order, axis=1), np.take_along_axis(input_of, order, axis=1)
    first = (label[neuron] < feature[:, None]).sum(axis=1)  # the labels of a neuron's examples are in order now
    stop = (label[neuron] <= feature[:, None]).sum(axis=1)
    return (input_of[n, i:j] for n, i, j in zip(neuron, first, stop, strict=True))


SIMILAR = Stage(
    name="similar",
    needs=(FEATURES,),
    is_wanted=lambda settings: settings.similar.n > 0,
    result=Similar,
    work=_similar,
)
