"""The main script on a tiny model, in this process or in one of its own, which may have other devices."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import scripts
import tiny_run

ROOT = Path(__file__).parents[2]


class Command:
    """Builds atlases of one model and corpus: 2 layers of 48 neurons, 39 sequences.

    Args:
        factory: of the session; of a new folder for all runs.
    """

    def __init__(self, factory: pytest.TempPathFactory):
        self.folder, self.flags = factory.mktemp("runs"), tiny_run.flags_of(tiny_run.sources_of(factory))

    def start(self, run: str, *flags: str, devices: int = 1, **environment: str) -> subprocess.Popen[str]:
        """Start a process on the run of that name, with so many devices."""
        return subprocess.Popen(
            [
                sys.executable,
                ROOT / "experiments" / "build_atlas.py",
                *self.flags,
                f"--run={self.folder / run}",
                *flags,
            ],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=_on_devices(devices) | environment,
        )

    def python(self, code: str, *arguments: object, devices: int) -> subprocess.CompletedProcess[str]:
        """Run code in a process with so many devices."""
        command = [sys.executable, "-c", code, *map(str, arguments)]
        return subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, check=False, env=_on_devices(devices)
        )

    def end(self, run: str, *flags: str, devices: int = 1) -> tuple[int, str]:
        """Wait for a process's end; its exit status and what it said on standard error."""
        with stopped_at_last(self.start(run, *flags, devices=devices)) as [process]:
            _, said = process.communicate(timeout=600)
        return process.returncode, said

    def end_here(self, run: str, *flags: str) -> tuple[int, str]:
        """The same within this process, on its one device."""
        done = scripts.run("build_atlas", *self.flags, f"--run={self.folder / run}", *flags, cwd=self.folder)
        return done.returncode, done.stderr

    def finish_here(self, run: str, *flags: str) -> Path:
        """A finished run's folder; see `end_here`."""
        status, said = self.end_here(run, *flags)
        assert status == 0, said[-2000:]
        return self.folder / run

    def finish(self, run: str, *flags: str, devices: int = 1) -> Path:
        """A finished run's folder."""
        status, said = self.end(run, *flags, devices=devices)
        assert status == 0, said[-2000:]
        return self.folder / run

    def both(
        self, run: str, *flags: str, **environment: str
    ) -> contextlib.AbstractContextManager[list[subprocess.Popen[str]]]:
        """Start two processes that run as one, of one device each."""
        two = (self.start(run, *flags, "--n_processes=2", f"--process={i}", devices=1, **environment) for i in range(2))
        return stopped_at_last(*two)


def _on_devices(n: int) -> dict[str, str]:
    """The environment of a process with so many."""
    return os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(n)}


@contextlib.contextmanager
def stopped_at_last(*processes: subprocess.Popen[str]) -> Iterator[list[subprocess.Popen[str]]]:
    """Leave none of these processes behind, whatever happens."""
    try:
        yield [*processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
