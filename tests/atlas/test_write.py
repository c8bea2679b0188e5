"""What an atlas holds against the stores that it was written from; writing again, writing on a full disk."""

import errno
import json
import re
import shutil
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_run import D_MLP, DEAD_LAYER, DEAD_NEURON, N_LAYERS, all_sequences
from stage_stores import layers_of, store_of

from nejax.atlas import write
from nejax.atlas.atlas import Atlas, open_atlas
from nejax.atlas.build import atlas_of
from nejax.atlas.schema import SCHEMA
from nejax.errors import UserError
from nejax.models.formats.tokens import token_bytes
from nejax.neuron.polysemanticity import Polysemanticity
from nejax.pipeline.run.directory import RunDirectory, Store
from nejax.pipeline.stages import run as stages
from nejax.pipeline.stages.collect import COLLECT
from nejax.pipeline.stages.inputs import INPUTS, inputs_of_layer
from nejax.pipeline.stages.run import Run, Settings
from nejax.pipeline.stages.tokens import TOKENS


@pytest.fixture(scope="module")
def found(run: Run) -> list[Store]:
    """The stores of the features, a layer each."""
    return layers_of(run)


@pytest.fixture(scope="module")
def tables(run: Run) -> dict[str, list[sqlite3.Row]]:
    """All rows of all tables, read without the code under test."""
    database = sqlite3.connect(run.directory.path / "atlas" / "atlas.sqlite")
    database.row_factory = sqlite3.Row
    names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    rows = {name: database.execute(f"SELECT * FROM {name}").fetchall() for name in names}
    database.close()
    return rows


def array(run: Run, name: str) -> np.ndarray:
    return np.load(run.directory.path / "atlas" / f"{name}.npy")


def column(rows: list[sqlite3.Row], name: str) -> np.ndarray:
    """With NaN for NULL."""
    return np.array([np.nan if row[name] is None else row[name] for row in rows])


def test_neurons_have_the_measures_of_the_features_stage(tables, found):
    rows = tables["neurons"]
    assert [(row["id"], row["layer"], row["neuron"]) for row in rows] == [
        (layer * D_MLP + neuron, layer, neuron) for layer in range(N_LAYERS) for neuron in range(D_MLP)
    ]
    names = {**{name: name for name in Polysemanticity._fields}, "height": "height", "n_merges": "n_merges"}
    names["n_clusters"] = "n_features"
    for in_store, in_atlas in names.items():
        expected = np.concatenate([store[in_store] for store in found])
        np.testing.assert_array_equal(column(rows, in_atlas), expected.astype(float), err_msg=in_atlas)


def test_neurons_have_the_activity_of_the_collect_stage(tables, run):
    rows, store = tables["neurons"], store_of(run, COLLECT)
    n = store["count"].ravel().astype(float)
    np.testing.assert_array_equal(column(rows, "firing_rate"), store["n_fired"].ravel() / n)
    np.testing.assert_array_equal(column(rows, "max_activation"), store["activation"][..., 0].ravel().astype(float))
    np.testing.assert_array_equal(column(rows, "mean"), store["mean"].ravel().astype(float))
    variance, third, fourth = (store[name].ravel().astype(float) / n for name in ("m2", "m3", "m4"))
    expected = {"variance": variance}
    with np.errstate(invalid="ignore", divide="ignore"):
        varies = np.where(variance > 0, 1.0, np.nan)
        expected |= {"skewness": varies * third / variance**1.5, "kurtosis": varies * fourth / variance**2}
    for name, values in expected.items():
        np.testing.assert_allclose(column(rows, name), values, rtol=1e-5, err_msg=name)


def test_neurons_have_what_was_left_out(tables, run):
    left = store_of(run, INPUTS)["repeats_left_out"]
    assert left.shape == (N_LAYERS, D_MLP) and left.any()
    np.testing.assert_array_equal(column(tables["neurons"], "repeats_left_out"), left.ravel())
    assert left.sum() == run.directory.manifest["stages"]["inputs"]["repeats_left_out"]


