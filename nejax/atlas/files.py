"""The files of an atlas, checked and opened for reading."""

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from nejax.atlas.schema import ARRAYS, DATABASE, FOLDER, FORMAT, TOKENIZER
from nejax.errors import UserError, refuse_undecodable
from nejax.models.formats.tokens import saved_token_bytes
from nejax.pipeline.run.folders import refusal_of_run


def find_atlas(directory: Path | str) -> Path:
    """The folder of an atlas.

    Args:
        directory: that folder, wherever it was copied to, or the run directory that holds it.

    Raises:
        UserError: there is no such directory, or no atlas in it (its run is not finished, say).
    """
    given = Path(directory).expanduser()
    refuse_undecodable("atlas ", given.absolute())
    if not given.is_dir():
        expected = "expected the folder of an atlas, or a run directory that holds one"
        raise UserError(f"{refusal_of_run(given)}; {expected}")
    for path in (given, given / FOLDER):
        if (path / DATABASE).is_file():
            return path
    if (given / "manifest.json").is_file():
        raise UserError(
            f"the run {given} has no atlas yet; finish it: run experiments/build_atlas.py again with the same settings"
        )
    raise UserError(f"there is no atlas in {given}; expected {DATABASE}, or a run directory with a folder {FOLDER!r}")


class AtlasFiles:
    """The database and the arrays of an atlas, for use from several threads.

    Args:
        path: the atlas's own folder.

    Raises:
        UserError: a file is missing or damaged, or the format is of another version.
    """

    meta: dict[str, Any]
    """The table `meta`, without the format."""
    arrays: dict[str, np.ndarray]
    """Memory maps, by the names of `nejax.atlas.schema.ARRAYS`."""

    def __init__(self, path: Path):
        self.path = path.absolute()
        self._lock = threading.Lock()
        try:
            # `immutable`: no locks and no journal, so that it can lie on a read-only disk.
            address = f"file:{quote(str(self.path / DATABASE))}?mode=ro&immutable=1"
            self._database = sqlite3.connect(address, uri=True, check_same_thread=False)
        except sqlite3.Error as error:
            raise self.damaged(error) from error
        self._database.row_factory = sqlite3.Row
        try:
            self._read_meta()
            self.arrays = {name: np.load(self.path / f"{name}.npy", mmap_mode="r") for name in ARRAYS}
            self._refuse_misfits()
        except (OSError, ValueError, KeyError, TypeError) as error:
            self.close()
            raise error if isinstance(error, UserError) else self.damaged(error) from error

    def __reduce__(self) -> tuple[type, tuple[Path]]:
        """Pickled as its path, and opened again there."""
        return type(self), (self.path,)

    def close(self) -> None:
        """Close the database. Nothing can be read from it after that."""
        self._database.close()

    def rows(self, query: str, *values: int | str) -> list[sqlite3.Row]:
        """The result of a query.

        Raises:
            UserError: the database is damaged.
        """
        try:
            with self._lock:
                return self._database.execute(query, values).fetchall()
        except sqlite3.ProgrammingError:  # the database is closed
            raise
        except sqlite3.DatabaseError as error:
            raise self.damaged(error) from error

    def table(self, name: str) -> dict[str, np.ndarray]:
        """A whole table in order of id, one array a column: int64, float64 (NaN for NULL), or objects (text)."""
        types = {"INTEGER": np.int64, "REAL": np.float64, "TEXT": object}
        columns = [(row["name"], types[row["type"]]) for row in self.rows(f"PRAGMA table_info({name})")]
        values = zip(*self.rows(f"SELECT * FROM {name} ORDER BY id"), strict=True)
        return {column: np.array(value, dtype) for (column, dtype), value in zip(columns, values, strict=True)}

    def token_bytes(self) -> list[bytes]:
        """The bytes of each token, see `nejax.models.formats.tokens.token_bytes`.

        Raises:
            UserError: the tokenizer's file is damaged.
        """
        try:
            return saved_token_bytes(self.path / TOKENIZER)
        except Exception as error:  # the tokenizers library raises bare ones
            raise self.damaged(error) from error

    def damaged(self, error: Exception) -> UserError:
        """The error that says that a file cannot be read."""
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        return UserError(f"the atlas {self.path} is damaged ({reason}); delete this folder, and build or copy it again")

    @contextmanager
    def reading(self) -> Iterator[None]:
        """What does not fit together is damaged.

        Raises:
            UserError: a `ValueError`, `LookupError` or `TypeError` was raised.
        """
        try:
            yield
        except UserError:
            raise
        except (ValueError, LookupError, TypeError) as error:
            raise self.damaged(error) from error

    def _read_meta(self) -> None:
        self.meta = {key: json.loads(value) for key, value in self.rows("SELECT key, value FROM meta")}
        found = self.meta.pop("format")
        if found != FORMAT:
            raise UserError(
                f"the atlas {self.path} has format {found}, this version of nejax reads {FORMAT}; "
                "open it with the version that made it, or build it again"
            )

    def _refuse_misfits(self) -> None:
        """A file that was cut short or is of another atlas has another number of rows."""
        meta, arrays = self.meta, self.arrays
        if meta["sides"] not in (1, 2) or meta["d_mlp"] % meta["sides"]:
            raise ValueError(f"{meta['d_mlp']} units a layer are no neurons of {meta['sides']} sides")
        n_neurons, n_features, n_examples = (
            self.rows(f"SELECT max(id) + 1 FROM {table}")[0][0] for table in ("neurons", "features", "examples")
        )
        expected = {
            "tokens": (len(arrays["sequences"]),),
            "sequences": (len(arrays["tokens"]), 3),
            "window": (n_examples, meta["window_before"] + 1 + meta["window_after"]),
            "directions": (n_features, meta["d_model"]),
            "merges": (n_neurons,),
            "coordinates": (n_examples, 2),
            "histogram": (n_neurons,),
            "similar": (n_features, meta["n_similar"]),
            "similarity": (n_features, meta["n_similar"]),
            "importance": (n_examples, 0 if meta["importance_window"] is None else meta["importance_window"] + 1),
            "peak_places": (len(arrays["peak_features"]),),
            "bands": (n_neurons, max(len(meta["band_edges"]) - 1, 0)),
            "band_counts": (n_neurons, max(len(meta["band_edges"]) - 1, 0)),
        }
        for name, shape in expected.items():
            if arrays[name].shape[: len(shape)] != shape:
                raise ValueError(f"{name}.npy has shape {arrays[name].shape}, expected {shape} for its database")
        if n_neurons != meta["n_layers"] * meta["d_mlp"] or not (self.path / TOKENIZER).is_dir():
            raise ValueError("neurons or the tokenizer are missing")
