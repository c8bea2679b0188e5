"""What a run was made from: stamps and digests that quickly show whether its texts and its model's files have changed.

A file is identified by its size and times; its content is read again only where these differ, or are too recent to be
reliable.
"""

import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from nejax.errors import UserError
from nejax.models.formats.files import digest_of_file, listed, stamp_of

Kind = Literal["file", "pipe", "remote"]
"""Kinds of parts: readable any time, only once, or only with network."""


class PartRead(NamedTuple):
    """What was read of a part of a corpus. It can be stored as JSON."""

    name: str
    stamp: str | None  # see `nejax.models.formats.files.stamp_of`; the revision of a dataset
    documents: int
    digest: str  # of the names and texts of these documents
    whole: bool  # whether it has no others


class Tally:
    """Counts the documents of a part, and digests them."""

    def __init__(self, name: str, stamp: str | None):
        self._name, self._stamp, self.documents = name, stamp, 0
        self._digest = hashlib.blake2b(digest_size=16)

    def add(self, name: str, text: str) -> None:
        """One more."""
        self.documents += 1
        for piece in (name.encode(), text.encode()):
            self._digest.update(len(piece).to_bytes(8))
            self._digest.update(piece)

    def so_far(self, *, whole: bool = False) -> PartRead:
        """The documents until now."""
        return PartRead(self._name, self._stamp, self.documents, self._digest.hexdigest(), whole)


def change_of(now: PartRead, before: PartRead) -> str:
    """How a part differs from an earlier reading that ended at the same place; empty if it does not."""
    if (now.documents, now.digest) == (before.documents, before.digest):
        return ""
    return (
        f"{spelled(before.name)} is not what it was (digest {before.digest[:8]} of {before.documents} documents there, "
        f"{now.digest[:8]} of {now.documents} now)"
    )


def refusal(source: str, changes: Sequence[str]) -> UserError:
    """The line that says what is not as it was."""
    return UserError(
        f"corpus {source!r} has other text than when this run began: {listed(changes)}; use the same "
        "texts again, or another directory for the run"
    )


def describe_files(files: Mapping[str, Path]) -> dict[str, dict[str, str | None]]:
    """The stamp and the digest of each file that is there, for `changed_files`."""
    return {
        name: {"stamp": stamp_of(path), "digest": digest_of_file(path)}
        for name, path in files.items()
        if path.is_file()
    }


def changed_files(files: Mapping[str, Path], before: Mapping[str, Mapping[str, str | None]]) -> list[str]:
    """The differences of some files from their description."""
    there = {name: path for name, path in files.items() if path.is_file()}
    changes = [f"{name} is gone" for name in before if name not in there]
    for name, path in there.items():
        if name not in before:
            changes.append(f"{name} is new")
        elif (before[name]["stamp"] is None or before[name]["stamp"] != stamp_of(path)) and (
            before[name]["digest"] != (now := digest_of_file(path))
        ):
            changes.append(f"{name} is not what it was (digest {str(before[name]['digest'])[:8]} there, {now[:8]} now)")
    return changes


def encoded(name: str) -> str:
    r"""A name that can be encoded in UTF-8: what cannot (half of a surrogate pair) is spelled out, as `\ud83d`."""
    return name.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def not_compared(why: object) -> None:
    """Report that it is not known whether something has changed."""
    print(f"note: not compared with what the run was made from: {why}", file=sys.stderr)


def spelled(name: str) -> str:
    """A name for a message, shortened to fit into a line."""
    name = encoded(name)
    return repr(name if len(name) <= 100 else f"{name[:60]}...{name[-30:]}")


class Sources:
    """What a run was made from, in a folder of its directory: what was read for each shard, and the model's files.

    Args:
        directory: of the run.
    """

    def __init__(self, directory: Path):
        self.path = directory / "sources"

    def keep(self, name: str, value: Any) -> None:
        """Write a JSON value, at once."""
        self.path.mkdir(exist_ok=True)
        partial = self.path / f"{name}.partial"
        with partial.open("w", encoding="utf-8") as file:
            json.dump(value, file)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(self.path / f"{name}.json")

    def kept(self, name: str) -> Any:
        """What was written; None if it is not there, or damaged: then nothing can be compared with it."""
        try:
            return json.loads((self.path / f"{name}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
