"""An atlas opened: neurons, features, examples and texts against the stores and the tokenizer; damaged atlases."""

import math
import shutil
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from small_run import D_MLP, DEAD_LAYER, DEAD_NEURON, N_LAYERS, all_sequences
from stage_stores import layers_of, store_of

import nejax
from nejax.atlas.atlas import Atlas, open_atlas
from nejax.atlas.neuron import Neuron
from nejax.errors import UserError
from nejax.models.families.gpt2 import GPT2
from nejax.pipeline.passes.gather import WINDOW_AFTER, WINDOW_BEFORE
from nejax.pipeline.stages import run as stages
from nejax.pipeline.stages.inputs import INPUTS, inputs_of_layer
from nejax.pipeline.stages.run import Run, Settings
from nejax.pipeline.stages.similar import SIMILAR


@pytest.fixture(scope="module")
def neurons(atlas: Atlas) -> list[Neuron]:
    """All of them."""
    return [atlas.neuron(layer, index) for layer in range(N_LAYERS) for index in range(D_MLP)]


@pytest.fixture(scope="module")
def alive(neurons: list[Neuron]) -> list[Neuron]:
    """All that have examples."""
    return [neuron for neuron in neurons if neuron.n_examples]


def test_examples_are_those_of_the_stores(neurons, run):
    chosen, sequences = store_of(run, INPUTS), all_sequences(run)
    for neuron in neurons:
        store = {name: chosen[name][neuron.layer, neuron.index] for name in ("sequence", "position", "activation")}
        examples = neuron.examples
        assert len(examples) == neuron.n_examples
        for name, values in store.items():
            assert [getattr(example, name) for example in examples] == values[: neuron.n_examples].tolist()
        for example, window in zip(examples, chosen["window"][neuron.layer, neuron.index], strict=False):
            np.testing.assert_array_equal(example.activations, window[~np.isnan(window)].astype(np.float32))
            assert example.activations.dtype == np.float32
            start = example.position - example.peak
            length = sequences.length[example.sequence]
            assert start == max(0, example.position - WINDOW_BEFORE)
            stop = min(length, example.position + WINDOW_AFTER + 1)
            np.testing.assert_array_equal(example.tokens, sequences.tokens[example.sequence, start:stop])
            assert len(example.pieces) == len(example.activations) == len(example.tokens)
            # The peak was found in one pass and the window in another, with batches of another shape; float16 rounds
            # by up to 2**-11 of the value.
            assert example.activations[example.peak] == pytest.approx(example.activation, rel=2**-11 + 1e-5)


def test_measures_are_those_of_the_table(neurons, atlas):
    table = atlas.neurons_table()
    assert [name for name in table if not hasattr(neurons[0], name)] == ["id", "neuron"]
    for name, values in table.items():
        attribute = {"id": "layer", "neuron": "index"}.get(name, name)
        expected = table["layer"] if name == "id" else values
        np.testing.assert_array_equal([getattr(neuron, attribute) for neuron in neurons], expected, err_msg=name)


def test_features_divide_the_examples(alive):
    n_large = 0
    for neuron in alive:
        features = neuron.features
        assert [feature.index for feature in features] == list(range(neuron.n_features))
        sizes = [feature.n_examples for feature in features]
        assert sizes == sorted(sizes, reverse=True) == [len(feature.examples) for feature in features]
        assert sum(sizes) == neuron.n_examples
        for feature in features:
            assert {example.feature for example in feature.examples} == {feature.index}
            strengths = [example.activation for example in feature.examples]
            assert strengths == sorted(strengths, reverse=True)
            assert feature.max_activation == strengths[0]
            cohesions = [example.cohesion for example in feature.examples]
            if len(cohesions) == 1:
                assert feature.central is feature.examples[0]
                assert math.isnan(feature.cohesion)
                assert math.isnan(cohesions[0])
            else:
                # Cohesions are means of sums; the central example has the least sum, before it is rounded.
                assert feature.central in feature.examples
                assert feature.central.cohesion >= max(cohesions) - 1e-6
                assert feature.cohesion == pytest.approx(np.mean(cohesions), rel=1e-12)
                n_large += 1
    assert n_large > 100


def test_the_linkage_cut_at_the_height_gives_the_features(neurons):
    for neuron in neurons:
        labels = np.asarray(nejax.cut(neuron.linkage, neuron.height))
        assert (labels[neuron.n_examples :] == -1).all()
        features = [example.feature for example in neuron.examples]
        pairs = set(zip(labels[: neuron.n_examples].tolist(), features, strict=True))
        assert len(pairs) == neuron.n_features  # one label a feature, one feature a label
        assert neuron.cut(neuron.height).tolist() == features


