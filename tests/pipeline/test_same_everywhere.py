"""The same small run on other numbers of devices and as two processes, each with the first: equal, but for rounding."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from whole_runs import Command, free_port

from nejax.pipeline.compare.runs import compare_runs, open_finished
from nejax.pipeline.run.constants import TOLERANCE

pytestmark = pytest.mark.slow

MAY_JUMP_AFTER_A_TIE = {"fired", "merges", "silhouette"}


@pytest.fixture(scope="module")
def command(tmp_path_factory) -> Command:
    return Command(tmp_path_factory.mktemp("same"))


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


def test_other_numbers_of_devices_give_the_same(command: Command, base: Path):
    """48 neurons a layer are no multiple of 5 devices, nor 39 sequences of any of the batches."""
    ways = {"two": (2, 7), "eight": (8, 64), "five": (5, 1)}
    with ThreadPoolExecutor(2) as pool:
        made = [pool.submit(command.finish, name, f"--batch_size={n}", devices=d) for name, (d, n) in ways.items()]
    for other in made:
        assert_same(base, other.result())


def test_two_processes_give_the_same(command: Command, base: Path):
    with command.both("processes", "--batch_size=7", f"--coordinator=127.0.0.1:{free_port()}") as both:
        ended = [process.communicate(timeout=600) for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    summaries = ["Most polysemantic" in out for out, _ in ended]
    assert summaries == [True, False], "the first one does the talking"
    assert_same(base, command.folder / "processes")
