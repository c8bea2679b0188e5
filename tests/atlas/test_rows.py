"""Rows as they are read, against the tables that are written."""

import math
import sqlite3
from dataclasses import fields

import pytest

from nejax.atlas.entries import Example, Feature
from nejax.atlas.explorer.shards import Shards
from nejax.atlas.files import AtlasFiles
from nejax.atlas.neuron import Neuron
from nejax.atlas.rows import ExampleRow, FeatureRow, NeuronRow, columns_of, json_columns, rows_of, select
from nejax.atlas.schema import SCHEMA

TYPES = {int: "INTEGER", float: "REAL", list: "TEXT"}


@pytest.fixture(scope="module")
def database() -> sqlite3.Connection:
    """Empty tables, and one neuron with one feature and one example."""
    database = sqlite3.connect(":memory:")
    for table in SCHEMA:
        database.execute(table)
    neuron = {"id": 7, "layer": 1, "neuron": 3, "n_examples": 1, "n_features": 1, "repeats_left_out": 0}
    neuron |= {"mean": 0.25, "n_merges": 0, "first_example": 40, "first_feature": 20}
    feature = {"id": 22, "neuron_id": 7, "feature": 2, "n_examples": 1, "central_example": 41, "max_activation": 1.5}
    feature |= {"coverage": 0.5, "peak_tokens": '[["é", 2], ["\\u0000", 1]]'}
    example = {"id": 41, "neuron_id": 7, "feature_id": 22, "rank": 1, "sequence": 5, "position": 6, "activation": 1.5}
    for table, row in {"neurons": neuron, "features": feature, "examples": example}.items():
        marks = ", ".join("?" * len(row))
        database.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", tuple(row.values()))
    return database


@pytest.mark.parametrize(
    ("row", "table", "left_out"),
    [
        (NeuronRow, "neurons", {"id"}),
        (FeatureRow, "features", {"id", "neuron_id", "central_example"}),
        (ExampleRow, "examples", {"id", "neuron_id", "feature_id", "rank"}),
    ],
)
def test_every_column_of_a_table_is_a_field_of_its_type(database, row, table, left_out):
    written = {name: (type_, needed) for _, name, type_, needed, *_ in database.execute(f"PRAGMA table_info({table})")}
    plain = {column.sql: column for column in columns_of(row).values() if column.sql in written}
    assert set(written) - left_out == set(plain)
    for name, column in plain.items():
        may_be_null = "null" in column.schema["type"]
        assert written[name] == (TYPES[column.type], not may_be_null), name


def test_a_row_has_what_was_written(database):
    (neuron,) = rows_of(NeuronRow, database.execute(select(NeuronRow)).fetchall())
    (feature,) = rows_of(FeatureRow, database.execute(select(FeatureRow)).fetchall())
    (example,) = rows_of(ExampleRow, database.execute(select(ExampleRow)).fetchall())
    assert (neuron.layer, neuron.index, neuron.mean, neuron.first_feature) == (1, 3, 0.25, 20)
    assert math.isnan(neuron.silhouette)
    assert (feature.index, feature.max_activation, feature.coverage) == (2, 1.5, 0.5)
    assert feature.peak_tokens == [("é", 2), ("\0", 1)] and math.isnan(feature.frequency)
    assert (example.sequence, example.position, example.activation, example.feature) == (5, 6, 1.5, 2)
    assert math.isnan(example.cohesion)
    assert rows_of(FeatureRow, database.execute(f"{select(FeatureRow)} WHERE id = 0").fetchall()) == []
    assert database.execute(select(FeatureRow, "n_examples", "index")).fetchall() == [(1, 2)]


def test_objects_and_json_have_the_fields_of_rows(atlas):
    neuron = next(n for n in (atlas.neuron(0, i) for i in range(atlas.d_mlp)) if n.n_examples)
    found = Shards(AtlasFiles(atlas.path)).neuron(0, neuron.index)
    for row, whole, json in (
        (FeatureRow, Feature, found["features"][0]),
        (ExampleRow, Example, found["examples"][0]),
    ):
        names = [field.name for field in fields(row)]
        assert [field.name for field in fields(whole)][: len(names)] == names
        assert list(json)[: len(json_columns(row))] == list(json_columns(row))
    assert {field.name for field in fields(Neuron)} == {field.name for field in fields(NeuronRow)} | {"_atlas"}
    assert set(found["measures"]) <= {field.name for field in fields(NeuronRow)}
