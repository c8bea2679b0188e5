"""What happens to whole runs: a process is lost, a second one comes, stores are damaged, the disk is full."""

import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from test_same_everywhere import assert_same
from test_stores import turn_bits
from tiny_run import finished
from whole_runs import ROOT, Command, free_port

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def command(tmp_path_factory) -> Command:
    return Command(tmp_path_factory)


@pytest.fixture(scope="module")
def base(command: Command, tmp_path_factory) -> Path:
    """A run that nothing happened to."""
    return shutil.copytree(finished(tmp_path_factory), command.folder / "base")


def atlas_of(run: Path) -> dict[str, bytes]:
    files = [file for file in (run / "atlas").rglob("*") if file.is_file()]
    assert len(files) > 10
    return {str(file.relative_to(run)): file.read_bytes() for file in files}


def damage(store: Path) -> None:
    """Every file of an Orbax store's data: what stands in one is often in another as well."""
    for file in store.glob("d/*"):
        turn_bits(file) if file.stat().st_size > 300 else file.write_bytes(b"")


DIE_AFTER_A_CHECKPOINT = """
import os, signal, sys
from nejax.pipeline.run.checkpoints import Checkpoints
real = Checkpoints.save
def save(*arguments):
    real(*arguments)
    if "--process=" + os.environ["DIES"] in sys.argv: os.kill(os.getpid(), signal.SIGKILL)
Checkpoints.save = save
"""


@pytest.mark.parametrize("dies", [0, 1])
def test_one_of_two_processes_is_killed_while_they_collect(dies: int, command: Command, base: Path, tmp_path: Path):
    """In batches of 2 there are 20, with one checkpoint after 16 of them."""
    (tmp_path / "sitecustomize.py").write_text(DIE_AFTER_A_CHECKPOINT)
    hook = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "DIES": str(dies)}
    name, flags = f"lost-{dies}", ["--batch_size=2", "--checkpoint_seconds=0"]
    with command.both(name, *flags, f"--coordinator=127.0.0.1:{free_port()}", **hook) as both:
        _, said = both[1 - dies].communicate(timeout=600)
        both[dies].wait(timeout=60)
    assert both[dies].returncode == -9 and both[1 - dies].returncode not in (0, None)
    done = json.loads((command.folder / name / "manifest.json").read_text())["stages"]
    assert "tokens" in done and "collect" not in done
    assert [path.name for path in (command.folder / name / "collect.partial").iterdir()] == [f"{32:012d}"]
    if dies == 1:  # without process 0, which is the coordinator, jaxlib itself may end the other one, in its own words
        lines = [line for line in said.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1 and "another process of this run is lost" in lines[0], said[-2000:]
        assert both[0].returncode == 2 and "Traceback" not in said
    assert_same(base, command.finish(name, *flags, devices=2))


def test_a_second_command_on_a_run_at_work_is_refused(command: Command, base: Path):
    held = shutil.copytree(base, command.folder / "held")
    before = (held / "manifest.json").read_bytes()
    directory = os.open(held, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        status, said = command.end_here("held")
    finally:
        os.close(directory)
    assert status == 2 and said.splitlines()[-1].startswith(f"error: another process is working on {held}; wait")
    assert said.count("error: ") == 1 and "Traceback" not in said
    assert (held / "manifest.json").read_bytes() == before


def test_what_is_damaged_is_named_and_rebuilt(command: Command, base: Path):
    """Each store is damaged where something still has to read it: a layer's inputs, where its features are too."""
    seen = ("atlas/window.npy", "tokens-0000", "collect", "inputs", "similar")
    below = ("features-00", "inputs-00")
    for name, stores in (("seen", seen), ("below", below)):
        shutil.copytree(base, command.folder / name)
        for store in stores:
            path = command.folder / name / store
            turn_bits(path) if path.is_file() else damage(path)
    manifest = command.folder / "below" / "manifest.json"
    facts = json.loads(manifest.read_text())
    del facts["stages"]["atlas"]
    manifest.write_text(json.dumps(facts))
    ended = [command.end_here(name) for name in ("seen", "below")]
    for name, stores, (status, said) in zip(("seen", "below"), (seen, below), ended, strict=True):
        assert status == 0 and "Traceback" not in said, said[-2000:]
        damaged = [line for line in said.splitlines() if "damaged" in line]
        for store in stores:
            place = command.folder / name / store.partition("/")[0]
            [line] = [line for line in damaged if f"{place} is damaged (" in line]
            assert "rebuilding it" in line
        assert len(damaged) == len(stores)
        assert atlas_of(command.folder / name) == atlas_of(base)
        assert "damaged" not in json.loads((command.folder / name / "manifest.json").read_text())


def test_a_disk_that_is_full(command: Command, base: Path):
    """It fills up again and again: before the first sequences are stored, between stages, and while plots are drawn."""
    disk = command.folder / "disk"
    disk.mkdir()
    if os.geteuid() or not shutil.which("mount"):
        pytest.skip("only root can mount a small disk")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "none", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    try:
        for size, done in (("4k", set()), ("250k", {"collect"}), ("1060k", {"collect", "similar", "atlas"})):
            subprocess.run(["mount", "-o", f"remount,size={size}", disk], check=True)
            status, said = command.end("disk/run")
            assert status == 2 and "Traceback" not in said, said[-2000:]
            assert said.splitlines()[-1].startswith(f"error: the disk of {disk / 'run'} is full; free some space")
            assert said.count("error: ") == 1
            manifest = disk / "run" / "manifest.json"
            assert done <= (json.loads(manifest.read_text())["stages"].keys() if manifest.exists() else set())
        subprocess.run(["mount", "-o", "remount,size=16m", disk], check=True)
        assert atlas_of(command.finish("disk/run")) == atlas_of(base)
    finally:
        subprocess.run(["umount", disk], check=True)
