"""The shards against what the opened atlas says, for every neuron, example and sequence of the small run."""

import contextlib
import json
import math
import shutil
import sqlite3
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import jsonschema_rs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster
from small_run import DEAD_LAYER, DEAD_NEURON

from nejax.atlas.atlas import Atlas
from nejax.atlas.explorer import shards as shards_module
from nejax.atlas.explorer.columns import COLUMNS
from nejax.atlas.explorer.openapi import describe
from nejax.atlas.explorer.shards import BLOCK, PAGE, NoShard, Shards, to_json
from nejax.atlas.files import AtlasFiles
from nejax.atlas.neuron import Neuron
from nejax.errors import UserError
from nejax.pipeline.stages.run import Run

Places = list[tuple[int, int]]

CLOSE = 5e-5
"""Of a number: half a unit of its fifth digit, where that digit counts most."""


@pytest.fixture(scope="module")
def places(atlas: Atlas) -> Places:
    """All neurons."""
    return [(layer, neuron) for layer in range(atlas.n_layers) for neuron in range(atlas.d_mlp)]


@pytest.fixture(scope="module")
def neurons(shards: Shards, places: Places) -> dict[tuple[int, int], Any]:
    """The shards of all neurons, as a browser gets them."""
    return {place: json.loads(to_json(shards.neuron(*place))) for place in places}


def same(value: float | None, expected: float) -> bool:
    """Whether a number of a shard is the one expected, null for NaN."""
    return value is None if math.isnan(expected) else value == pytest.approx(expected, rel=CLOSE, abs=1e-30)


def pairs(shard: dict[str, Any], example: dict[str, Any]) -> list[tuple[int, str]]:
    """The id and the text of each token of an example."""
    return [tuple(shard["tokens"][number]) for number in example["tokens"]]


def test_every_example_is_the_atlas_s(atlas, neurons):
    for (layer, index), shard in neurons.items():
        step = shard["activation_step"]
        for found, example in zip(shard["examples"], atlas.neuron(layer, index).examples, strict=True):
            assert [found[name] for name in ("sequence", "position", "feature", "document")] == [
                *(example.sequence, example.position, example.feature, example.document)
            ]
            assert same(found["activation"], example.activation) and same(found["cohesion"], example.cohesion)
            assert found["start"] == example.position - example.peak
            assert found["length"] == len(atlas.tokens(example.sequence))
            assert pairs(shard, found) == list(zip(example.tokens.tolist(), example.pieces, strict=True))
            np.testing.assert_allclose(
                np.array(found["activations"]) * step, example.activations, rtol=0, atol=0.501 * step
            )
        levels = [level for example in shard["examples"] for level in example["activations"]]
        assert not levels or 3990 <= max(map(abs, levels)) <= 4010
        used = {number for example in shard["examples"] for number in example["tokens"]}
        assert used == set(range(len(shard["tokens"])))


def test_characters_straddle_tokens_in_this_corpus(neurons):
    texts = {text for shard in neurons.values() for _, text in shard["tokens"]}
    assert "" in texts and {"é", "東", "🚀"} & texts


def test_every_feature_is_the_atlas_s(atlas, neurons):
    n_similar = n_shared = 0
    for place, shard in neurons.items():
        for found, feature in zip(shard["features"], atlas.neuron(*place).features, strict=True):
            assert found["n_examples"] == feature.n_examples
            assert same(found["cohesion"], feature.cohesion) and same(found["max_activation"], feature.max_activation)
            assert [tuple(pair) for pair in found["peak_tokens"]] == feature.peak_tokens
            central = shard["examples"][found["central"]]
            assert (central["sequence"], central["position"]) == (feature.central.sequence, feature.central.position)
            for (*where, similarity, shares), similar in zip(found["similar"], feature.similar, strict=True):
                assert where == [similar.layer, similar.neuron, similar.feature]
                assert same(similarity, similar.similarity)
                other = neurons[similar.layer, similar.neuron]
                there = other["examples"][other["features"][similar.feature]["central"]]
                shared = (there["sequence"], there["position"]) == (central["sequence"], central["position"])
                assert shares == similar.shares_example == shared
                n_similar, n_shared = n_similar + 1, n_shared + shared
    assert n_similar > n_shared > 0


