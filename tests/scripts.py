"""The scripts in `experiments/`, run as a process would run them, but in this one: a process spends seconds on imports.

What differs from a process of its own: JAX keeps the devices and the programs that it has.
"""

import contextlib
import gc
import importlib
import io
import os
import runpy
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from absl import app, flags

ROOT = Path(__file__).parent.parent
EXPERIMENTS = ROOT / "experiments"

app.define_help_flags()
_OF_ABSL = frozenset(flags.FLAGS)


def run(
    script: str, *arguments: str, cwd: Path | None = None, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a script as `__main__` to its end.

    Returns:
        Its exit status, and what it printed.

    Raises:
        BaseException: what a test raises inside it goes on, where it is no `Exception`; see `Killed`.
    """
    command = [str(EXPERIMENTS / f"{script}.py"), *arguments]
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2)]
    with (
        _as_new(command, stdin or ""),
        contextlib.chdir(cwd or Path.cwd()),
        contextlib.redirect_stdout(streams[0]),
        contextlib.redirect_stderr(streams[1]),
    ):
        try:
            runpy.run_path(command[0], run_name="__main__")
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(bool(end.code))
        except Exception:
            traceback.print_exc()
            status = 1
    stdout, stderr = (stream.buffer.getvalue().decode() for stream in streams)  # pyright: ignore[reportAttributeAccessIssue]
    return subprocess.CompletedProcess(command, status, stdout, stderr)


def module_of(script: str) -> ModuleType:
    """A script as a module, whose functions are tested. Its flags are forgotten: another script may have the same."""
    _forget_flags()
    try:
        return importlib.import_module(script)
    finally:
        _forget_flags()


class Killed(BaseException):
    """Ends a script where it stands, as far as this is possible within a process."""


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The one line in which a script refused what a user had caused: its last, with status 2 and no traceback."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2, done.stdout[-1000:] + done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    assert len(lines) == 1, done.stderr[-2000:]
    assert done.stderr.rstrip().endswith(lines[0])
    return lines[0].removeprefix("error: ")


def refusals(script: str, command_lines: list[list[str]], cwd: Path | None = None) -> list[str]:
    """What a script says to each of many wrong command lines."""
    return [refusal(run(script, *arguments, cwd=cwd)) for arguments in command_lines]


def start(
    script: str, *arguments: str, cwd: Path | None = None, path: Path | None = None, **environment: str
) -> subprocess.Popen[str]:
    """Start a script in a process of its own.

    Args:
        path: a folder whose modules come first, `sitecustomize.py` among them.
    """
    modules = os.pathsep.join(map(str, [path, ROOT] if path else [ROOT]))
    return subprocess.Popen(
        [sys.executable, str(EXPERIMENTS / f"{script}.py"), *arguments],
        cwd=cwd,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": modules, "JAX_PLATFORMS": "cpu"} | environment,
    )


def run_process(
    script: str,
    *arguments: str,
    cwd: Path | None = None,
    stdin: str = "",
    path: Path | None = None,
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    """The same in a process of its own, to its end."""
    with start(script, *arguments, cwd=cwd, path=path, **environment) as process:
        try:
            stdout, stderr = process.communicate(stdin, timeout=300)
        finally:
            process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


@contextlib.contextmanager
def _as_new(command: list[str], stdin: str) -> Iterator[None]:
    """No flags but absl's own; modules that define flags are imported anew."""
    argv, standard_input, locked = sys.argv, sys.stdin, _locked()
    _forget_flags()
    try:
        sys.argv, sys.stdin = command, io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8")
        yield
    finally:
        sys.argv, sys.stdin = argv, standard_input
        _forget_flags()
        if _locked() - locked:  # as long as they are referred to
            gc.collect()


def _locked() -> set[str]:
    """The run directories that this process holds."""
    folders = sys.modules.get("nejax.pipeline.run.folders")
    return set(folders._LOCKS) if folders else set()


def _forget_flags() -> None:
    """And the modules that define them, and the one that reads them."""
    for module in [*flags.FLAGS.flags_by_module_dict(), "nejax.scripts"]:
        if not module.startswith("absl."):
            sys.modules.pop(module, None)
    for name in [*flags.FLAGS]:
        if name in _OF_ABSL:
            flags.FLAGS[name].unparse()
        else:
            delattr(flags.FLAGS, name)
    flags.FLAGS.unparse_flags()
