"""Folders that are written to: created, or refused in one line, and locked by one process at a time."""

import errno
import fcntl
import os
import sys
import weakref
from pathlib import Path

from nejax.errors import UserError, refuse_undecodable

DEMO = Path("runs/demo")
"""Where `make demo` writes."""


def refuse_no_folder(path: Path) -> None:
    """Refuse, before any work, a place where no folder can be made.

    Raises:
        UserError: its name is not UTF-8, or a file or a broken link is in its place.
    """
    refuse_undecodable("folder ", path)
    for place in (path, *path.parents):
        if place.is_symlink() and not place.exists():
            raise UserError(
                f"{place} is a link to {os.readlink(place)}, which does not exist; make that folder, remove the link, "
                "or name another folder"
            )
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file; expected a folder, or a name that is free")


def refusal_of_run(path: Path) -> str:
    """The message for a directory that is no run; for the demo's, the command that makes it."""
    if path.exists():
        return f"{path} is a file"
    return f"{path} does not exist" + (" (make demo makes it)" if path.absolute() == DEMO.absolute() else "")


def make_folder(path: Path) -> Path:
    """Make a folder, and those it is in; it may be there.

    Raises:
        UserError: see `refuse_no_folder`; or the system does not let it be made.
    """
    refuse_no_folder(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(f"{path} cannot be written ({error.strerror}); use another directory") from error
    return path


def lock(path: Path) -> object:
    """Lock a run directory until the result is closed, or the process ends for whatever reason."""
    key = str(path.resolve())
    held = _LOCKS.get(key)
    if held is None:
        held = _LOCKS[key] = _Lock(path)
    return held


class _Lock:
    def __init__(self, path: Path):
        descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"another process is working on {path}; wait for its end, stop it, or use another directory"
            ) from error
        except OSError as error:
            print(f"{path} cannot be locked ({error.strerror}): start no second process on it", file=sys.stderr)


_LOCKS: weakref.WeakValueDictionary[str, _Lock] = weakref.WeakValueDictionary()