def test_examples_are_those_of_the_stores_neuron_by_neuron(tables, run, found):
    chosen = store_of(run, INPUTS)
    neurons, features, examples = tables["neurons"], tables["features"], iter(tables["examples"])
    next_id = 0
    for layer in range(N_LAYERS):
        for neuron in range(D_MLP):
            row = neurons[layer * D_MLP + neuron]
            assert row["first_example"] == next_id
            for rank in range(row["n_examples"]):
                example = next(examples)
                at = (layer, neuron, rank)
                assert (example["id"], example["neuron_id"], example["rank"]) == (next_id, row["id"], rank)
                assert example["sequence"] == chosen["sequence"][at] >= 0
                assert example["position"] == chosen["position"][at]
                assert example["activation"] == chosen["activation"][at]
                cohesion = found[layer]["cohesion"][neuron, rank]
                assert example["cohesion"] == (None if np.isnan(cohesion) else cohesion)
                feature = features[example["feature_id"]]
                assert feature["neuron_id"] == row["id"]
                assert feature["feature"] == found[layer]["label"][neuron, rank]
                next_id += 1
            assert (chosen["sequence"][layer, neuron, row["n_examples"] :] == -1).all()
    assert next(examples, None) is None
    assert next_id == (chosen["sequence"] >= 0).sum() > 1000


def test_features_are_those_of_the_stores(tables, found):
    neurons, features, examples = tables["neurons"], tables["features"], tables["examples"]
    assert [row["id"] for row in features] == list(range(len(features)))
    assert len(features) == sum(row["n_features"] for row in neurons) > 200
    for row in neurons:
        layer, neuron = row["layer"], row["neuron"]
        label, cohesion = found[layer]["label"][neuron], found[layer]["cohesion"][neuron].astype(float)
        own = features[row["first_feature"] : row["first_feature"] + row["n_features"]]
        assert [feature["feature"] for feature in own] == list(range(row["n_features"]))
        for feature in own:
            ranks = np.flatnonzero(label == feature["feature"])
            assert feature["neuron_id"] == row["id"]
            assert feature["n_examples"] == len(ranks) > 0
            assert (
                feature["central_example"] - row["first_example"] == found[layer]["central"][neuron, feature["feature"]]
            )
            assert examples[feature["central_example"]]["feature_id"] == feature["id"]
            strongest = [examples[row["first_example"] + rank]["activation"] for rank in ranks]
            assert feature["max_activation"] == max(strongest)
            if len(ranks) == 1:
                assert feature["cohesion"] is None
            else:  # a float64 sum in another order
                assert feature["cohesion"] == pytest.approx(cohesion[ranks].mean(), rel=1e-12)


def test_peak_tokens_are_the_most_frequent_characters_or_tokens_at_the_peaks(tables, run):
    tokens, length, *_ = all_sequences(run)
    table = token_bytes(run.loaded.tokenizer)
    texts = [texts_by_bytes([table[token] for token in row[:n]]) for row, n in zip(tokens, length, strict=True)]
    n_straddling = 0
    for feature in tables["features"]:
        own = [row for row in tables["examples"] if row["feature_id"] == feature["id"]]
        peaks = [texts[row["sequence"]][row["position"]] for row in own]
        # Counter keeps ties in order of arrival, here strongest first.
        expected = Counter(text for text, _ in peaks).most_common(5)
        assert json.loads(feature["peak_tokens"]) == [list(pair) for pair in expected]
        n_straddling += sum(straddles for _, straddles in peaks)
    assert n_straddling > 20


def texts_by_bytes(tokens: list[bytes]) -> list[tuple[str, bool]]:
    """Each token's characters, by where these are among the bytes, and whether it has only parts of one.

    Bytes that belong to no character are one U+FFFD together.
    """
    characters = b"".join(tokens).decode(errors="surrogateescape")
    end_of = np.cumsum([len(character.encode(errors="surrogateescape")) for character in characters])
    texts, start = [], 0
    for token in tokens:
        first = np.searchsorted(end_of, start, side="right")
        last = np.searchsorted(end_of, start + len(token), side="left")
        text = characters[first : last + 1]
        texts.append((re.sub("[\udc80-\udcff]+", "\ufffd", text), text.encode(errors="surrogateescape") != token))
        start += len(token)
    return texts


def test_arrays_are_those_of_the_stores_without_empty_places(run, found):
    sequences, chosen = all_sequences(run), store_of(run, INPUTS)
    there = chosen["sequence"] >= 0
    assert array(run, "tokens").dtype == np.uint16
    np.testing.assert_array_equal(array(run, "tokens"), sequences.tokens)
    expected = np.stack([sequences.length, sequences.document, sequences.offset], axis=1)
    np.testing.assert_array_equal(array(run, "sequences"), expected)
    np.testing.assert_array_equal(array(run, "window"), chosen["window"][there])
    assert array(run, "window").dtype == np.float16
    np.testing.assert_array_equal(array(run, "merges"), np.concatenate([store["merges"] for store in found]))
    per_layer = [store["directions"] for store in found]
    assert len(per_layer[DEAD_LAYER]) == 0
    np.testing.assert_array_equal(array(run, "directions"), np.concatenate(per_layer))