def test_other_heights_give_coarser_and_finer_features(alive):
    for neuron in alive[::10]:
        assert neuron.cut(2.0).tolist() == [0] * neuron.n_examples
        assert sorted(neuron.cut(-1.0)) == list(range(neuron.n_examples))


def test_linkages_are_those_of_the_stores(neurons, run):
    found = layers_of(run)
    for neuron in neurons:
        np.testing.assert_array_equal(neuron.linkage.merges, found[neuron.layer]["merges"][neuron.index])
        assert neuron.linkage.n_merges == found[neuron.layer]["n_merges"][neuron.index]
        assert neuron.linkage.mask.sum() == neuron.n_examples


def test_directions_are_the_mean_unit_embeddings(alive, run):
    """Against float64 from the stored inputs and the model's weights.

    float16 rounds an entry by up to 2**-11 of it, or by 2**-25 if it is small, and the length with it.
    """
    model: GPT2 = run.loaded.model
    w_in, input_of = np.asarray(model.input_weights(), np.float64), store_of(run, INPUTS)["input_of"]
    inputs = [inputs_of_layer(run, layer) for layer in range(N_LAYERS)]
    for neuron in alive:
        rows = input_of[neuron.layer, neuron.index, : neuron.n_examples]
        embeddings = inputs[neuron.layer][rows] * w_in[neuron.layer, :, neuron.index]
        units = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
        for feature in neuron.features:
            mean = units[[example.feature == feature.index for example in neuron.examples]].mean(axis=0)
            expected = mean / np.linalg.norm(mean)
            assert feature.direction.dtype == np.float32
            np.testing.assert_allclose(feature.direction, expected, rtol=2**-10, atol=2**-24)
            assert np.linalg.norm(feature.direction) == pytest.approx(1, abs=1e-6)
            assert feature.direction @ expected > 1 - 1e-6


def test_similar_features_are_those_of_the_store(atlas, alive, run):
    store, table, n_listed = store_of(run, SIMILAR), atlas.features_table(), 0
    similarity = store["similarity"].astype(np.float16).astype(float)
    for neuron in alive:
        for feature in neuron.features:
            i = neuron.first_feature + feature.index
            others = store["feature"][i][store["feature"][i] >= 0]
            expected = [table[name][others].tolist() for name in ("layer", "neuron", "feature")]
            expected.append(similarity[i][: len(others)].tolist())
            assert [found[:4] for found in feature.similar] == list(zip(*expected, strict=True))
            assert all(found.number == found.neuron and not found.side for found in feature.similar)
            assert all((other.layer, other.neuron) != (neuron.layer, neuron.index) for other in feature.similar)
            n_listed += len(others)
    assert n_listed > 100


def test_texts_are_what_the_tokenizer_decodes(atlas, run):
    (tokens, length, *_), tokenizer = all_sequences(run), run.loaded.tokenizer
    assert atlas.n_sequences == len(tokens)
    for sequence, (row, n) in enumerate(zip(tokens, length, strict=True)):
        np.testing.assert_array_equal(atlas.tokens(sequence), row[:n])
        assert "".join(atlas.pieces(sequence)) == tokenizer.decode(row[:n])
        assert atlas.text(sequence) == tokenizer.decode(row[1:n])
        assert atlas.pieces(sequence)[0] == "<|endoftext|>"
        assert len(atlas.pieces(sequence)) == n


def test_sequences_are_parts_of_their_documents(atlas, settings):
    for sequence in range(atlas.n_sequences):
        document = (Path(settings.corpus.source) / atlas.document(sequence)).read_text(encoding="utf-8")
        # Where a sequence begins or ends within a character, its bytes there are no text.
        assert atlas.text(sequence).strip("\ufffd") in document


def test_windows_are_slices_of_the_sequences(alive, atlas):
    n_with_bos = n_straddling = 0
    for neuron in alive:
        for example in neuron.examples:
            start = example.position - example.peak
            pieces = atlas.pieces(example.sequence)
            assert example.pieces == pieces[start : start + len(example.tokens)]
            assert example.text == "".join(example.pieces).removeprefix("<|endoftext|>")
            assert example.text in atlas.text(example.sequence)
            assert example.document == atlas.document(example.sequence)
            before, peak, after = example.around_peak()
            assert peak == example.peak_text.strip() or not example.peak_text.strip()
            assert "".join((before + peak + after).split()) == "".join(example.text.replace("\n", "⏎").split())
            n_with_bos += start == 0
            n_straddling += not example.pieces[example.peak]
    assert n_with_bos > 100
    assert n_straddling > 20


