"""What token importance and a census add to the shards, against the opened atlas, for every neuron of the small run."""

import gzip
import json
import math
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import jsonschema_rs
import numpy as np
import pytest

from nejax.atlas.atlas import Atlas, open_atlas
from nejax.atlas.explorer.columns import CENSUS_COLUMNS, COLUMNS
from nejax.atlas.explorer.export import export_site
from nejax.atlas.explorer.openapi import describe
from nejax.atlas.explorer.shards import NoShard, Shards, to_json
from nejax.atlas.files import AtlasFiles
from nejax.errors import UserError

pytestmark = pytest.mark.slow

CLOSE = 5e-5
"""Of a number: half a unit of its fifth digit, where that digit counts most."""


def neurons(shards: Shards) -> dict[tuple[int, int], Any]:
    """The shards of all neurons, as a browser gets them."""
    places = [(layer, neuron) for layer in range(shards.n_layers) for neuron in range(shards.d_mlp)]
    return {place: json.loads(to_json(shards.neuron(*place))) for place in places}


@pytest.fixture(scope="module")
def full(full_shards: Shards) -> dict[tuple[int, int], Any]:
    return neurons(full_shards)


def with_nan(values: list[float | None]) -> np.ndarray:
    return np.array([math.nan if value is None else value for value in values])


def check_importance(shards: dict[tuple[int, int], Any], atlas: Atlas) -> tuple[int, int, int]:
    """Of every example; how many have it, how many do not, and how many of their tokens do not."""
    n_measured = n_other = n_unknown = 0
    for place, shard in shards.items():
        for found, example in zip(shard["examples"], atlas.neuron(*place).examples, strict=True):
            if np.isnan(example.importance).all():
                assert "importance" not in found
                n_other += 1
                continue
            assert len(found["importance"]) == len(found["tokens"])
            np.testing.assert_allclose(with_nan(found["importance"]), example.importance, rtol=CLOSE, atol=0)
            n_measured += 1
            n_unknown += found["importance"].count(None)
    return n_measured, n_other, n_unknown


def test_importance_is_the_atlas_s(full, full_atlas):
    n_measured, n_other, n_unknown = check_importance(full, full_atlas)
    assert n_measured > 100 and n_other > 100 and n_unknown > 100
    peaks = [
        example["importance"][example["position"] - example["start"]]
        for shard in full.values()
        for example in shard["examples"]
        if "importance" in example
    ]
    assert set(peaks) == {1}  # by definition: it is what the others are measured by


@pytest.mark.parametrize("width", [1, 2, 30, 31, 32, 45], ids="{} columns".format)
def test_importance_of_any_width_stands_at_its_tokens(full_atlas, tmp_path, width):
    """The window shown has 30 tokens before the peak: of more, the nearest count."""
    copy = shutil.copytree(full_atlas.path, tmp_path / "copy")
    stored = np.random.default_rng(width).random((len(np.load(copy / "window.npy")), width)).astype(np.float16)
    position = np.concatenate(
        [[e.position for e in full_atlas.neuron(layer, i).examples] for layer in range(3) for i in range(64)]
    ).astype(int)
    offset = np.arange(width)[::-1]
    stored[offset > position[:, None]] = np.nan  # no token is before the first
    stored[::3] = np.nan
    np.save(copy / "importance.npy", stored)
    with closing(sqlite3.connect(copy / "atlas.sqlite")) as database, database:
        database.execute("UPDATE meta SET value = ? WHERE key = 'importance_window'", (str(width - 1),))
    atlas = open_atlas(copy)
    examples = [example for layer in range(3) for i in range(64) for example in atlas.neuron(layer, i).examples]
    for example, before_peak in zip(examples, stored[:, ::-1], strict=True):
        expected = np.full(len(example.tokens), np.nan, np.float32)
        n = min(width, example.peak + 1)
        expected[example.peak - np.arange(n)] = before_peak[:n]
        np.testing.assert_array_equal(example.importance, expected)
    n_measured, n_other, _ = check_importance(neurons(Shards(AtlasFiles(copy))), atlas)
    assert (n_measured, n_other) == (len(stored) - len(stored[::3]), len(stored[::3]))


def test_importance_that_is_none_is_damaged(full_atlas, tmp_path):
    copy = shutil.copytree(full_atlas.path, tmp_path / "copy")
    np.save(copy / "importance.npy", np.full_like(np.load(copy / "importance.npy"), 1.5))
    with pytest.raises(UserError, match=r"is damaged \(importance.npy has values that are not between 0 and 1\)"):
        Shards(AtlasFiles(copy)).neuron(0, 0)


