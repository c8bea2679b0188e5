"""The stage that finds similar features, in runs of a model that has near-copies of two of its neurons."""

import random
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from stage_stores import layers_of, store_of

from nejax.models.families.gpt2 import GPT2, GPT2Config
from nejax.models.formats.tokens import train_tokenizer
from nejax.models.formats.weights import save_weights
from nejax.pipeline.passes.similar import SAME
from nejax.pipeline.run.directory import Store
from nejax.pipeline.run.settings import Settings
from nejax.pipeline.stages.inputs import INPUTS, inputs_of_layer
from nejax.pipeline.stages.order import finish
from nejax.pipeline.stages.run import Run
from nejax.pipeline.stages.similar import SIMILAR

pytestmark = pytest.mark.slow

WORDS = ["the", "a", "cat", "dog", "house", "river", "sang", "ran", "red", "blue", "and", "of", "naïve", "東京"]
N_LAYERS, D_MODEL, D_MLP = 3, 64, 12
COPIES = [((0, 7), (1, 9)), ((0, 10), (0, 8))]
"""Pairs of (layer, neuron): one that fires often, and its near-copy, once in the layer after it and once in its own."""


def model_with_copies() -> GPT2:
    """Nothing is added to the residual stream between the MLPs of layers 0 and 1, so they read the same."""
    rng = np.random.default_rng(0)
    config = GPT2Config(vocab_size=300, n_positions=32, d_model=D_MODEL, n_layers=N_LAYERS, n_heads=2, d_mlp=D_MLP)
    graph, weights = nnx.split(GPT2(config, rngs=nnx.Rngs(0)))
    weights = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.4, leaf.shape), leaf.dtype), weights)
    model = nnx.merge(graph, weights)
    blocks: Any = model.blocks  # biases that a model may lack in general
    for layer, written in ((1, blocks.attention.output), (0, blocks.mlp_out)):
        for weights in (written.kernel, written.bias):
            weights[...] = weights[...].at[layer].set(0)
    for weights in (blocks.mlp_norm.scale, blocks.mlp_norm.bias):
        weights[...] = weights[...].at[1].set(weights[...][0])
    kernel, bias = np.array(blocks.mlp_in.kernel[...]), np.array(blocks.mlp_in.bias[...])
    for (layer, neuron), (layer_of_copy, copy) in COPIES:
        column = kernel[layer, :, neuron]
        kernel[layer_of_copy, :, copy] = column + 1e-3 * rng.normal(size=column.shape)
        bias[layer_of_copy, copy] = bias[layer, neuron]
    blocks.mlp_in.kernel[...], blocks.mlp_in.bias[...] = jnp.asarray(kernel), jnp.asarray(bias)
    return model


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> Settings:
    folder = tmp_path_factory.mktemp("sources")
    save_weights(
        model_with_copies(), folder / "model", train_tokenizer([" ".join(WORDS)], vocab_size=300, n_positions=32)
    )
    (folder / "corpus").mkdir()
    for i in range(40):
        text = " ".join(random.Random(i).choices(WORDS, k=90))
        (folder / "corpus" / f"{i}.txt").write_text(text, encoding="utf-8")
    return Settings.of(
        model=str(folder / "model"),
        corpus=str(folder / "corpus"),
        seq_len=24,
        keep=16,
        examples=10,
        similar=6,
        similar_threshold=0.3,
    )


@pytest.fixture(scope="module")
def features(settings, tmp_path_factory) -> Path:
    """A run that has its features, and no more."""
    path = tmp_path_factory.mktemp("features") / "run"
    finish(Run(path, settings.but(similar=0), quiet=True))
    return path


@pytest.fixture(scope="module")
def central(settings, features, tmp_path_factory) -> Run:
    return run_on(features, settings, tmp_path_factory.mktemp("central") / "run")


@pytest.fixture(scope="module")
def mean(settings, features, tmp_path_factory) -> Run:
    by_mean = settings.but(similar_by="mean")
    return run_on(features, by_mean, tmp_path_factory.mktemp("mean") / "run")


def run_on(features: Path, settings: Settings, path: Path) -> Run:
    """The rest of the run, with other settings for the last stages."""
    shutil.copytree(features, path)
    run = Run(path, settings, quiet=True)
    finish(run)
    return run


def inputs_of_features(run: Run, by: str) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """What every feature is compared by, in float64, and its layer and neuron, one feature after the other."""
    shared, inputs, neurons = store_of(run, INPUTS), [], []
    for layer, found in enumerate(layers_of(run)):
        x = np.asarray(inputs_of_layer(run, layer), np.float64)
        for neuron in range(D_MLP):
            for feature in range(max(found["n_clusters"][neuron], 0)):
                mine = [i for i, label in enumerate(found["label"][neuron]) if label == feature]
                if by == "central":
                    mine = [found["central"][neuron, feature]]
                inputs.append(sum(x[shared["input_of"][layer, neuron, i]] for i in mine) / len(mine))
                neurons.append((layer, neuron))
    return np.array(inputs), neurons


