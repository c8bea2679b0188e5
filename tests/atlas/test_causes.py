"""Token importance and the census in an atlas: what the stages found, where it belongs, and what says that it lacks."""

import math

import numpy as np
import pytest
from stage_stores import layers_of, store_of

import nejax
from nejax.atlas.atlas import Atlas
from nejax.errors import UserError
from nejax.neuron.importance import token_importance
from nejax.pipeline.stages.census import CENSUS
from nejax.pipeline.stages.importance import IMPORTANCE
from nejax.pipeline.stages.inputs import INPUTS, inputs_of_layer
from nejax.pipeline.stages.run import Run

pytestmark = pytest.mark.slow

WINDOW = 6


def living(atlas: Atlas):
    table = atlas.neurons_table()
    return [atlas.neuron(*divmod(int(i), atlas.d_mlp)) for i in np.flatnonzero(table["n_examples"] > 0)]


def test_an_examples_importance_is_at_the_tokens_up_to_its_peak(full_run: Run, full_atlas: Atlas):
    store, chosen = store_of(full_run, IMPORTANCE), store_of(full_run, INPUTS)
    of_example = dict(zip(store["example"].tolist(), store["without"], strict=True))
    n_examples, measured = chosen["sequence"].shape[2], 0
    for neuron in living(full_atlas):
        for rank, example in enumerate(neuron.examples):
            number = (neuron.layer * full_atlas.d_mlp + neuron.index) * n_examples + rank
            found = np.full(len(example.tokens), np.nan, np.float32)
            if number in of_example:
                measured += 1
                of_offset = np.asarray(token_importance(np.float32(example.activation), of_example[number]))
                for offset in range(min(WINDOW, example.peak) + 1):
                    found[example.peak - offset] = of_offset[offset]
            np.testing.assert_allclose(example.importance, found, rtol=1e-3, atol=1e-6)  # stored as float16
    assert measured == len(of_example) > 100


def test_the_two_most_central_examples_of_each_feature_are_measured(full_atlas: Atlas):
    for neuron in living(full_atlas):
        for feature in neuron.features:
            with_own = [example for example in feature.examples if np.isfinite(example.importance).any()]
            assert len(with_own) <= 2
            if np.isfinite(feature.central.importance).any():
                assert feature.central.importance[feature.central.peak] == 1
                assert np.nanmin(feature.central.importance) >= 0


def test_the_census_is_in_tables_and_entries(full_run: Run, full_atlas: Atlas):
    store, features, neurons = store_of(full_run, CENSUS), full_atlas.features_table(), full_atlas.neurons_table()
    for name in ("frequency", "coverage"):
        np.testing.assert_allclose(features[name], store[name], rtol=1e-6)
    least = np.concatenate([found["min_similarity"] for found in layers_of(full_run)])
    np.testing.assert_array_equal(features["min_similarity"], least)
    np.testing.assert_allclose(neurons["corpus_mean_distance"], store["corpus_mean_distance"].ravel(), rtol=1e-6)
    np.testing.assert_allclose(neurons["coverage"], store["neuron_coverage"].ravel(), rtol=1e-6)
    edges, distances, counts = full_atlas.bands_table()
    np.testing.assert_array_equal(distances, store["band_mean_distance"])
    np.testing.assert_array_equal(counts, store["band_count"])
    neuron = living(full_atlas)[3]
    assert neuron.bands.edges.tolist() == edges.tolist() == [0, 0.1, 0.25, 0.5, 0.75, 1]
    np.testing.assert_array_equal(neuron.bands.n_tokens, counts[neuron.layer, neuron.index])
    np.testing.assert_array_equal(neuron.bands.mean_distance, distances[neuron.layer, neuron.index])
    assert sum(feature.coverage for feature in neuron.features) == pytest.approx(neuron.coverage, rel=1e-5)
    assert neuron.corpus_mean_distance == pytest.approx(
        float(store["corpus_mean_distance"][neuron.layer, neuron.index])
    )


def test_examples_are_assigned_to_their_own_features_by_what_the_atlas_says(full_run: Run, full_atlas: Atlas):
    """Directions and least similarities as they are stored. Nearly all: see the counts in the manifest."""
    shared, w_in, right, n = store_of(full_run, INPUTS), full_run.input_weights, 0, 0
    for neuron in living(full_atlas):
        inputs = inputs_of_layer(full_run, neuron.layer)
        x = inputs[shared["input_of"][neuron.layer, neuron.index, : neuron.n_examples]]
        directions = np.stack([feature.direction for feature in neuron.features])
        least = np.array([feature.min_similarity for feature in neuron.features], np.float32)
        found = nejax.assign(x, w_in[neuron.layer][:, neuron.index], directions, least * (1 - 1e-5)).feature
        right += int((np.asarray(found) == [example.feature for example in neuron.examples]).sum())
        n += neuron.n_examples
    assert right / n >= 0.95
    assert right / n == pytest.approx(full_run.directory.manifest["stages"]["census"]["reproduced"], abs=0.01)


def test_the_least_similarity_of_a_feature_needs_no_census(atlas: Atlas, full_atlas: Atlas):
    least = atlas.features_table()["min_similarity"]
    np.testing.assert_allclose(least, full_atlas.features_table()["min_similarity"], rtol=1e-6)
    assert np.isfinite(least).all()


def test_what_an_atlas_lacks_is_said_in_a_line(atlas: Atlas):
    neuron = living(atlas)[0]
    with pytest.raises(UserError, match=r"built without token importance; build it again with importance"):
        _ = neuron.examples[0].importance
    with pytest.raises(UserError, match=r"built without a census; build it again with census"):
        _ = neuron.bands
    with pytest.raises(UserError, match="without a census"):
        atlas.bands_table()
    assert math.isnan(neuron.coverage)
    assert math.isnan(neuron.features[0].frequency)


def test_a_run_takes_on_stages_and_everything_else_stays_as_it_was(run: Run, full_run: Run):
    before, after = run.directory.manifest["stages"], full_run.directory.manifest["stages"]
    assert {"importance", "census"} <= after.keys()
    assert all(after[name] == facts for name, facts in before.items() if name != "atlas")