def test_similar_features_are_by_the_inputs_of_central_examples(tables, run, settings):
    """Against all pairs, from the tables and the stores of inputs."""
    chosen, inputs, neuron = store_of(run, INPUTS), [], []
    distinct = [inputs_of_layer(run, layer) for layer in range(N_LAYERS)]
    for feature in tables["features"]:
        layer, index = divmod(feature["neuron_id"], D_MLP)
        rank = tables["examples"][feature["central_example"]]["rank"]
        inputs.append(distinct[layer][chosen["input_of"][layer, index, rank]])
        neuron.append(feature["neuron_id"])
    x = np.array(inputs, np.float64) / np.linalg.norm(inputs, axis=1, keepdims=True)
    similar, similarity = array(run, "similar"), array(run, "similarity")
    assert similar.shape == similarity.shape == (len(x), settings.similar.n)
    assert (similar.dtype, similarity.dtype) == (np.int32, np.float16)
    neuron = np.array(neuron)
    for i, cosine in enumerate(x @ x.T):
        cosine[neuron == neuron[i]] = -1
        expected = np.sort(cosine[cosine > settings.similar.threshold])[::-1][: settings.similar.n]
        n = len(expected)
        np.testing.assert_allclose(similarity[i, :n], expected, rtol=2**-11 + 1e-6)  # float16 rounds by 2**-11
        np.testing.assert_allclose(cosine[similar[i, :n]], expected, rtol=1e-6)
        assert (similar[i, n:] == -1).all() and np.isnan(similarity[i, n:]).all()
    n_listed = int((similar >= 0).any(axis=1).sum())
    facts = run.directory.manifest["stages"]["similar"]
    assert (facts["features"], facts["features_with_similar"]) == (len(x), n_listed)
    assert 0 < n_listed < len(x)
    assert {row["key"]: row["value"] for row in tables["meta"]}["n_similar"] == str(settings.similar.n)


def test_examples_are_found_by_sequence(run):
    database = sqlite3.connect(run.directory.path / "atlas" / "atlas.sqlite")
    (plan,) = database.execute("EXPLAIN QUERY PLAN SELECT * FROM examples WHERE sequence = 3").fetchall()
    database.close()
    assert "USING INDEX examples_by_sequence" in plan[-1]


def test_documents_and_manifest(tables, run):
    assert [row["name"] for row in tables["documents"]] == [
        name for names in TOKENS.of(run).documents() for name in names
    ]
    meta = {row["key"]: json.loads(row["value"]) for row in tables["meta"]}
    assert meta["manifest"]["settings"] == run.directory.manifest["settings"]
    assert meta["manifest"]["model"]["fingerprint"] == run.loaded.fingerprint
    assert (meta["n_layers"], meta["d_mlp"], meta["sides"], meta["d_model"]) == (N_LAYERS, D_MLP, 1, 32)
    facts = run.directory.manifest["stages"]["atlas"]
    assert facts["examples"] == len(tables["examples"])
    assert facts["features"] == len(tables["features"])


def test_dead_neurons_are_there_with_nothing(tables):
    dead = [row for row in tables["neurons"] if row["n_examples"] == 0]
    places = {(row["layer"], row["neuron"]) for row in dead}
    assert places == {DEAD_NEURON} | {(DEAD_LAYER, neuron) for neuron in range(D_MLP)}
    for row in dead:
        assert row["n_features"] == row["n_merges"] == row["firing_rate"] == 0
        assert row["mean_distance"] is row["max_distance"] is row["kurtosis"] is None
        assert row["max_activation"] == 0  # gelu(-100)


def test_array_files_grow_row_by_row(tmp_path):
    parts = [np.random.default_rng(n).normal(size=(n, 3)).astype(np.float16) for n in (0, 4, 0, 9997, 1)]
    with write._ArrayFile(tmp_path / "a.npy") as file:
        for part in parts:
            file.append(part[:, ::-1])  # not contiguous
    whole = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert whole.dtype == np.float16
    np.testing.assert_array_equal(whole, np.concatenate(parts)[:, ::-1])


@pytest.fixture
def copied(run: Run, settings: Settings, tmp_path: Path) -> Run:
    """The run without its atlas, in another directory."""
    shutil.copytree(run.directory.path, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "atlas")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    del manifest["stages"]["atlas"]
    for facts in manifest["stages"].values():
        facts["seconds"] = 12345.0
    (tmp_path / "run" / "manifest.json").write_text(json.dumps(manifest))
    copied = Run(tmp_path / "run", settings, quiet=True)
    copied.__dict__["loaded"] = run.loaded  # loading takes a while
    return copied