def neighbours(inputs: np.ndarray, neurons: list[tuple[int, int]], k: int, threshold: float) -> Store:
    """Of every feature, pair by pair."""
    feature, similarity = np.full((len(inputs), k), -1), np.full((len(inputs), k), np.nan)
    for f, x in enumerate(inputs):
        found = []
        for g, y in enumerate(inputs):
            cosine = x @ y / np.sqrt((x @ x) * (y @ y))
            if neurons[f] != neurons[g] and cosine > threshold:
                found.append((-1 if cosine > SAME else -cosine, g))
        for place, (minus, g) in enumerate(sorted(found)[:k]):
            feature[f, place], similarity[f, place] = g, -minus
    return {"feature": feature, "similarity": similarity}


@pytest.mark.parametrize("by", ["central", "mean"])
def test_pair_by_pair(by, request, settings):
    run: Run = request.getfixturevalue(by)
    inputs, neurons = inputs_of_features(run, by)
    found, expected = (
        store_of(run, SIMILAR),
        neighbours(inputs, neurons, settings.similar.n, settings.similar.threshold),
    )
    np.testing.assert_array_equal(found["feature"], expected["feature"])
    np.testing.assert_allclose(found["similarity"], expected["similarity"], rtol=2e-6)
    facts = run.directory.manifest["stages"]["similar"]
    assert facts["features"] == len(inputs) > 40
    assert facts["features_with_similar"] == (expected["feature"][:, 0] >= 0).sum() > 40


def test_features_of_one_example_have_the_same_input_either_way(central, mean):
    """And those of several have not."""
    sizes = []
    for found in layers_of(central):
        for labels, n in zip(found["label"], found["n_clusters"], strict=True):
            sizes += [(labels == feature).sum() for feature in range(max(n, 0))]
    same = (inputs_of_features(central, "central")[0] == inputs_of_features(mean, "mean")[0]).all(axis=1)
    assert same[np.array(sizes) == 1].all() and not same[np.array(sizes) > 2].any()
    assert 0 < same.sum() < len(same)
    assert not np.array_equal(
        store_of(central, SIMILAR)["similarity"], store_of(mean, SIMILAR)["similarity"], equal_nan=True
    )


def test_the_default_is_the_central_example(settings, central):
    assert (settings.similar.by, settings.similar.recall) == ("central", 1.0)
    assert central.directory.manifest["settings"]["similar_by"] == "central"


@pytest.mark.parametrize("by", ["central", "mean"])
@pytest.mark.parametrize("pair", COPIES)
def test_near_copies_find_each_other_first(pair, by, request):
    """Another neuron may stand before the copy only where it reads the very same input: then the lower id is first."""
    run: Run = request.getfixturevalue(by)
    neurons = inputs_of_features(run, by)[1]
    found = store_of(run, SIMILAR)
    for one, other in (pair, pair[::-1]):
        mine = [feature for feature, neuron in enumerate(neurons) if neuron == one]
        assert mine
        nearest = [found["feature"][f][found["similarity"][f] == found["similarity"][f, 0]] for f in mine]
        assert all(other in {neurons[feature] for feature in of_one} for of_one in nearest)
        assert 2 * sum(neurons[of_one[0]] == other for of_one in nearest) > len(mine)
        assert (found["similarity"][mine, 0] > 0.999).all()


@pytest.mark.parametrize("by", ["central", "mean"])
def test_no_feature_is_similar_to_one_of_its_own_neuron(by, request):
    run: Run = request.getfixturevalue(by)
    neurons = inputs_of_features(run, by)[1]
    assert len(set(neurons)) < len(neurons)
    for feature, listed in enumerate(store_of(run, SIMILAR)["feature"]):
        assert neurons[feature] not in {neurons[other] for other in listed if other >= 0}


def test_a_recall_below_one_is_what_the_search_is_asked_for(settings, features, tmp_path, monkeypatch):
    asked = {}

    def similar_features(inputs: np.ndarray, neuron: np.ndarray, **options: object) -> None:
        asked.update(options)
        raise KeyboardInterrupt

    monkeypatch.setattr("nejax.pipeline.stages.similar.similar_features", similar_features)
    with pytest.raises(KeyboardInterrupt):
        run_on(features, settings.but(similar_recall=0.9), tmp_path / "run")
    assert asked["recall"] == 0.9


@pytest.mark.parametrize("least", [2, 1000])
def test_small_features_are_left_out(least: int, features, settings, tmp_path: Path):
    """What is found is what the large features alone have, under their ids; small ones have and are none."""
    run = run_on(features, settings.but(similar_examples=least), tmp_path / "run")
    inputs, neurons = inputs_of_features(run, "central")
    sizes = [
        int((found["label"][neuron] == feature).sum())
        for found in layers_of(run)
        for neuron in range(D_MLP)
        for feature in range(max(found["n_clusters"][neuron], 0))
    ]
    large = np.flatnonzero(np.array(sizes) >= least)
    assert len(large) < len(sizes) and (len(large) > 20 or least == 1000)
    found = run.directory.load("similar")
    small = np.setdiff1d(np.arange(len(sizes)), large)
    assert (found["feature"][small] == -1).all() and np.isnan(found["similarity"][small]).all()
    expected = neighbours(inputs[large], [neurons[i] for i in large], settings.similar.n, settings.similar.threshold)
    there = expected["feature"] >= 0
    np.testing.assert_array_equal(found["feature"][large] >= 0, there)
    np.testing.assert_array_equal(found["feature"][large][there], large[expected["feature"][there]])
    np.testing.assert_allclose(found["similarity"][large][there], expected["similarity"][there], rtol=1e-5)
    assert run.directory.manifest["stages"]["similar"]["features"] == len(large)
