"""A set of digests of windows of tokens, on disk, since a corpus may be of any size."""

import sqlite3
from hashlib import blake2b
from pathlib import Path
from types import TracebackType

import numpy as np

_CACHE_KIB = 16 * 1024


class Digests:
    """A set of windows, each known by 16 bytes.

    Two different windows share a digest with a probability of 2**-128: never.

    Args:
        path: of the file, which is created, and deleted when the set is closed; None keeps all in memory. There is no
            journal: after a kill the file is useless.
    """

    def __init__(self, path: Path | None = None):
        self._path = path
        if path:
            path.unlink(missing_ok=True)
        # One thread makes and uses it, but another may close what that one left open.
        self._database = sqlite3.connect(path or ":memory:", isolation_level=None, check_same_thread=False)
        for line in (
            "PRAGMA journal_mode = OFF",
            "PRAGMA synchronous = OFF",
            f"PRAGMA cache_size = -{_CACHE_KIB}",
            "CREATE TABLE digests (digest BLOB PRIMARY KEY) WITHOUT ROWID",
            "BEGIN",
        ):
            self._database.execute(line)

    def add(self, window: np.ndarray) -> bool:
        """Add a window of tokens, [n] int32; whether it is new."""
        digest = blake2b(window.tobytes(), digest_size=16).digest()
        return self._database.execute("INSERT OR IGNORE INTO digests VALUES (?)", (digest,)).rowcount == 1

    def __enter__(self) -> "Digests":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._database.close()
        if self._path:
            self._path.unlink(missing_ok=True)
