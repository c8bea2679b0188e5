"""What an atlas holds, taken elsewhere: Arrow and Parquet, JSON, pickles."""

import copy
import json
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from small_run import D_MLP, DEAD_NEURON, N_LAYERS

from nejax.atlas.atlas import Atlas
from nejax.atlas.neuron import Neuron
from nejax.atlas.plain import plain


@pytest.fixture(scope="module")
def neuron(atlas: Atlas) -> Neuron:
    """One with several features, some of a single example."""
    neurons = (atlas.neuron(layer, index) for layer in range(N_LAYERS) for index in range(D_MLP))
    return next(n for n in neurons if n.n_features > 1 and n.features[-1].n_examples == 1)


def test_tables_go_to_arrow_and_parquet_and_come_back(atlas, tmp_path):
    for table in (atlas.neurons_table(), atlas.features_table()):
        frame = pd.DataFrame(table)
        frame.to_parquet(tmp_path / "table.parquet")
        back = pd.read_parquet(tmp_path / "table.parquet")
        assert list(back) == list(frame) and pa.table(table).num_rows == len(frame)
        for name in frame:
            if frame[name].dtype == object:
                assert [list(value) if isinstance(value, np.ndarray) else value for value in back[name]] == list(
                    frame[name]
                )
            else:
                np.testing.assert_array_equal(back[name], frame[name])


def test_objects_become_json(atlas, neuron):
    for entry in (neuron, *neuron.features, *neuron.examples, atlas.neuron(*DEAD_NEURON)):
        assert json.loads(json.dumps(entry.to_dict(), allow_nan=False)) == entry.to_dict()
    found = neuron.to_dict()
    assert (found["layer"], found["index"], found["name"]) == (neuron.layer, neuron.index, neuron.name)
    for feature, entry in zip(neuron.features, found["features"], strict=True):
        np.testing.assert_array_equal(np.float32(entry["direction"]), feature.direction)
        assert [(text, n) for text, n in entry["peak_tokens"]] == feature.peak_tokens
        assert entry["examples"][entry["central"]] == feature.central.to_dict()
        assert entry["examples"][0]["pieces"] == feature.examples[0].pieces
    dead = atlas.neuron(*DEAD_NEURON).to_dict()
    assert dead["mean_distance"] is None and dead["features"] == []
    for result in (neuron.histogram, atlas.search("the"), neuron.features[0].similar):
        json.dumps(plain(result), allow_nan=False)


def test_objects_can_be_pickled_and_used_in_another_process(atlas, neuron):
    again = pickle.loads(pickle.dumps(neuron))
    assert again.to_dict() == neuron.to_dict() and str(again) == str(neuron)
    for entry in (atlas, neuron.features[0], neuron.examples[0], neuron.linkage, copy.deepcopy(neuron)):
        pickle.loads(pickle.dumps(entry))
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(str, neuron).result() == str(neuron)
