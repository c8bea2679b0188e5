"""What is saved comes back; the latest that is whole counts."""

import numpy as np
import pytest

from nejax.pipeline.run import checkpoints
from nejax.pipeline.run.checkpoints import Checkpoints


def store(value: float) -> dict[str, np.ndarray]:
    return {
        "counts": np.full(3, int(value), np.int64),
        "sums": np.array([[value, np.nan]], np.float64),
        "small": np.float32([value]),
    }


def assert_is(found: tuple[int, dict] | None, number: int, value: float) -> None:
    assert found is not None
    assert found[0] == number and found[1].keys() == store(0).keys()
    for name, array in store(value).items():
        assert found[1][name].dtype == array.dtype, name
        np.testing.assert_array_equal(found[1][name], array)


def test_the_latest_is_what_was_saved_last_and_the_one_before_it_is_kept(tmp_path):
    folder = tmp_path / "new" / "partial"
    saved = Checkpoints(folder, 0.0)
    assert saved.latest() is None and not folder.exists()
    for number, value in ((9, 2.0**53), (20, 0.1), (100, 2.5)):
        saved.save(number, store(value))
        assert_is(saved.latest(), number, value)
    assert sorted(int(path.name) for path in folder.iterdir()) == [20, 100]
    assert_is(Checkpoints(folder, 0.0).latest(), 100, 2.5)


def test_a_damaged_one_is_named_and_the_one_before_it_taken(tmp_path, capsys):
    saved = Checkpoints(tmp_path, 0.0)
    saved.save(1, store(1))
    saved.save(2, store(2))
    for file in (tmp_path / f"{2:012d}" / "d").iterdir():
        file.write_bytes(file.read_bytes()[::-1])
    assert_is(saved.latest(), 1, 1)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and f"{tmp_path}/{2:012d} is damaged (" in said[0]


def test_other_files_in_the_folder_are_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "000000000007.orbax-checkpoint-tmp").mkdir()  # what a kill leaves of an unfinished one
    saved = Checkpoints(tmp_path, 0.0)
    assert saved.latest() is None
    for number in range(4):
        saved.save(number, store(number))
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert_is(saved.latest(), 3, 3)


@pytest.mark.parametrize("seconds", [0.0, 50.0])
def test_one_is_due_when_the_time_is_over(seconds, tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now[0])
    saved = Checkpoints(tmp_path, seconds)
    assert saved.due() == (seconds == 0)
    now[0] += 50
    assert saved.due()
    saved.save(5, store(1))
    assert saved.due() == (seconds == 0)
    now[0] += 49
    assert saved.due() == (seconds == 0)


def test_without_a_folder_there_are_none():
    saved = Checkpoints(None, 0.0)
    assert saved.latest() is None and not saved.due()