def test_features_come_as_often_as_in_the_atlas(full, full_atlas):
    names, n = ("frequency", "coverage"), 0
    for place, shard in full.items():
        for found, feature in zip(shard["features"], full_atlas.neuron(*place).features, strict=True):
            assert [found[name] for name in names] == pytest.approx([getattr(feature, name) for name in names], CLOSE)
            n += 0 < found["frequency"] < 1 and 0 < found["coverage"] <= 1
    assert n > 100


def test_bands_are_the_atlas_s(full, full_atlas):
    n_without = 0
    for place, shard in full.items():
        expected = full_atlas.neuron(*place).bands
        found = shard["bands"]
        assert found["edges"] == expected.edges.tolist() and found["n_tokens"] == expected.n_tokens.tolist()
        np.testing.assert_allclose(with_nan(found["mean_distance"]), expected.mean_distance, rtol=CLOSE)
        n_without += found["mean_distance"].count(None)
    assert 0 < n_without < 5 * len(full)


def test_a_census_has_measures_of_its_own(full, full_shards, full_atlas):
    table, offered = full_atlas.neurons_table(), full_shards.atlas()["columns"]
    assert [column["name"] for column in offered] == [column.name for column in (*COLUMNS, *CENSUS_COLUMNS)]
    for column in CENSUS_COLUMNS:
        values = full_shards.column(column.name)
        np.testing.assert_allclose(with_nan(values), table[column.name], rtol=CLOSE)
        assert values == [shard["measures"][column.name] for shard in full.values()]
    assert any(value is not None for value in full_shards.column("coverage"))


def test_they_are_as_described(full, full_shards):
    description = json.loads(to_json(describe(full_shards)))

    def fits(schema: str, shard: Any) -> None:
        reference = {"$ref": f"#/components/schemas/{schema}", "components": description["components"]}
        jsonschema_rs.validate(reference, json.loads(to_json(shard)))

    fits("Atlas", full_shards.atlas())
    for shard in full.values():
        fits("Neuron", shard)
    for column in CENSUS_COLUMNS:
        fits("Column", full_shards.column(column.name))
        assert column.name in json.dumps(description["paths"])
    shard = next(shard for shard in full.values() if shard["examples"])
    for broken in (
        {**shard, "bands": {**shard["bands"], "edges": None}},
        {**shard, "features": [{**shard["features"][0], "frequency": 1.1}]},
        {**shard, "examples": [{**shard["examples"][0], "importance": [2]}]},
        {key: value for key, value in shard.items() if key != "bands"},
    ):
        with pytest.raises(jsonschema_rs.ValidationError):
            fits("Neuron", broken)


def test_an_atlas_without_them_has_none(shards):
    assert shards.atlas()["has_importance"] is False
    assert [column["name"] for column in shards.atlas()["columns"]] == [column.name for column in COLUMNS]
    for column in CENSUS_COLUMNS:
        with pytest.raises(NoShard, match="no measure"):
            shards.column(column.name)
        assert column.name not in json.dumps(describe(shards)["paths"])
    for shard in neurons(shards).values():
        assert shard["bands"] is None
        assert all("importance" not in example for example in shard["examples"])
        assert all(feature["frequency"] is None and feature["coverage"] is None for feature in shard["features"])


def test_an_atlas_with_them_says_so(full_shards):
    assert full_shards.atlas()["has_importance"] is True


def test_they_are_in_an_export(full, full_shards, tmp_path: Path):
    files = AtlasFiles(full_shards._files.path)
    export_site(files, tmp_path / "site", quiet=True)
    data = tmp_path / "site" / "data" / "v1"
    assert json.loads((data / "atlas.json").read_bytes())["has_importance"] is True
    for column in CENSUS_COLUMNS:
        found = json.loads(gzip.decompress((data / "columns" / f"{column.name}.json.gz").read_bytes()))
        assert found == full_shards.column(column.name)
    for (layer, neuron), shard in full.items():
        file = data / "neurons" / str(layer) / f"{neuron}.json.gz"
        assert json.loads(gzip.decompress(file.read_bytes())) == shard


def test_texts_that_are_left_out_leave_their_importance_out(full, full_shards):
    for place, whole in full.items():
        shard = json.loads(to_json(full_shards.neuron(*place, examples_per_feature=1)))
        for few, all_ in zip(shard["examples"], whole["examples"], strict=True):
            assert ("importance" in few) == ("tokens" in few and "importance" in all_)
            assert few.get("importance") in (None, all_.get("importance"))
