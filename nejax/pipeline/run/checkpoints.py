"""The state of unfinished work on disk, so that it resumes where it was stopped."""

import shutil
import sys
import time
from pathlib import Path

from nejax.pipeline.run.directory import Store, read_store, write_store
from nejax.pipeline.run.processes import as_first_says


class Checkpoints:
    """Stores of what a pass over the corpus knows so far, under the number of sequences behind each.

    Args:
        folder: made with the first checkpoint. None: there are no checkpoints.
        seconds: between checkpoints, at least; does not change the result.
    """

    def __init__(self, folder: Path | None = None, seconds: float = 60.0):
        self.folder, self.seconds, self.saved_at = folder, seconds, time.monotonic()

    def latest(self) -> tuple[int, Store] | None:
        """Sequences behind the latest checkpoint that is whole, and its store. A damaged one is named."""
        for path in reversed(self._all()):
            try:
                return int(path.name), read_store(path)
            except ValueError as error:
                print(f"the checkpoint {path} is damaged ({error}); going on from the one before", file=sys.stderr)
        return None

    def due(self) -> bool:
        """Whether it is time for another; the first process says so for all."""
        late = self.folder is not None and time.monotonic() - self.saved_at >= self.seconds
        return bool(as_first_says(late))

    def save(self, n_sequences: int, store: Store) -> None:
        """Write a checkpoint, and keep the one before it.

        Args:
            n_sequences: that have been seen.
            store: what is known of them.
        """
        assert self.folder
        write_store(self.folder / f"{n_sequences:012d}", store)
        for old in self._all()[:-2]:
            shutil.rmtree(old, ignore_errors=True)
        self.saved_at = time.monotonic()

    def _all(self) -> list[Path]:
        there = self.folder.iterdir() if self.folder and self.folder.is_dir() else ()
        return sorted(path for path in there if path.name.isdigit())
