"""Write an atlas: one SQLite file, arrays and the tokenizer, published at once by a rename."""

import contextlib
import hashlib
import json
import shutil
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nejax.atlas.schema import ARRAYS, DATABASE, FOLDER, FORMAT, INDEXES, SCHEMA, TOKENIZER
from nejax.atlas.tables import Columns, layer_tables
from nejax.atlas.texts import Texts
from nejax.atlas.word_index import index_piece, rows_of_places
from nejax.models.formats.tokens import token_bytes
from nejax.neuron.importance import token_importance
from nejax.pipeline.corpus.sequences import STAGE, SequenceShards, rows_by_piece
from nejax.pipeline.passes.census import Census
from nejax.pipeline.passes.census_tiles import EDGES
from nejax.pipeline.passes.gather import WINDOW_AFTER, WINDOW_BEFORE
from nejax.pipeline.passes.select import Chosen
from nejax.pipeline.passes.similar import Similar
from nejax.pipeline.run.directory import stop_on_full_disk
from nejax.pipeline.stages.importance import Importance
from nejax.pipeline.stages.order import Results


def write_atlas(results: Results, path: Path) -> dict[str, Any]:
    """Write the atlas of what the stages of a run found; runs nothing.

    It is written under another name and renamed when it is whole. Its bytes depend only on the results: a run that was
    interrupted ends with the same ones. The folder needs neither the model nor the run directory, and can be copied
    elsewhere.

    Args:
        results: from `nejax.pipeline.stages.order.results_of`; the features are read layer by layer, the sequences
            shard by shard.
        path: the atlas's folder, replaced if it is there.

    Returns:
        Facts for the manifest: the number of neurons, features and examples, the format, bytes, and each file's digest.

    Raises:
        UserError: the disk is full.
        DamagedStore: a store is not what was written.
    """
    partial = path.with_name(f"{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with stop_on_full_disk(path.parent):
            partial.mkdir()
            facts = _write_files(results, partial)
            shutil.rmtree(path, ignore_errors=True)
            partial.rename(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return facts


def damage_of(path: Path, facts: Mapping[str, Any]) -> str:
    """What is wrong with an atlas's folder, in words; nothing if all is right.

    Args:
        path: the folder.
        facts: from `write_atlas`.
    """
    if facts.get("format") != FORMAT:
        return f"its format is an earlier version's; this one writes format {FORMAT}"
    for name, digest in facts.get("files", {}).items():
        if not (path / name).is_file():
            return f"{name} is gone"
        if _digest(path / name) != digest:
            return f"{name} is not what was written"
    return ""


def _write_files(results: Results, folder: Path) -> dict[str, Any]:
    """Write the tokenizer, the arrays and the database; return facts for the manifest."""
    results.tokenizer.save_pretrained(folder / TOKENIZER)
    with contextlib.ExitStack() as stack:
        database = stack.enter_context(contextlib.closing(sqlite3.connect(folder / DATABASE, isolation_level=None)))
        for line in ("PRAGMA journal_mode = OFF", "PRAGMA synchronous = OFF", *SCHEMA, "BEGIN"):
            database.execute(line)
        arrays = {name: stack.enter_context(_ArrayFile(folder / f"{name}.npy")) for name in ARRAYS}
        table = token_bytes(results.tokenizer)
        peaks, places = _write_corpus(results.sequences, results.inputs.chosen, table, database, arrays)
        counts, feature_of = _write_layers(results, Texts(table), database, arrays)
        _write_peaks(feature_of[peaks], places, arrays)
        _write_similar(results.similar, counts["features"], arrays)
        _write_importance(results.importance, results.inputs.chosen, arrays["importance"])
        _write_bands(results.census, counts["neurons"], arrays)
        _write_meta(results, counts, database)
        for line in (*INDEXES, "COMMIT"):
            database.execute(line)
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    digests = {str(file.relative_to(folder)): _digest(file) for file in files}
    return counts | {"format": FORMAT, "bytes": sum(file.stat().st_size for file in files), "files": digests}


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _write_corpus(
    shards: SequenceShards,
    chosen: Chosen,
    table: Sequence[bytes],
    database: sqlite3.Connection,
    arrays: Mapping[str, "_ArrayFile"],
) -> tuple[np.ndarray, np.ndarray]:
    """Write the texts and their index; return of each term that an example peaks at the example and the place."""
    names = (name for of_shard in shards.documents() for name in of_shard)
    _insert_rows(database, "documents", ("id", "name"), enumerate(names))
    smallest = np.min_scalar_type(max(int(piece.tokens.max()) for piece in shards.stream()))
    position, found = chosen.position.ravel(), []
    for shard, (piece, examples, rows) in enumerate(rows_by_piece(shards.stream(), chosen.sequence)):
        first = arrays["tokens"].n_rows
        of_term, peaks, places = index_piece(piece.tokens, piece.length, table, rows, position[examples], first)
        _insert_rows(database, "words", ("word", "shard", "places"), rows_of_places(of_term, shard))
        found.append((examples[peaks], places))
        arrays["tokens"].append(piece.tokens.astype(smallest))
        arrays["sequences"].append(np.stack([piece.length, piece.document, piece.offset], axis=1))
    examples, places = map(np.concatenate, zip(*found, strict=True))
    return examples, places


def _write_peaks(features: np.ndarray, places: np.ndarray, arrays: Mapping[str, "_ArrayFile"]) -> None:
    order = np.lexsort((features, places))
    arrays["peak_places"].append(places[order])
    arrays["peak_features"].append(features[order])


def _write_layers(
    results: Results, texts: Texts, database: sqlite3.Connection, arrays: Mapping[str, "_ArrayFile"]
) -> tuple[dict[str, int], np.ndarray]:
    """Write what there is of every layer's neurons; return how many there are of what, and each example's feature."""
    inputs, collection, census = results.inputs, results.collection, results.census
    peaks_of_all = _texts_at_peaks(results.sequences, inputs.chosen, texts)
    feature_of = np.full(inputs.chosen.sequence.shape, -1, np.int32)
    n_features = n_examples = 0
    for layer, found in enumerate(results.features):
        there = inputs.chosen.sequence[layer] >= 0
        peaks = peaks_of_all[layer][there]
        tables = layer_tables(layer, found, inputs, collection, peaks, texts.texts, n_features, n_examples, census)
        for name, columns in tables._asdict().items():
            _insert(database, name, columns)
        feature_of[layer][there] = tables.examples["feature_id"]
        arrays["window"].append(inputs.window[layer][there])
        arrays["coordinates"].append(found.coordinates[there])
        arrays["histogram"].append(inputs.histogram[layer])
        arrays["directions"].append(found.directions)
        arrays["merges"].append(found.merges)
        n_features += len(tables.features["id"])
        n_examples += len(tables.examples["id"])
    counts = {"neurons": arrays["merges"].n_rows, "features": n_features, "examples": n_examples}
    return counts, feature_of.ravel()


def _texts_at_peaks(shards: SequenceShards, chosen: Chosen, texts: Texts) -> np.ndarray:
    """[n_layers, d_mlp, n_examples] int32: the number of the text at every example's peak; 0 where there is none."""
    numbers, position = np.zeros(chosen.sequence.shape, np.int32), chosen.position.ravel()
    for piece, examples, rows in rows_by_piece(shards.stream(), chosen.sequence):
        numbers.reshape(-1)[examples] = texts.numbers_at(piece.tokens, piece.length, rows, position[examples])
    return numbers


def _write_similar(found: Similar | None, n_features: int, arrays: Mapping[str, "_ArrayFile"]) -> None:
    found = found or Similar(np.empty((n_features, 0), np.int32), np.empty((n_features, 0), np.float32))
    arrays["similar"].append(found.feature)
    arrays["similarity"].append(found.similarity.astype(np.float16))


def _write_importance(found: Importance | None, chosen: Chosen, file: "_ArrayFile") -> None:
    """Of all examples, those that were not measured included: they have no importance."""
    there = chosen.sequence.reshape(-1) >= 0
    if found is None:
        file.append(np.empty((int(there.sum()), 0), np.float16))
        return
    activation = chosen.activation.reshape(-1)[found.example]
    of_tokens = np.asarray(token_importance(activation, found.without))[:, ::-1]  # as the text runs
    of_all = np.full((len(there), of_tokens.shape[1]), np.nan, np.float16)
    of_all[found.example] = of_tokens
    file.append(of_all[there])


def _write_bands(census: Census | None, n_neurons: int, arrays: Mapping[str, "_ArrayFile"]) -> None:
    if census is None:
        distance = count = np.empty((n_neurons, 0))
    else:
        distance, count = (x.reshape(n_neurons, -1) for x in (census.band_mean_distance, census.band_count))
    arrays["bands"].append(distance.astype(np.float32))
    arrays["band_counts"].append(count.astype(np.uint32))


def _write_meta(results: Results, counts: Mapping[str, int], database: sqlite3.Connection) -> None:
    manifest, inputs = results.manifest, results.inputs
    n_layers, d_mlp, _ = inputs.chosen.sequence.shape
    settings = manifest["settings"]
    # How long stages took differs from run to run; the atlas does not. How the sequences lie on disk is not its matter,
    # nor what is made of it: an atlas that was damaged is rebuilt after its plots were drawn.
    stages = {
        stage: {name: fact for name, fact in facts.items() if name != "seconds"}
        for stage, facts in manifest["stages"].items()
        if stage not in (FOLDER, "plots") and not stage.startswith(f"{STAGE}-")
    }
    meta = {
        "format": FORMAT,
        "manifest": {name: value for name, value in manifest.items() if name != "damaged"} | {"stages": stages},
        "n_layers": n_layers,
        "d_mlp": d_mlp,
        "sides": manifest["model"].get("sides", 1),
        "d_model": inputs.reference.shape[2],
        "window_before": WINDOW_BEFORE,
        "window_after": WINDOW_AFTER,
        "n_features": counts["features"],
        "n_examples": counts["examples"],
        "n_sampled_tokens": int(inputs.histogram[0, 0].sum()),
        "n_similar": settings["similar"],
        "importance_window": settings["importance_window"] if results.importance else None,
        "band_edges": list(EDGES) if results.census else [],
    }
    values = [json.dumps(value, sort_keys=True) for value in meta.values()]
    _insert(database, "meta", {"key": np.array(list(meta), object), "value": np.array(values, object)})


def _insert(database: sqlite3.Connection, table: str, columns: Columns) -> None:
    """Add rows to a table. SQLite stores NaN as NULL."""
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    _insert_rows(database, table, tuple(columns), rows)


def _insert_rows(database: sqlite3.Connection, table: str, columns: Sequence[str], rows: Iterable[tuple]) -> None:
    statement = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
    database.executemany(statement, rows)


class _ArrayFile:
    """A `.npy` file that grows by rows, so that no more than a layer is held at once.

    NumPy leaves room in the header for the first axis to grow in place. A full disk is an error here; through a memory
    map it would kill the process.
    """

    def __init__(self, path: Path):
        self.file = path.open("wb")
        self.n_rows = 0
        self.row = np.empty(0)

    def append(self, rows: np.ndarray) -> None:
        """Add rows; the first ones decide their type and shape."""
        if not self.n_rows:
            self.row = rows[:0]
            self._write_header()
        self.file.write(np.ascontiguousarray(rows, self.row.dtype).data)
        self.n_rows += len(rows)

    def _write_header(self) -> None:
        self.file.seek(0)
        header = np.lib.format.header_data_from_array_1_0(self.row)
        header["shape"] = (self.n_rows, *self.row.shape[1:])
        np.lib.format.write_array_header_1_0(self.file, header)

    def __enter__(self) -> "_ArrayFile":
        return self

    def __exit__(self, *error: object) -> None:
        with self.file:
            if error[0] is None:
                self._write_header()
