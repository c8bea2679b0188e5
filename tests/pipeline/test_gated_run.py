"""A whole run over a model with gated neurons: each side's examples are those of a plain search through all tokens."""

import random
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from stage_stores import layers_of, store_of

from nejax.models.families.llama import Llama, LlamaConfig
from nejax.models.formats.tokens import train_tokenizer
from nejax.models.formats.weights import save_weights
from nejax.neuron.embeddings import embedding_distances
from nejax.pipeline.run.settings import Settings
from nejax.pipeline.stages.collect import COLLECT
from nejax.pipeline.stages.inputs import INPUTS, inputs_of_layer
from nejax.pipeline.stages.order import finish
from nejax.pipeline.stages.run import Run
from nejax.pipeline.stages.tokens import TOKENS

pytestmark = pytest.mark.slow

D_MLP, SEQ_LEN = 20, 16
CONFIG = LlamaConfig(300, SEQ_LEN, 16, 2, 4, 2, 4, D_MLP, tied_head=True)
WORDS = ["the", "a", "cat", "dog", "house", "river", "sang", "ran", "red", "blue", "and", "of"]
ALL_STAGES = {"importance": True, "importance_examples": 1, "importance_window": 3, "census": True, "similar": 2}


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> Settings:
    """A random model with a dead neuron: without up weights its activation is 0 everywhere."""
    folder = tmp_path_factory.mktemp("sources")
    graph, shapes = nnx.split(nnx.eval_shape(lambda: Llama(CONFIG, rngs=nnx.Rngs(0))))
    rng = np.random.default_rng(3)
    model = nnx.merge(graph, jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.4, x.shape), x.dtype), shapes))
    model.blocks.mlp_up.kernel[...] = model.up_weights().at[1, :, 5].set(0.0)
    save_weights(model, folder / "model", train_tokenizer([" ".join(WORDS)], vocab_size=300, n_positions=SEQ_LEN))
    text = "\n\n".join(" ".join(random.Random(i).choices(WORDS, k=90)) for i in range(6))
    (folder / "text.txt").write_text(text)
    few = {"seq_len": SEQ_LEN, "keep": 8, "examples": 6, "min_fraction": 0.2, "max_repeats": 1}
    return Settings.of(model=str(folder / "model"), corpus=str(folder / "text.txt"), **few, **ALL_STAGES)


def finished(folder: Path, settings: Settings, **changed: Any) -> Run:
    run = Run(folder, settings.but(**changed), quiet=True, batch_size=4)
    finish(run)
    return run


@pytest.fixture(scope="module")
def run(settings: Settings, tmp_path_factory) -> Run:
    return finished(tmp_path_factory.mktemp("both") / "run", settings)


@partial(jax.jit)
def activations(model: Llama, tokens: jax.Array) -> jax.Array:
    return model(tokens, reader=lambda view: view.activation)[1]


def test_every_side_has_the_strongest_sequences_of_its_sign(run: Run):
    found, shards = COLLECT.of(run), TOKENS.of(run)
    sequences = shards.take(np.arange(shards.n_sequences))
    values = np.asarray(activations(run.loaded.model.model, jnp.asarray(sequences.tokens)))
    can_peak = run.peak_rule.allowed_in(sequences)
    assert found.examples.activation.shape == (2, 2 * D_MLP, 8)
    for unit in range(2 * D_MLP):
        sign = 1 if unit < D_MLP else -1
        of_unit = np.where(can_peak, sign * values[:, :, :, unit % D_MLP], -np.inf)
        strongest = -np.sort(-of_unit.max(axis=2), axis=1)[:, :8]
        np.testing.assert_allclose(found.examples.activation[:, unit], strongest, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(found.n_fired[:, unit], (of_unit > 0).sum(axis=(1, 2)))
    signed = found.moments.mean.reshape(2, 2, D_MLP)
    np.testing.assert_allclose(signed[:, 0], -signed[:, 1], rtol=1e-4, atol=1e-6)


def test_the_run_says_that_there_are_two_sides(run: Run):
    assert run.directory.manifest["model"]["sides"] == 2
    dead = store_of(run, INPUTS)["sequence"][1, [5, 5 + D_MLP]]
    assert (dead == -1).all()


def test_what_was_left_out_is_counted(run: Run):
    counts = run.directory.manifest["stages"]["inputs"]
    of_units = store_of(run, INPUTS)["repeats_left_out"]
    assert of_units.shape == (2, 2 * D_MLP) and of_units.sum() == counts["repeats_left_out"] > 0


def test_distances_are_those_of_the_chosen_embedding(run: Run, settings: Settings, tmp_path: Path):
    """By the gate alone, examples are the same, and distances others."""
    by_gate = finished(tmp_path / "gate", settings, embed_by="gate", importance=False, census=False, similar=0)
    shared, others = store_of(run, INPUTS), store_of(by_gate, INPUTS)
    for name in ("sequence", "position", "input_of"):
        np.testing.assert_array_equal(shared[name], others[name])
    for one in (run, by_gate):
        for layer, features in enumerate(layers_of(one)):
            inputs = inputs_of_layer(one, layer)
            for unit in (0, D_MLP + 3):
                there = shared["sequence"][layer, unit] >= 0
                x = jnp.asarray(inputs[shared["input_of"][layer, unit][there]])
                distances = embedding_distances(x, one.loaded.model.input_weights()[layer, :, unit])
                mean = np.asarray(distances)[np.triu_indices(len(x), 1)].mean()
                np.testing.assert_allclose(features["mean_distance"][unit], mean, rtol=1e-4)
    mine, theirs = (next(iter(layers_of(one)))["mean_distance"] for one in (run, by_gate))
    assert np.nanmax(np.abs(mine - theirs)) > 0.01


def test_the_census_counts_both_sides(run: Run):
    counted, collected = run.directory.load("census")["band_count"].sum(axis=2), COLLECT.of(run).n_fired
    np.testing.assert_array_equal(counted, collected)


@pytest.mark.parametrize("side", [0, 1], ids=["positive", "negative"])
def test_importance_is_that_of_a_plain_pass(side: int, run: Run):
    """The token before an example's peak is replaced by padding, and the whole sequence run once more."""
    found, chosen = run.directory.load("importance"), store_of(run, INPUTS)
    place = np.stack(np.unravel_index(found["example"], chosen["sequence"].shape), axis=1)
    position = chosen["position"].reshape(-1)[found["example"]]
    number = np.flatnonzero((place[:, 1] >= D_MLP) == bool(side))
    number = number[position[number] >= 3][:8]
    sequences = TOKENS.of(run).take(np.arange(TOKENS.of(run).n_sequences))
    tokens = sequences.tokens[chosen["sequence"].reshape(-1)[found["example"][number]]].astype(np.int32)
    at, sign = position[number], -1 if side else 1
    tokens[np.arange(len(at)), at - 1] = run.loaded.tokenizer.pad_token_id
    values = np.asarray(activations(run.loaded.model.model, jnp.asarray(tokens)))
    layer, neuron = place[number, 0], place[number, 1] % D_MLP
    expected = sign * values[layer, np.arange(len(at)), at, neuron]
    np.testing.assert_allclose(found["without"][number, 1], expected, rtol=1e-5, atol=1e-5)
