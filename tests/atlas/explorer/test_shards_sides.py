"""The explorer's shards of an atlas of neurons with two sides: units as they are, and what they are."""

import json

import jsonschema_rs
import pytest
from small_run import D_MLP
from stage_stores import store_of

from nejax.atlas.explorer.openapi import describe
from nejax.atlas.explorer.shards import Shards, to_json
from nejax.atlas.files import AtlasFiles
from nejax.pipeline.stages.inputs import INPUTS
from nejax.pipeline.stages.run import Run


@pytest.fixture(scope="module")
def two_sided_shards(two_sided_run: Run) -> Shards:
    return Shards(AtlasFiles(two_sided_run.directory.path / "atlas"))


def test_the_atlas_says_how_many_sides_a_neuron_has(shards, two_sided_shards):
    one, two = (json.loads(to_json(which.atlas())) for which in (shards, two_sided_shards))
    assert (one["sides"], two["sides"]) == (1, 2)
    assert one["d_mlp"] == two["d_mlp"] == D_MLP
    different = {name for name in one if one[name] != two[name]}
    assert different == {"sides", "fingerprint", "manifest"}


def test_units_are_what_they_were(shards, two_sided_shards):
    for unit in (3, 3 + D_MLP // 2):
        assert two_sided_shards.neuron(2, unit) == shards.neuron(2, unit)
    assert two_sided_shards.search("the") == shards.search("the")
    assert all(len(match) == 5 for match in json.loads(to_json(shards.search("the")))["peaks"])


def test_the_description_holds_for_both(shards, two_sided_shards):
    for which in (shards, two_sided_shards):
        components = describe(which)["components"]
        answers = {"Atlas": which.atlas(), "Neuron": which.neuron(2, 40), "Search": which.search("the")}
        for name, answer in answers.items():
            schema = {"$ref": f"#/components/schemas/{name}", "components": components}
            jsonschema_rs.validate(schema, json.loads(to_json(answer)))


def test_what_was_left_out_is_a_measure(shards, run):
    left = store_of(run, INPUTS)["repeats_left_out"]
    assert shards.column("repeats_left_out") == left.ravel().tolist()
    assert shards.neuron(2, 40)["measures"]["repeats_left_out"] == left[2, 40]
