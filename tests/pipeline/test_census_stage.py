"""The census of whole tiny runs: it fits the other stages, is resumed, and samples."""

import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from stage_stores import layers_of, store_of
from tiny_gpt2 import D_MLP, N_LAYERS
from world import DEAD, a_run

from nejax.neuron.assignment import assign, min_similarity_of_features
from nejax.neuron.embeddings import unit_embeddings
from nejax.neuron.split import calibrated_height
from nejax.pipeline.passes import stream
from nejax.pipeline.passes.census_tiles import N_BANDS
from nejax.pipeline.run.checkpoints import Checkpoints
from nejax.pipeline.run.directory import Store
from nejax.pipeline.run.settings import Settings
from nejax.pipeline.stages.census import CENSUS
from nejax.pipeline.stages.collect import COLLECT
from nejax.pipeline.stages.inputs import INPUTS, inputs_of_layer
from nejax.pipeline.stages.run import Run


@pytest.fixture(scope="module")
def settings(plain_settings) -> Settings:
    return plain_settings.but(census=True)


@pytest.fixture(scope="module")
def run(settings, features_done, tmp_path_factory) -> Run:
    run = a_run(shutil.copytree(features_done, tmp_path_factory.mktemp("finished") / "run"), settings)
    store_of(run, CENSUS)
    return run


@pytest.fixture(scope="module")
def store(run) -> Store:
    return store_of(run, CENSUS)


def assert_identical(a: Store, b: Store) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert (a[name].dtype, a[name].tobytes()) == (b[name].dtype, b[name].tobytes()), name


@pytest.mark.slow
def test_the_store_fits_those_of_the_other_stages(run, store):
    facts = run.directory.manifest["stages"]["census"]
    collected, features = store_of(run, COLLECT), layers_of(run)
    n_features = sum(int((layer["central"] >= 0).sum()) for layer in features)
    shapes = {name: np.shape(array) for name, array in store.items()}
    assert shapes == {
        "band_count": (N_LAYERS, D_MLP, N_BANDS),
        "band_mean_distance": (N_LAYERS, D_MLP, N_BANDS),
        "corpus_mean_distance": (N_LAYERS, D_MLP),
        "neuron_coverage": (N_LAYERS, D_MLP),
        "frequency": (n_features,),
        "coverage": (n_features,),
        "n_tokens": (),
    }
    assert facts["tokens"] == run.directory.manifest["stages"]["collect"]["peakable_tokens"]
    assert facts["sequences"] == len(run.sizes[0])
    # A token that fires is in one band; rounding may carry an activation of 1e-7 over 0.
    assert np.abs(store["band_count"].sum(axis=2) - collected["n_fired"]).sum() <= 3
    assert all(store["band_count"][neuron].sum() == 0 for neuron in DEAD)
    alive = collected["n_fired"] > 1
    assert np.isfinite(store["corpus_mean_distance"][alive]).all()
    assert not run.partial("census").exists()


@pytest.mark.slow
def test_frequencies_are_at_least_those_of_the_stored_examples(run, store):
    """Whatever example its own feature has, the census met it too."""
    n_tokens, at = run.directory.manifest["stages"]["census"]["tokens"], 0
    shared = store_of(run, INPUTS)
    for layer, found in enumerate(layers_of(run)):
        inputs = inputs_of_layer(run, layer)
        at_directions = 0
        for neuron in range(D_MLP):
            if not (k := int((found["central"][neuron] >= 0).sum())):
                continue
            input_of = shared["input_of"][layer][neuron]
            directions = found["directions"][at_directions : at_directions + k]
            minimum = found["min_similarity"][at_directions : at_directions + k] + 1e-5
            got = assign(inputs[input_of], run.input_weights[layer][:, neuron], directions, minimum).feature
            got = np.asarray(got)[input_of >= 0]
            met = np.bincount(got[got >= 0], minlength=k)
            assert (np.round(store["frequency"][at : at + k] * n_tokens) >= met).all()
            at, at_directions = at + k, at_directions + k
    assert at == len(store["frequency"]) > 100