def test_tables_make_data_frames(atlas, neurons):
    frame = pd.DataFrame(atlas.neurons_table())
    assert len(frame) == atlas.n_neurons == N_LAYERS * D_MLP
    assert set(frame.dtypes[["id", "layer", "n_examples", "first_feature"]]) == {np.dtype(np.int64)}
    assert set(frame.dtypes[["mean_distance", "height", "firing_rate"]]) == {np.dtype(np.float64)}
    assert frame.set_index("layer").loc[DEAD_LAYER, "mean_distance"].isna().all()

    features = pd.DataFrame(atlas.features_table())
    assert len(features) == frame["n_features"].sum()
    assert features.groupby("neuron_id")["n_examples"].sum().to_dict() == {
        neuron.layer * D_MLP + neuron.index: neuron.n_examples for neuron in neurons if neuron.n_examples
    }
    assert (features["cohesion"].isna() == (features["n_examples"] == 1)).all()
    some = features.iloc[77]
    feature = atlas.neuron(int(some["layer"]), int(some["neuron"])).features[some["feature"]]
    assert list(zip(some["peak_tokens"], some["peak_counts"], strict=True)) == feature.peak_tokens
    assert some["max_activation"] == feature.max_activation


def test_dead_neurons_can_be_looked_at(atlas):
    for place in (DEAD_NEURON, (DEAD_LAYER, 63)):
        neuron = atlas.neuron(*place)
        assert neuron.n_examples == neuron.n_features == 0
        assert neuron.examples == neuron.features == []
        assert neuron.cut(0.4).shape == (0,)
        assert math.isnan(neuron.mean_distance)
        assert str(neuron) == f"Layer {place[0]}, neuron {place[1]}: dead, it never fires in this corpus"


def test_neurons_features_and_examples_can_be_read(alive):
    for neuron in alive:
        lines = str(neuron).splitlines()
        assert lines[0].startswith(f"Layer {neuron.layer}, neuron {neuron.index}: {neuron.n_examples} example")
        for line, feature in zip(lines[2:], neuron.features[:8], strict=False):
            assert line == str(feature)
            assert f"[[{feature.central.around_peak()[1]}]]" in line
        assert all(len(line) <= 100 for line in lines)
        assert len(repr(neuron).splitlines()) == 1
        assert repr(neuron.features[0].peak_tokens[0][0]) in repr(neuron.features[0])
        assert repr(neuron.examples[0]).startswith("Example(sequence=")


@pytest.mark.parametrize(
    ("layer", "index", "message"),
    [
        (3, 0, "there is no layer 3 in this atlas; expected 0 to 2"),
        (-1, 0, "there is no layer -1 in this atlas; expected 0 to 2"),
        (0, 64, "there is no neuron 64 in this atlas; expected 0 to 63"),
        (2, -1, "there is no neuron -1 in this atlas; expected 0 to 63"),
    ],
)
def test_neurons_that_are_not_there(atlas, layer, index, message):
    with pytest.raises(UserError, match=message):
        atlas.neuron(layer, index)


def test_sequences_that_are_not_there(atlas):
    for read in (atlas.tokens, atlas.pieces, atlas.text, atlas.document):
        with pytest.raises(UserError, match=f"there is no sequence {atlas.n_sequences} in this atlas"):
            read(atlas.n_sequences)
        with pytest.raises(UserError, match="there is no sequence -1 in this atlas"):
            read(-1)


@pytest.mark.slow
def test_several_threads_read_the_same(atlas, run):
    fresh = open_atlas(run.directory.path)
    places = [(layer, index) for layer in (0, 2) for index in range(D_MLP)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda place: str(fresh.neuron(*place)), places))
    assert found == [str(atlas.neuron(*place)) for place in places]


@pytest.fixture
def elsewhere(run: Run, tmp_path: Path) -> Path:
    """A copy of the atlas, far from its run."""
    return Path(shutil.copytree(run.directory.path / "atlas", tmp_path / "a folder, 100% %41 #?"))


def test_an_atlas_is_all_that_is_needed(elsewhere, atlas, monkeypatch):
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("not needed")

    monkeypatch.setattr(stages, "load_model", refuse)
    before = {file: file.stat().st_mtime_ns for file in elsewhere.rglob("*")}
    copied = open_atlas(elsewhere)
    for layer in range(N_LAYERS):
        assert str(copied.neuron(layer, 3)) == str(atlas.neuron(layer, 3))
    assert copied.manifest == atlas.manifest
    assert copied.path == elsewhere
    assert before == {file: file.stat().st_mtime_ns for file in elsewhere.rglob("*")}  # no journal, no lock


def test_a_closed_atlas_is_not_called_damaged(elsewhere):
    atlas = open_atlas(str(elsewhere))
    atlas.close()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        atlas.neuron(0, 0)


