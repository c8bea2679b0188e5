"""The same small run on other devices and as two processes, each with the first: equal, but for rounding."""

from pathlib import Path

import pytest
from whole_runs import Command, free_port

from nejax.pipeline.compare.runs import compare_runs, open_finished
from nejax.pipeline.run.constants import TOLERANCE

pytestmark = pytest.mark.slow

MAY_JUMP_AFTER_A_TIE = {"fired", "merges", "silhouette"}


@pytest.fixture(scope="module")
def command(tmp_path_factory) -> Command:
    return Command(tmp_path_factory)


@pytest.fixture(scope="module")
def base(command: Command) -> Path:
    """On one device, one sequence at a time."""
    return command.finish_here("base", "--batch_size=1")


def assert_same(base: Path, other: Path) -> None:
    layers = [*compare_runs(open_finished(base), open_finished(other))]
    assert [layer.neurons for layer in layers] == [48, 48]
    for layer in layers:
        assert layer.kept and layer.chosen and layer.features
        assert layer.beyond == layer.kept.unexplained == layer.chosen.unexplained == layer.features.unexplained == 0
        for name, difference in layer.values._asdict().items():
            assert name in MAY_JUMP_AFTER_A_TIE or difference <= TOLERANCE == 1e-5, name
        assert layer.same_examples >= 0.9 * layer.neurons and layer.same_features >= 0.9 * layer.same_examples


ON_SOME_DEVICES = """
import sys
import jax
from nejax.pipeline.compare.runs import open_finished
from nejax.pipeline.run import devices
from nejax.pipeline.stages.order import STAGES
from nejax.pipeline.stages.run import Run

base, *folders = sys.argv[1:]
settings = open_finished(base).settings
meshes = [devices.mesh_of(some) for some in (jax.devices()[:2], jax.devices()[2:7])]
devices.mesh_of = None  # nothing else may choose devices
for folder, mesh in zip(folders, meshes, strict=True):
    run = Run(folder, settings, batch_size=7, mesh=mesh, quiet=True)
    for stage in STAGES[1:]:  # also those that the settings do not ask for
        stage.finish(run)
print(jax.device_count())
"""


def test_two_runs_of_a_process_have_devices_of_their_own(command: Command, base: Path):
    """Two and five of its eight: 48 neurons a layer are no multiple of 5, nor 39 sequences of any of the batches."""
    folders = [command.folder / "two", command.folder / "five"]
    done = command.python(ON_SOME_DEVICES, base, *folders, devices=8)
    assert done.stdout.strip() == "8", done.stderr[-2000:]
    for folder in folders:
        assert_same(base, folder)


def test_another_number_of_devices_gives_the_same(command: Command, base: Path):
    assert_same(base, command.finish("eight", "--batch_size=64", devices=8))


def test_two_processes_give_the_same(command: Command, base: Path):
    with command.both("processes", "--batch_size=7", f"--coordinator=127.0.0.1:{free_port()}") as both:
        ended = [process.communicate(timeout=600) for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    summaries = ["Most polysemantic" in out for out, _ in ended]
    assert summaries == [True, False], "the first one does the talking"
    assert_same(base, command.folder / "processes")