def test_every_measure_is_the_table_s(shards, atlas, neurons):
    table = atlas.neurons_table()
    for column in COLUMNS:
        values = shards.column(column.name)
        for value, expected, shard in zip(values, table[column.name], neurons.values(), strict=True):
            assert same(value, expected)
            assert shard["measures"][column.name] == value
            assert isinstance(value, int) == column.integer


def first_and_largest(labels: np.ndarray) -> list[int]:
    """Clusters numbered from the largest, of equal ones from the one that is met first."""
    listed = labels.tolist()
    order = sorted(set(listed), key=lambda label: (-listed.count(label), listed.index(label)))
    return [order.index(label) for label in listed]


@pytest.mark.slow
def test_merges_cut_anywhere_give_the_features_of_the_atlas(atlas, neurons):
    n_cuts = 0
    for place, shard in neurons.items():
        neuron: Neuron = atlas.neuron(*place)
        merges = shard["merges"]
        assert len(merges) == max(neuron.n_examples - 1, 0)
        if not merges:
            continue
        assert merges[-1][3] == neuron.n_examples
        heights = [0.0, *(height for *_, height, _ in merges), 2.0]
        some = [(low + high) / 2 for low, high in pairwise(heights) if high - low > 1e-3][::3]
        for height in [shard["height"], *some]:
            labels = first_and_largest(fcluster(np.array(merges), height, "distance"))
            assert labels == neuron.cut(height).tolist()
            n_cuts += 1
        assert first_and_largest(fcluster(np.array(merges), shard["height"], "distance")) == [
            example["feature"] for example in shard["examples"]
        ]
    assert n_cuts > 400


def test_the_histogram_and_the_map_are_the_arrays_rows(run, shards, neurons):
    files, first = AtlasFiles(run.directory.path / "atlas"), 0
    arrays, meta = files.arrays, files.meta
    for number, shard in enumerate(neurons.values()):
        found, end = shard["histogram"], first + len(shard["examples"])
        assert found["counts"] == arrays["histogram"][number].tolist()
        assert sum(found["counts"]) == found["n_tokens"] == meta["n_sampled_tokens"]
        assert found["high"] == shard["measures"]["max_activation"] and found["low"] <= found["high"]
        x_y = [(example["x"], example["y"]) for example in shard["examples"]]
        np.testing.assert_allclose(
            np.array(x_y).reshape(-1, 2), arrays["coordinates"][first:end].astype(float), rtol=CLOSE
        )
        activations = [example["activation"] for example in shard["examples"]]
        assert shard["sampled"] == ([min(activations), max(activations)] if activations else None)
        assert activations == sorted(activations, reverse=True)
        first = end


def test_a_dead_neuron_has_nothing(neurons):
    for place in [DEAD_NEURON, (DEAD_LAYER, 3)]:
        shard = neurons[place]
        assert [shard[name] for name in ("features", "examples", "merges", "tokens")] == [[], [], [], []]
        assert shard["sampled"] is None and shard["activation_step"] > 0 and shard["height"] is not None


def test_every_sequence_and_all_examples_in_it(shards, atlas, neurons):
    held: dict[int, list[list]] = {}
    for place, shard in neurons.items():
        for example in shard["examples"]:
            row = [example["position"], *place, example["feature"], example["activation"]]
            held.setdefault(example["sequence"], []).append(row)
    offsets = AtlasFiles(atlas.path).arrays["sequences"][:, 2].tolist()
    n = 0
    for block in range(shards.n_blocks):
        shard = json.loads(to_json(shards.sequences(block)))
        assert shard["first"] == block * BLOCK == n
        for found in shard["sequences"]:
            assert pairs(shard, found) == list(zip(atlas.tokens(n).tolist(), atlas.pieces(n), strict=True))
            assert found["document"] == atlas.document(n) and found["offset"] == offsets[n]
            assert found["examples"] == sorted(held.get(n, []))
            n += 1
    assert n == atlas.n_sequences and n % BLOCK  # the last block is a part of one