@pytest.mark.slow
@pytest.mark.parametrize("clustering", ["average", "kmeans"])
def test_minimums_and_what_becomes_of_the_examples(clustering, settings, run, tmp_path):
    """Neuron by neuron, by the definitions. Without a height, it is the calibrated one."""
    if clustering != "average":
        run = a_run(tmp_path / "run", settings.but(clustering=clustering))
    CENSUS.finish(run)
    shared = store_of(run, INPUTS)
    own = no_feature = n_examples = 0
    for layer, found in enumerate(layers_of(run)):
        inputs, at_directions = inputs_of_layer(run, layer), 0
        for neuron in range(D_MLP):
            w = run.input_weights[layer][:, neuron]
            if not (k := int((found["central"][neuron] >= 0).sum())):
                continue
            label = found["label"][neuron]
            there, x = label >= 0, inputs[shared["input_of"][layer][neuron]]
            height = found["height"][neuron]
            if clustering == "kmeans":
                height = calibrated_height(jnp.asarray(shared["reference"][layer]), jnp.asarray(w))
            u = np.asarray(unit_embeddings(jnp.asarray(x), jnp.asarray(w)), np.float64)
            for feature in range(k):
                mine = u[label == feature]
                pairs = (mine @ mine.T)[np.triu_indices(len(mine), 1)]
                wanted = min_similarity_of_features(
                    float(height), float(pairs.mean()) if len(pairs) else 0.0, len(mine)
                )
                # cohesion is a mean of float32 cosines
                np.testing.assert_allclose(found["min_similarity"][at_directions + feature], wanted, rtol=1e-5)
            directions = found["directions"][at_directions : at_directions + k]
            minimum = found["min_similarity"][at_directions : at_directions + k]
            got = np.asarray(assign(x, w, directions, minimum).feature)[there]
            own, no_feature = own + (got == label[there]).sum(), no_feature + (got < 0).sum()
            n_examples += there.sum()
            at_directions += k
    facts = run.directory.manifest["stages"]["census"]
    counts = facts["examples"]
    assert counts["examples"] == n_examples and abs(counts["own"] - own) <= 1 >= abs(counts["none"] - no_feature)
    assert counts["own"] + counts["nearer_to_another"] + counts["only_another"] + counts["none"] == n_examples
    assert facts["reproduced"] == round(counts["own"] / n_examples, 4)


class Killed(Exception):
    pass


@pytest.mark.slow
def test_a_census_that_was_killed_goes_on_to_the_same_bits(settings, features_done, tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "LOOK_EVERY", 2)
    whole = store_of(a_run(shutil.copytree(features_done, tmp_path / "whole"), settings), CENSUS)
    killed = shutil.copytree(features_done, tmp_path / "killed")
    save, seen = Checkpoints.save, []

    def dying(self: Checkpoints, n_sequences: int, store: Store) -> None:
        save(self, n_sequences, store)
        if self.folder.parent.name == "census.partial":
            seen.append(n_sequences)
            raise Killed

    monkeypatch.setattr(Checkpoints, "save", dying)
    for _ in range(2):
        with pytest.raises(Killed):
            store_of(a_run(killed, settings, checkpoint_seconds=0.0), CENSUS)
    monkeypatch.setattr(Checkpoints, "save", save)
    assert seen == [8, 16] and len([*(killed / "census.partial").iterdir()]) == 1
    # One that asks for other sequences has nothing to do with it.
    other = settings.but(census_sequences=9)
    expected = store_of(a_run(shutil.copytree(features_done, tmp_path / "sample"), other), CENSUS)
    assert_identical(store_of(a_run(shutil.copytree(killed, tmp_path / "other"), other), CENSUS), expected)
    assert_identical(store_of(a_run(killed, settings), CENSUS), whole)
    assert not (killed / "census.partial").exists()


@pytest.mark.slow
def test_a_sample_is_drawn_with_the_seed_and_all_is_no_sample(run, store, settings, features_done, tmp_path):
    n = len(run.sizes[0])
    found = {}
    for name, changes in {
        "first": {"census_sequences": 9},
        "again": {"census_sequences": 9},
        "other": {"census_sequences": 9, "seed": 1},
        "all": {"census_sequences": n + 5},
    }.items():
        if "seed" not in changes:
            shutil.copytree(features_done, tmp_path / name)
        one = a_run(tmp_path / name, settings.but(**changes))
        found[name] = store_of(one, CENSUS)
        facts = one.directory.manifest["stages"]["census"]
        assert facts["sequences"] == min(n, changes["census_sequences"])
        assert (facts["tokens"] < 0.6 * run.directory.manifest["stages"]["census"]["tokens"]) == (name != "all")
    assert_identical(found["first"], found["again"])
    assert_identical(found["all"], store)
    assert not np.array_equal(found["first"]["band_count"], found["other"]["band_count"])
