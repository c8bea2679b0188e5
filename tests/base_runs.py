"""Folders that a test session makes once, whichever of its processes comes first, and copies of the runs in them."""

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from filelock import FileLock


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that all processes of a test session read, and none changes.

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


def copy_of(run: Path, to: Path, without: Iterable[str] = ()) -> Path:
    """A run's copy, as it was before some stages were done."""
    shutil.copytree(run, to)
    manifest = json.loads((to / "manifest.json").read_text())
    for stage in without:
        del manifest["stages"][stage]
        shutil.rmtree(to / stage, ignore_errors=True)
    (to / "manifest.json").write_text(json.dumps(manifest))
    return to
