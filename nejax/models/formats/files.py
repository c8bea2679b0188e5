"""What every reader of model files needs: JSON objects, fingerprints, and short lists for messages."""

import functools
import hashlib
import json
import stat
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from nejax.errors import UserError

_TICK = 2_000_000_000
"""Nanoseconds: file systems keep times no coarser than that, so two writes further apart have different times."""


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        UserError: it cannot be read, is no JSON, or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        json.dumps(content, ensure_ascii=False).encode()  # JSON can spell half a character, which nothing else can
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}); get the file again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a JSON {type(content).__name__}, expected an object; get the file again")
    return content


def fingerprint_of(files: Iterable[Path]) -> str:
    """A digest of the contents of some files, 32 hexadecimal digits; files that do not exist are left out."""
    digest = hashlib.blake2b(digest_size=16)
    for path in filter(Path.is_file, files):
        digest.update(bytes.fromhex(digest_of_file(path)))
    return digest.hexdigest()


def stamp_of(path: Path) -> str | None:
    """A file's size and times: while they are the same, so is its content.

    A file younger than the resolution of a file system's clock can be overwritten without a change of its times: then,
    and for anything but a regular file, the result is None. `st_ctime` is included, since a program may set `st_mtime`
    back.
    """
    try:
        status = path.stat()
    except OSError:  # who reads it will say so
        return None
    newest = max(status.st_mtime_ns, status.st_ctime_ns)
    if not stat.S_ISREG(status.st_mode) or time.time_ns() - newest < _TICK:
        return None
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


def digest_of_file(path: Path) -> str:
    """A digest of a file's content, 128 hexadecimal digits. A file that has not changed since is not read again."""
    stamp = stamp_of(path)
    return _digest_at(path, stamp) if stamp else _digest(path)


@functools.lru_cache(maxsize=256)
def _digest_at(path: Path, stamp: str) -> str:
    return _digest(path)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def listed(items: Sequence[str]) -> str:
    """The first few, and how many more."""
    return ", ".join(items[:3]) + (f" and {len(items) - 3} more" if len(items) > 3 else "")
