"""Folders that a test session makes once, whichever of its processes comes first."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that all processes of a test session copy, and none changes.

    A run must be copied even to be read: only one process can open it at a time.

    Args:
        factory: of the session.
        name: of the folder, one for each content.
        make: fills an empty folder; called by one process, while the others wait.
    """
    base = factory.getbasetemp()
    base = base.parent if base.name.startswith("popen-") else base  # of one of several processes
    folder, made = base / name, base / f"{name}.made"
    with FileLock(base / f"{name}.lock"):
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            made.touch()
    return folder
