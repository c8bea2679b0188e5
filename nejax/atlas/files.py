"""The files of an atlas, opened for reading and found whole."""

import json
import sqlite3
import threading
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from nejax.atlas.schema import ARRAYS, DATABASE, FORMAT, TOKENIZER
from nejax.errors import UserError


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

    def close(self) -> None:
        """Let go of the database. Nothing can be read from it after that."""
        self._database.close()

    def rows(self, query: str, *values: int) -> list[sqlite3.Row]:
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

    def damaged(self, error: Exception) -> UserError:
        """The error that says that a file cannot be read."""
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        return UserError(f"the atlas {self.path} is damaged ({reason}); delete this folder, and build or copy it again")

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
        n_neurons, n_features, n_examples = (
            self.rows(f"SELECT max(id) + 1 FROM {table}")[0][0] for table in ("neurons", "features", "examples")
        )
        expected = {
            "tokens": (len(arrays["sequences"]),),
            "sequences": (len(arrays["tokens"]), 3),
            "window": (n_examples, meta["window_before"] + 1 + meta["window_after"]),
            "directions": (n_features, meta["d_model"]),
            "merges": (n_neurons,),
        }
        for name, shape in expected.items():
            if arrays[name].shape[: len(shape)] != shape:
                raise ValueError(f"{name}.npy has shape {arrays[name].shape}, expected {shape} for its database")
        if n_neurons != meta["n_layers"] * meta["d_mlp"] or not (self.path / TOKENIZER).is_dir():
            raise ValueError("neurons or the tokenizer are missing")