def contents(folder: Path) -> dict[str, bytes]:
    """But notes of sources: one as new as its file may be written again."""
    files = (file for file in folder.rglob("*") if file.is_file() and file.parent.name != "sources")
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def test_the_same_stores_give_the_same_bytes_however_long_they_took(run, copied):
    (copied.directory.path / "atlas.partial").mkdir()
    (copied.directory.path / "atlas.partial" / "stale").write_text("of a run that was killed")
    (copied.directory.path / "atlas").mkdir()
    (copied.directory.path / "atlas" / "stale").write_text("of a run that was killed before it noted its end")
    path = atlas_of(copied)
    assert contents(path) == contents(run.directory.path / "atlas")
    assert not (copied.directory.path / "atlas.partial").exists()
    assert copied.directory.is_done("atlas")


@pytest.mark.slow
def test_missing_stages_are_run_first(run, copied):
    for layer in (1, 2):
        name = f"features-{layer:02d}"
        del copied.directory.manifest["stages"][name]
        shutil.rmtree(copied.directory.path / name)
    assert contents(atlas_of(copied)) == contents(run.directory.path / "atlas")


def test_a_second_time_nothing_is_read_or_written(run, settings, monkeypatch):
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("not needed")

    monkeypatch.setattr(stages, "load_model", refuse)
    monkeypatch.setattr(RunDirectory, "load", refuse)
    path = run.directory.path / "atlas"
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*")}
    assert atlas_of(Run(run.directory.path, settings, quiet=True)) == path
    assert before == {file: file.stat().st_mtime_ns for file in path.rglob("*")}


@pytest.mark.slow
def test_without_similar_features(copied, settings):
    """The stage is off: no store, and arrays without columns, which are opened like others."""
    manifest = copied.directory.path / "manifest.json"
    changed = json.loads(manifest.read_text())
    changed["settings"]["similar"] = 0
    del changed["stages"]["similar"]
    manifest.write_text(json.dumps(changed))
    off = Run(copied.directory.path, settings.but(similar=0), quiet=True)
    off.__dict__["loaded"] = copied.loaded
    atlas = open_atlas(atlas_of(off))
    assert "similar" not in off.directory.manifest["stages"]
    assert array(off, "similar").shape == array(off, "similarity").shape == (len(atlas.features_table()["id"]), 0)
    assert [feature.similar for feature in atlas.neuron(0, 0).features] == [[]] * atlas.neuron(0, 0).n_features


def test_an_atlas_that_was_deleted_is_written_again(run, copied):
    atlas_of(copied)
    shutil.rmtree(copied.directory.path / "atlas")
    assert contents(atlas_of(copied)) == contents(run.directory.path / "atlas")


def fail_in_layer(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*args: Any) -> None:
        raise error

    monkeypatch.setattr(write, "layer_tables", fail)


def fill_disk_of_files(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_in_layer(monkeypatch, OSError(errno.ENOSPC, "No space left on device"))


def fill_disk_of_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "SCHEMA", ("PRAGMA max_page_count = 12", *SCHEMA))


def fill_disk_of_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    # What the tokenizers library raised on a full disk.
    fail_in_layer(monkeypatch, Exception("No space left on device (os error 28)"))


@pytest.mark.parametrize("fill_disk", [fill_disk_of_files, fill_disk_of_database, fill_disk_of_tokenizer])
def test_a_full_disk_is_named_and_leaves_the_run_as_it_was(copied, monkeypatch, fill_disk):
    before = contents(copied.directory.path)
    with monkeypatch.context() as patched:
        fill_disk(patched)
        with pytest.raises(UserError, match=r"the disk of .* is full; free some space and run the same command"):
            atlas_of(copied)
    assert contents(copied.directory.path) == before
    assert isinstance(open_atlas(atlas_of(copied)), Atlas)


def test_other_errors_pass_and_leave_nothing_behind(copied, monkeypatch):
    before = contents(copied.directory.path)
    fail_in_layer(monkeypatch, sqlite3.OperationalError("no such column"))
    with pytest.raises(sqlite3.OperationalError, match="no such column"):
        atlas_of(copied)
    assert contents(copied.directory.path) == before


@pytest.mark.parametrize("damage", ["cut", "turned", "gone"])
def test_an_atlas_with_a_damaged_file_is_named_and_written_again(damage, copied, capsys):
    folder = atlas_of(copied)
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    file = folder / "merges.npy"
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(before[file][:-8] if damage == "cut" else before[file][:-1] + b"\xff")
    capsys.readouterr()
    assert atlas_of(copied) == folder
    assert f"{folder} is damaged (merges.npy is" in capsys.readouterr().err
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before
    assert copied.directory.is_done("atlas") and "damaged" not in copied.directory.manifest