def test_the_atlas_as_a_whole(shards, atlas):
    found = json.loads(to_json(shards.atlas()))
    assert found["n_neurons"] == atlas.n_neurons and found["n_sequences"] == atlas.n_sequences
    assert found["n_examples"] == atlas.neurons_table()["n_examples"].sum()
    assert found["seq_len"] == 32 and found["manifest"] == atlas.manifest
    facts = atlas.manifest["stages"]["tokens"]
    lost = facts["skipped"] | {"sequence that repeats another": facts["duplicate_sequences"]}
    lost |= {"end of a document, too short for a sequence": facts["short_windows"]}
    assert found["left_out"] == [f"{reason}: {n}" for reason, n in lost.items() if n]
    share = facts["duplicate_sequences"] / (facts["duplicate_sequences"] + facts["sequences"])
    assert found["warnings"] == [f"WARNING: {share:.0%} of the corpus's sequences repeat others and are left out"]
    assert (found["search"], found["compressed"], found["examples_per_feature"]) == ("server", False, None)
    assert [column["name"] for column in found["columns"]] == [column.name for column in COLUMNS]
    static = shards.atlas(search="index", compressed=True, examples_per_feature=4)
    assert {key for key in found if static[key] != found[key]} == {"search", "compressed", "examples_per_feature"}


def test_the_fingerprint_is_a_copy_s_too(shards, run, tmp_path: Path):
    copy = shutil.copytree(run.directory.path / "atlas", tmp_path / "copy")
    assert Shards(AtlasFiles(copy)).fingerprint == shards.fingerprint


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_few_texts_a_feature_are_the_central_and_the_strongest(shards, neurons, n):
    for place, whole in neurons.items():
        shard = shards.neuron(*place, examples_per_feature=n)
        with_text = {i for i, example in enumerate(shard["examples"]) if "tokens" in example}
        expected = set()
        for number, feature in enumerate(whole["features"]):
            own = [i for i, example in enumerate(whole["examples"]) if example["feature"] == number]
            others = [i for i in own if i != feature["central"]]
            expected |= {feature["central"], *others[: n - 1]}
        assert with_text == expected
        for i, (few, all_) in enumerate(zip(shard["examples"], whole["examples"], strict=True)):
            text = {"start", "tokens", "activations"}
            assert {key: few[key] for key in few if key not in text} == {
                key: all_[key] for key in all_ if key not in text
            }
            assert text.isdisjoint(few) != (i in with_text)
            if i in with_text:
                assert pairs(shard, few) == pairs(whole, all_)
        used = {number for i in with_text for number in shard["examples"][i]["tokens"]}
        assert used == set(range(len(shard["tokens"])))


def test_a_search_lists_what_there_is_in_pages(shards, atlas):
    found = atlas.search("river", limit=10**6)
    assert sorted(found.sequences) == [n for n in range(atlas.n_sequences) if "river" in atlas.text(n)]
    offsets = range(0, found.n_sequences + PAGE, PAGE)
    pages = [shards.search("RIVER", offset) for offset in offsets]
    assert list(chain(*(page["sequences"] for page in pages))) == found.sequences and pages[-1]["sequences"] == []
    assert {(page["n_sequences"], page["n_peaks"]) for page in pages} == {(found.n_sequences, found.n_peaks)}
    assert shards.search("river", 10**8, 10**8)["peaks"] == []


def test_all_features_of_a_search_can_be_asked_for(shards, atlas, monkeypatch):
    monkeypatch.setattr(shards_module, "PEAKS_PAGE", 7)
    expected = [list(match[:5]) for match in atlas.search("the", limit=10**6).peaks]
    assert len(expected) > 14
    pages = [shards.search("the", peaks_offset=offset)["peaks"] for offset in range(0, len(expected), 7)]
    assert json.loads(to_json(list(chain(*pages)))) == expected


