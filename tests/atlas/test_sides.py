"""Neurons with two sides: units by the neuron and the side that they are, and the names of both."""

import re

import numpy as np
import pytest
from matplotlib.figure import Figure
from small_run import D_MLP, DEAD_NEURON, N_LAYERS
from stage_stores import store_of

from nejax.atlas.atlas import Atlas
from nejax.atlas.neuron import Neuron
from nejax.atlas.neuron_plot import plot_neuron
from nejax.atlas.plots import plot_measures
from nejax.atlas.summary import summarize
from nejax.atlas.units import Units
from nejax.errors import UserError
from nejax.pipeline.stages.inputs import INPUTS

HALF = D_MLP // 2


@pytest.fixture
def negative(two_sided_atlas: Atlas) -> Neuron:
    """A negative side with features."""
    return two_sided_atlas.neuron(2, 3, "negative")


def test_a_neuron_is_found_by_its_number_and_side_or_by_its_unit(two_sided_atlas, atlas):
    assert (two_sided_atlas.sides, two_sided_atlas.d_mlp) == (2, D_MLP)
    for number in range(HALF):
        for side, unit in (("positive", number), ("negative", number + HALF)):
            neuron = two_sided_atlas.neuron(2, number, side)
            assert (neuron.index, neuron.number, neuron.side) == (unit, number, side)
            by_unit = two_sided_atlas.neuron(2, unit)
            assert (by_unit.index, by_unit.side) == (unit, side)
            assert neuron.max_activation == atlas.neuron(2, unit).max_activation  # what a unit has does not change
    assert two_sided_atlas.neuron(2, 3 + HALF, "negative").index == 3 + HALF  # a unit has its own side


def test_each_side_leads_to_the_other(two_sided_atlas):
    for unit in range(D_MLP):
        neuron = two_sided_atlas.neuron(0, unit)
        other = neuron.other_side
        assert (other.layer, other.number) == (0, neuron.number)
        assert {neuron.side, other.side} == {"positive", "negative"}
        assert other.other_side.index == unit


def test_neurons_of_one_side_are_as_they_were(atlas):
    assert atlas.sides == 1
    neuron = atlas.neuron(2, 40)
    assert (neuron.index, neuron.number, neuron.side, neuron.name) == (40, 40, "", "layer 2, neuron 40")
    assert atlas.neuron(2, 40, side="positive").index == 40
    with pytest.raises(UserError, match="have one side each: there is no other side"):
        _ = neuron.other_side
    with pytest.raises(UserError, match="side='negative': the neurons of this atlas have one side each; leave it out"):
        atlas.neuron(2, 40, "negative")
    assert "side" not in repr(neuron) and "side" not in str(neuron)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ((0, D_MLP), "no neuron 64 in this atlas; expected 0 to 31 \\(units 32 to 63 are their negative sides\\)"),
        ((0, -1), "there is no neuron -1 in this atlas; expected 0 to 31"),
        ((0, D_MLP, "negative"), "there is no neuron 64 in this atlas"),
        ((N_LAYERS, 0), "there is no layer 3 in this atlas; expected 0 to 2"),
        ((0, 0, "left"), "side='left': expected 'positive' or 'negative'"),
    ],
)
def test_places_that_are_not_there(two_sided_atlas, place, message):
    with pytest.raises(UserError, match=message):
        two_sided_atlas.neuron(*place)


def test_units_of_every_size():
    for sides, n in ((1, 7), (2, 2), (2, 3072)):
        units = Units(n, sides)
        for unit in range(n):
            side = units.side(unit) or "positive"
            assert units.unit(units.number(unit), side) == unit == units.unit(unit, "positive")
        assert sorted(map(units.number, range(n))) == sorted(list(range(n // sides)) * sides)


def test_sides_are_named(two_sided_atlas, negative):
    positive = negative.other_side
    assert str(positive).startswith("Layer 2, neuron 3, positive side: ")
    assert str(negative).startswith("Layer 2, neuron 3, negative side: ")
    assert "activation: times -1" in str(negative) and "times -1" not in str(positive)
    assert "index=35, side='negative'" in repr(negative)
    dead = two_sided_atlas.neuron(*DEAD_NEURON)
    assert str(dead) == "Layer 0, neuron 5, positive side: dead, it never fires in this corpus"


def test_similar_features_and_peaks_name_their_sides(two_sided_atlas, atlas):
    similar = [
        found
        for unit in range(D_MLP)
        for feature in two_sided_atlas.neuron(2, unit).features
        for found in feature.similar
    ]
    sides = {found.side for found in similar}
    assert sides == {"positive", "negative"}
    for found in similar:
        neuron = two_sided_atlas.neuron(found.layer, found.neuron)
        assert (found.number, found.side) == (neuron.number, neuron.side)
        expected = f"Layer {found.layer}, neuron {neuron.number}, {neuron.side} side, feature {found.feature}"
        shared = ", shares its example" * found.shares_example
        assert str(found) == f"{expected}: similarity {found.similarity:.2f}{shared}"
    matches = two_sided_atlas.search("the", limit=50).peaks
    assert {match.side for match in matches} == {"positive", "negative"}
    for match in matches:
        assert match.neuron == match.number + HALF * (match.side == "negative")
        assert str(match).startswith(f"Layer {match.layer}, neuron {match.number}, {match.side} side, feature ")
    found = atlas.search("the", limit=50).peaks
    assert [match[:6] for match in found] == [(*match[:5], match.neuron) for match in matches]
    assert all(f"neuron {match.neuron}, feature" in str(match) for match in found)


def test_tables_run_over_units(two_sided_atlas, atlas):
    one, two = atlas.neurons_table(), two_sided_atlas.neurons_table()
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


def test_what_was_left_out_is_told_with_the_neuron(atlas, run):
    left = store_of(run, INPUTS)["repeats_left_out"]
    layer, index = divmod(int(left.argmax()), D_MLP)
    assert atlas.neuron(layer, index).repeats_left_out == left.max() > 0


def test_the_summary_counts_neurons_and_sides(two_sided_atlas):
    summary = summarize(two_sided_atlas)
    assert "3 layers of 32 gated neurons, each with a positive and a negative side" in summary
    assert "  neurons   96, counted as 192 sides, 65 of them dead (never firing in this corpus)" in summary
    assert "of the sides with 6 examples or more" in summary and "(medians over the sides that" in summary
    table = two_sided_atlas.neurons_table()
    best = two_sided_atlas.neuron(*divmod(int(np.nanargmin(table["mean_distance"])), D_MLP))
    assert f"  layer {best.layer}, neuron {best.number}, {best.side} side: mean distance" in summary
    layer, number, side = re.findall(r"^  layer (\d+), neuron (\d+), (\w+) side: mean distance", summary, re.M)[0]
    suffix = ", 'negative'" if side == "negative" else ""
    assert f"  print(atlas.neuron({layer}, {number}{suffix}))" in summary


@pytest.mark.slow
def test_pictures_name_the_side(two_sided_atlas, negative, tmp_path, monkeypatch):
    titles = []
    draw = Figure.suptitle
    monkeypatch.setattr(Figure, "suptitle", lambda self, text, **how: titles.append(text) or draw(self, text, **how))
    plot_neuron(negative, tmp_path / "neuron.png")
    plot_measures(two_sided_atlas, tmp_path)
    assert titles[0].startswith("Layer 2, neuron 3, negative side: ")
    assert titles[1].startswith("127 sides of neurons (65 dead ones left out) of ")
