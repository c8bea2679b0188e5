"""The explorer of an atlas as a browser finds it: served by its own server, or exported and served as plain files."""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from nejax.atlas.atlas import Atlas

ROOT = Path(__file__).parent.parent.parent.parent.parent
EXPLORE = [sys.executable, str(ROOT / "experiments" / "explore.py")]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


class Site(NamedTuple):
    """An explorer that can be visited."""

    address: str
    """Ends with "/"."""
    atlas: Atlas
    is_static: bool

    @property
    def origin(self) -> str:
        return "/".join(self.address.split("/")[:3])


@contextlib.contextmanager
def served(atlas: Atlas) -> Iterator[Site]:
    """By `experiments/explore.py`, on a free port."""
    command = [*EXPLORE, f"--atlas={atlas.path}", "--port=0"]
    with _listening(command, r"(http://127\.0\.0\.1:\d+/)") as address:
        yield Site(address, atlas, is_static=False)


@contextlib.contextmanager
def exported(atlas: Atlas, folder: Path, path: str) -> Iterator[Site]:
    """By `python -m http.server` below `path`, after an export into `folder`: the first to come makes it for all."""
    with FileLock(f"{folder}.lock"):
        if not (folder / path).exists():
            command = [*EXPLORE, f"--atlas={atlas.path}", f"--export={folder / path}"]
            subprocess.run(command, check=True, env=ENVIRONMENT)
    command = [sys.executable, "-m", "http.server", "0", "--bind=127.0.0.1", f"--directory={folder}"]
    with _listening(command, r"(http://127\.0\.0\.1:\d+/)") as address:
        yield Site(f"{address}{path}/", atlas, is_static=True)


@contextlib.contextmanager
def _listening(command: list[str], pattern: str) -> Iterator[str]:
    """A process, and the address that it prints."""
    # What it prints later goes nowhere: http.server's log would fill a pipe.
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=ENVIRONMENT
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(pattern, line)
            assert found, f"{command} said {line!r}"
            yield found[1]
        finally:
            process.terminate()