def test_every_shard_is_as_described(shards, neurons):
    description = json.loads(to_json(describe(shards)))

    def fits(schema: str, shard: Any) -> None:
        reference = {"$ref": f"#/components/schemas/{schema}", "components": description["components"]}
        jsonschema_rs.validate(reference, json.loads(to_json(shard)))

    fits("Atlas", shards.atlas())
    fits("Search", shards.search("the"))
    fits("Description", description)
    for shard in neurons.values():
        fits("Neuron", shard)
    fits("Neuron", shards.neuron(0, 0, examples_per_feature=1))
    for block in range(shards.n_blocks):
        fits("Sequences", shards.sequences(block))
    for column in COLUMNS:
        fits("Column", shards.column(column.name))
    broken = {**neurons[0, 0], "merges": [[0, 1, 0.5]]}
    with pytest.raises(jsonschema_rs.ValidationError):
        fits("Neuron", broken)


@pytest.mark.parametrize(
    ("ask", "line"),
    [
        (lambda shards: shards.neuron(3, 0), "no layer 3; expected 0 to 2"),
        (lambda shards: shards.neuron(-1, 0), "no layer -1"),
        (lambda shards: shards.neuron(0, 64), "no neuron 64; expected 0 to 63"),
        (lambda shards: shards.sequences(shards.n_blocks), "no block"),
        (lambda shards: shards.column("id; DROP TABLE neurons"), "no measure"),
    ],
)
def test_what_is_not_there_is_refused(shards, ask, line):
    with pytest.raises(NoShard, match=line):
        ask(shards)


@pytest.mark.slow
@given(st.recursive(st.text(st.characters()) | st.integers(), st.lists))
def test_any_text_survives_json(value: Any):
    sent = to_json(value)
    assert json.loads(sent) == value
    sent.decode("ascii")
    assert not any(byte < 0x20 for byte in sent)


def test_json_has_no_nan():
    with pytest.raises(ValueError, match="JSON"):
        to_json([math.nan])


def damaged_copy(run: Run, folder: Path, name: str, change: Any) -> Shards:
    """The shards of a copy whose array is changed."""
    copy = shutil.copytree(run.directory.path / "atlas", folder / "copy")
    array = np.load(copy / f"{name}.npy")
    change(array)
    np.save(copy / f"{name}.npy", array)
    return Shards(AtlasFiles(copy))


@pytest.mark.parametrize(
    ("name", "value"),
    [("window", np.nan), ("tokens", 299 + 1), ("sequences", 10**6)],
    ids=["window", "tokens", "sequences"],
)
def test_what_does_not_fit_together_is_damaged(run, tmp_path, name, value):
    shards = damaged_copy(run, tmp_path, name, lambda array: array.fill(value))
    with pytest.raises(UserError, match="is damaged") as error:
        shards.neuron(0, 0)
    assert str(error.value).count("damaged") == 1 and "\n" not in str(error.value)


def test_activations_beyond_half_precision_are_its_largest(run, tmp_path):
    def overflow(array: np.ndarray) -> None:
        array[array == np.nanmax(array[0])] = np.inf

    example = damaged_copy(run, tmp_path, "window", overflow).neuron(0, 0)
    assert example["activation_step"] * max(example["examples"][0]["activations"]) == pytest.approx(65504, rel=1e-3)


def test_without_the_stage_of_similar_features_there_are_none(run, tmp_path):
    copy = shutil.copytree(run.directory.path / "atlas", tmp_path / "copy")
    for name in ("similar", "similarity"):
        np.save(copy / f"{name}.npy", np.load(copy / f"{name}.npy")[:, :0])
    with contextlib.closing(sqlite3.connect(copy / "atlas.sqlite")) as database, database:
        database.execute("UPDATE meta SET value = '0' WHERE key = 'n_similar'")
    shards = Shards(AtlasFiles(copy))
    assert shards.atlas()["n_similar"] == 0
    features = shards.neuron(0, 0)["features"]
    assert features and all(feature["similar"] == [] for feature in features)