def test_places_without_an_atlas(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for name, problem in (("nowhere", "does not exist"), ("file", "is a file"), ("empty", "there is no atlas in")):
        with pytest.raises(UserError, match=problem):
            open_atlas(tmp_path / name)


def test_an_unfinished_run_says_how_to_finish_it(tmp_path, settings: Settings):
    Run(tmp_path / "run", settings, quiet=True)
    with pytest.raises(UserError, match=r"the run .*run has no atlas yet; finish it: run experiments/build_atlas.py"):
        open_atlas(tmp_path / "run")
    (tmp_path / "run" / "atlas.partial").mkdir()
    (tmp_path / "run" / "atlas.partial" / "atlas.sqlite").write_text("")
    with pytest.raises(UserError, match="has no atlas yet"):
        open_atlas(tmp_path / "run")


def query(path: Path, *statements: str) -> None:
    with sqlite3.connect(path / "atlas.sqlite") as database:
        for statement in statements:
            database.execute(statement)
    database.close()


def cut_short(file: Path, n_bytes: int) -> None:
    file.write_bytes(file.read_bytes()[:n_bytes])


def drop_a_row(file: Path) -> None:
    np.save(file, np.load(file)[:-1])


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "database empty": lambda path: cut_short(path / "atlas.sqlite", 0),
    "database not one": lambda path: (path / "atlas.sqlite").write_text("nothing of the kind" * 1000),
    "database cut at a page": lambda path: cut_short(path / "atlas.sqlite", 8 * 4096),
    "database cut in a page": lambda path: cut_short(path / "atlas.sqlite", 100_000),
    "database without meta": lambda path: query(path, "DROP TABLE meta"),
    "database without a key": lambda path: query(path, "DELETE FROM meta WHERE key = 'd_mlp'"),
    "database without sides": lambda path: query(path, "DELETE FROM meta WHERE key = 'sides'"),
    "database with other sides": lambda path: query(path, "UPDATE meta SET value = '3' WHERE key = 'sides'"),
    "database with a broken value": lambda path: query(path, "UPDATE meta SET value = '{' WHERE key = 'manifest'"),
    "neurons missing": lambda path: query(path, "DELETE FROM neurons WHERE id > 150"),
    "features missing": lambda path: query(path, "DELETE FROM features WHERE id > 100"),
    "array missing": lambda path: (path / "window.npy").unlink(),
    "array cut": lambda path: cut_short(path / "window.npy", 5000),
    "array cut in the header": lambda path: cut_short(path / "merges.npy", 20),
    "array not one": lambda path: (path / "tokens.npy").write_text("nothing of the kind"),
    "similar features of another atlas": lambda path: drop_a_row(path / "similar.npy"),
    "similarity of another shape": lambda path: np.save(
        path / "similarity.npy", np.load(path / "similarity.npy")[:, :-1]
    ),
    "tokens of another atlas": lambda path: drop_a_row(path / "tokens.npy"),
    "directions of another atlas": lambda path: drop_a_row(path / "directions.npy"),
    "window of another shape": lambda path: np.save(path / "window.npy", np.load(path / "window.npy")[:, :-1]),
    "coordinates of another atlas": lambda path: drop_a_row(path / "coordinates.npy"),
    "histogram of another atlas": lambda path: drop_a_row(path / "histogram.npy"),
    "tokenizer missing": lambda path: shutil.rmtree(path / "tokenizer"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_when_the_atlas_is_opened(elsewhere, damage):
    DAMAGES[damage](elsewhere)
    with pytest.raises(UserError) as caught:
        open_atlas(elsewhere)
    message = str(caught.value)
    assert message.startswith(f"the atlas {elsewhere} is damaged (")
    assert message.endswith("delete this folder, and build or copy it again")
    assert "\n" not in message


def test_damage_inside_is_found_when_it_is_read(elsewhere):
    file = elsewhere / "atlas.sqlite"
    content = bytearray(file.read_bytes())
    content[4096:-4096] = b"\xff" * (len(content) - 8192)  # the root pages of the tables are among the first
    content[: 3 * 4096] = file.read_bytes()[: 3 * 4096]
    file.write_bytes(content)
    with pytest.raises(UserError, match="is damaged"):
        atlas = open_atlas(elsewhere)
        atlas.features_table()
    shutil.rmtree(elsewhere / "tokenizer")


def test_a_damaged_tokenizer_is_found_when_text_is_read(elsewhere):
    cut_short(elsewhere / "tokenizer" / "tokenizer.json", 500)
    atlas = open_atlas(elsewhere)
    assert atlas.tokens(0)[0] == 0
    with pytest.raises(UserError, match="is damaged"):
        atlas.text(0)


def test_another_format_is_refused(elsewhere):
    query(elsewhere, "UPDATE meta SET value = '3' WHERE key = 'format'")
    with pytest.raises(UserError, match="has format 3, this version of nejax reads 5; open it with the version that"):
        open_atlas(elsewhere)
