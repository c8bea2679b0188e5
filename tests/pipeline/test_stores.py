"""The run directory: what is refused, what is read back, and what a kill leaves behind."""

import contextlib
import errno
import fcntl
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nejax.errors import UserError
from nejax.pipeline.run.directory import DamagedStore, RunDirectory, Store, pack_text, stop_on_full_disk, unpack_text

SETTINGS = {"model": "m", "keep": 8, "height": None, "min_fraction": 0.4}


def a_store() -> Store:
    """Every kind of array that a stage leaves, with the values that files tend to spoil."""
    rng = np.random.default_rng(0)
    return {
        "floats": np.array([[0.1, np.nan, -np.inf], [-0.0, 1e-45, 3e38]], np.float32),
        "halves": rng.normal(size=(300, 41)).astype(np.float16),
        "numbers": np.array([-1, 2**31 - 1], np.int32),
        "flags": np.array([True, False]),
        "scalar": np.float32(0.25),
        "text": pack_text(["a", "é"]),
    }


def assert_identical(a: Store, b: Store) -> None:
    assert a.keys() == b.keys()
    for name in a:
        x, y = np.asarray(a[name]), np.asarray(b[name])
        assert (x.dtype, x.shape) == (y.dtype, y.shape), name
        assert x.tobytes() == y.tobytes(), name


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


# --- text


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
)


@given(ANY_JSON)
@settings(deadline=None, derandomize=True, max_examples=40)
def test_text_comes_back_as_it_was(value):
    packed = pack_text(value)
    assert packed.dtype == np.uint8 and packed.ndim == 1 and len(packed) > 0
    assert unpack_text(packed) == value


def test_text_of_every_plane_of_unicode():
    names = ["ä", "日本語/ファイル.txt", "🎉", "\u2028", "a\x00b", '"\\', "\ud800", ""]
    assert unpack_text(pack_text(names)) == names


# --- stores


def test_a_store_comes_back_bit_for_bit(tmp_path):
    run = RunDirectory(tmp_path / "run", SETTINGS)
    run.save("one", a_store(), {"documents": 3})
    again = RunDirectory(tmp_path / "run", SETTINGS)
    read = again.load("one")
    assert_identical(read, a_store())
    assert all(isinstance(value, np.ndarray | np.generic) for value in read.values())
    facts = again.manifest["stages"]["one"]
    assert facts["documents"] == 3 and len(facts["digest"]) == 32


@pytest.mark.parametrize("change", ["value", "name", "type", "shape"])
def test_the_digest_sees_every_change(change, tmp_path):
    def digest(store: Store, where: str) -> str:
        run = RunDirectory(tmp_path / where, SETTINGS)
        run.save("one", store, {})
        return run.manifest["stages"]["one"]["digest"]

    store = {"a": np.zeros((2, 3), np.int32), "b": np.arange(4.0)}
    other = {
        "value": store | {"b": np.array([0, 1, 2, np.nextafter(3, 4)])},
        "name": {"c": store["a"], "b": store["b"]},
        "type": store | {"a": np.zeros((2, 3), np.float32)},
        "shape": store | {"a": np.zeros((3, 2), np.int32)},
    }[change]
    assert digest(store, "x") == digest(dict(reversed(store.items())), "y") != digest(other, "z")


def test_empty_arrays_come_back_too(tmp_path):
    """Orbax keeps none."""
    store = {"none": np.empty((0, 7), np.float16), "some": np.arange(3), "no_text": np.empty(0, np.uint8)}
    RunDirectory(tmp_path, SETTINGS).save("one", store, {})
    assert_identical(RunDirectory(tmp_path, SETTINGS).load("one"), store)


def test_a_store_that_the_manifest_does_not_call_done_is_made_again(tmp_path):
    """As a kill between the two leaves it, or in the middle of writing: under its own name, or a temporary one."""
    run = RunDirectory(tmp_path, SETTINGS)
    run.save("one", {"old": np.zeros(3)}, {})
    del run.manifest["stages"]["one"]
    run._write_manifest()
    shutil.copytree(tmp_path / "one", tmp_path / "one.orbax-checkpoint-tmp")
    for file in (tmp_path / "one").rglob("*"):
        if file.is_file():
            file.write_bytes(b"half")
    again = RunDirectory(tmp_path, SETTINGS)
    assert not again.is_done("one")
    again.save("one", a_store(), {})
    assert_identical(RunDirectory(tmp_path, SETTINGS).load("one"), a_store())


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("written")
    RunDirectory(path, SETTINGS).save("one", a_store(), {})
    return path


def cut_in_half(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def turn_bits(file: Path) -> None:
    content = bytearray(file.read_bytes())
    for i in range(len(content) // 4, len(content) // 4 + 200):
        content[i] ^= 0xFF
    file.write_bytes(content)


def empty(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut_in_half, turn_bits, empty, Path.unlink])
@pytest.mark.parametrize("which", ["largest", "metadata"])
def test_a_damaged_store_is_one_line_that_says_what_to_do(damage, which, written, tmp_path):
    run = shutil.copytree(written, tmp_path / "run")
    files = [file for file in (run / "one").rglob("*") if file.is_file()]
    damage(max(files, key=lambda file: file.stat().st_size) if which == "largest" else run / "one" / "_METADATA")
    with pytest.raises(UserError, match=r"^.*/one is damaged \(.*\); run the same command again") as error:
        RunDirectory(run, SETTINGS).load("one")
    assert len(one_line(error)) < 600


def test_a_store_that_is_gone_is_one_line(written, tmp_path):
    run = shutil.copytree(written, tmp_path / "run")
    shutil.rmtree(run / "one")
    with pytest.raises(UserError, match=r"^.*/one is damaged"):
        RunDirectory(run, SETTINGS).load("one")


def damaged_run(path: Path) -> RunDirectory:
    """Three stages done, the second one's store turned to rubbish, which a look has found."""
    run = RunDirectory(path, SETTINGS)
    for value, name in enumerate(("one", "two", "three")):
        run.save(name, {"x": np.full(3, value)}, {"n": value})
    for file in (path / "two").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    with pytest.raises(DamagedStore):
        run.load("two")
    return run


def test_a_damaged_stage_is_rebuilt_and_what_comes_after_stays_if_it_comes_out_the_same(tmp_path):
    digests = {name: facts["digest"] for name, facts in damaged_run(tmp_path).manifest["stages"].items()}
    again = RunDirectory(tmp_path, SETTINGS)
    assert not again.is_done("two") and again.is_done("one") and again.is_done("three")
    again.save("two", {"x": np.full(3, 1)}, {"n": 1})
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert "damaged" not in manifest and manifest["stages"].keys() == {"one", "two", "three"}
    assert all(manifest["stages"][name]["digest"] == digest for name, digest in digests.items())


def test_a_damaged_stage_that_comes_out_otherwise_takes_what_comes_after_along(tmp_path):
    run = damaged_run(tmp_path)
    run.save("two", {"x": np.full(3, 7)}, {})
    assert run.manifest["stages"].keys() == {"one", "two"} and "damaged" not in run.manifest


def test_a_digest_in_the_store_must_be_the_manifest_s_too(tmp_path):
    """A store taken from another run is whole, and not the one that was written here."""
    for name, value in (("a", 1), ("b", 2)):
        RunDirectory(tmp_path / name, SETTINGS).save("one", {"x": np.full(3, value)}, {})
    shutil.rmtree(tmp_path / "a" / "one")
    shutil.copytree(tmp_path / "b" / "one", tmp_path / "a" / "one")
    with pytest.raises(DamagedStore, match="its values are not those that were written"):
        RunDirectory(tmp_path / "a", SETTINGS).load("one")


# --- two processes


HOLD = """
import sys
from nejax.pipeline.run.directory import RunDirectory
run = RunDirectory(sys.argv[1], {})
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_a_second_process_is_refused_until_the_first_has_ended_in_whatever_way(tmp_path):
    first = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert first.stdout and first.stdout.readline() == b"held\n"
    before = (tmp_path / "manifest.json").read_bytes()
    for _ in range(2):
        with pytest.raises(UserError, match=f"^another process is working on {tmp_path}; wait for its end") as error:
            RunDirectory(tmp_path, {})
        one_line(error)
    assert (tmp_path / "manifest.json").read_bytes() == before
    first.kill()
    first.wait()
    RunDirectory(tmp_path, {})


def test_one_process_may_open_a_run_twice_and_lets_go_of_it(tmp_path):
    one = RunDirectory(tmp_path, SETTINGS)
    other = RunDirectory(tmp_path, SETTINGS)
    del one
    with pytest.raises(BlockingIOError):
        lock_as_another_process_would(tmp_path)
    del other
    lock_as_another_process_would(tmp_path)


def lock_as_another_process_would(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(descriptor)


# --- settings


def test_other_settings_are_refused_with_both_values(written):
    with pytest.raises(UserError) as error:
        RunDirectory(written, SETTINGS | {"keep": 9, "height": 0.25})
    line = one_line(error)
    assert "keep is 8 there and 9 now" in line and "height is null there and 0.25 now" in line
    assert "model is" not in line and str(written) in line


def test_a_setting_that_one_side_lacks_is_refused(written):
    with pytest.raises(UserError, match="new is null there and 1 now"):
        RunDirectory(written, SETTINGS | {"new": 1})
    with pytest.raises(UserError, match="keep is 8 there and null now"):
        RunDirectory(written, {name: value for name, value in SETTINGS.items() if name != "keep"})


def test_the_same_settings_are_accepted_whatever_json_makes_of_them(tmp_path):
    RunDirectory(tmp_path, {"shape": (1, 2), "x": 0.1, "name": "é"}).mark("done", {})
    RunDirectory(tmp_path, {"name": "é", "x": 0.1, "shape": [1, 2]})


def test_a_directory_in_which_nothing_was_done_is_bound_to_no_settings(tmp_path):
    """A command with a mistake in it may be mended and run again."""
    RunDirectory(tmp_path, SETTINGS | {"model": "misspelt"})
    assert RunDirectory(tmp_path, SETTINGS).manifest["settings"] == SETTINGS
    assert json.loads((tmp_path / "manifest.json").read_text())["settings"] == SETTINGS


# --- directories


def test_the_manifest(tmp_path):
    run = RunDirectory(tmp_path / "a" / "b", SETTINGS)
    run.mark("done", {"skipped": {"empty": 2}})
    manifest = json.loads((tmp_path / "a" / "b" / "manifest.json").read_text())
    assert manifest["settings"] == SETTINGS and manifest["stages"] == {"done": {"skipped": {"empty": 2}}}
    assert {"jax", "flax", "orbax-checkpoint", "numpy", "python", "backend"} <= manifest["versions"].keys()
    assert manifest["versions"]["numpy"] == np.__version__ and manifest["versions"]["backend"] == "cpu"
    assert [file.name for file in (tmp_path / "a" / "b").iterdir()] == ["manifest.json"]


def test_a_directory_of_something_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"holds files but no manifest\.json") as error:
        RunDirectory(tmp_path, SETTINGS)
    assert one_line(error) and [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_empty_directory_is_fine_and_one_killed_at_its_first_breath_too(tmp_path):
    (tmp_path / "manifest.partial").write_text('{"form')
    RunDirectory(tmp_path, SETTINGS)
    assert [file.name for file in tmp_path.iterdir()] == ["manifest.json"]
    (tmp_path / "empty").mkdir()
    RunDirectory(tmp_path / "empty", SETTINGS)


def test_a_file_or_a_place_that_cannot_be_a_directory_is_refused(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UserError, match="is a file"):
        RunDirectory(file, SETTINGS)
    with pytest.raises(UserError, match="cannot be written") as error:
        RunDirectory(file / "run", SETTINGS)
    one_line(error)


@pytest.mark.parametrize(
    "content",
    [
        "",
        '{"format": 2, "sett',
        "[1, 2]",
        "null",
        '"format"',
        '{"settings": {}}',
        '{"format": 2}',
        '{"format": 2, "settings": [], "stages": {}}',
        '{"format": 2, "settings": {}, "stages": 3}',
        "\udcff",
    ],
)
def test_a_manifest_of_something_else_is_one_line(content, tmp_path):
    (tmp_path / "manifest.json").write_text(content, errors="surrogateescape")
    with pytest.raises(UserError, match="is not a manifest of a run") as error:
        RunDirectory(tmp_path, SETTINGS)
    one_line(error)


def test_a_manifest_of_another_format_is_refused_with_both_values(tmp_path):
    RunDirectory(tmp_path, SETTINGS)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"format": 7}))
    with pytest.raises(UserError, match="has format 7, this version reads 2"):
        RunDirectory(tmp_path, SETTINGS)


# --- a full disk


def sqlite_full() -> sqlite3.Error:
    """What SQLite itself raises when it may not make its file longer."""
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        database.execute("PRAGMA max_page_count = 1")
        try:
            database.execute("CREATE TABLE t (x)")
        except sqlite3.Error as error:
            return error
    raise AssertionError("it had room")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        ValueError("RESOURCE_EXHAUSTED: write failed: No space left on device"),  # Orbax's tensorstore
        Exception("No space left on device (os error 28)"),  # tokenizers
        sqlite_full(),
    ],
)
def test_a_full_disk_is_one_line_that_says_where(error, tmp_path):
    refused = pytest.raises(UserError, match=r"the disk of .* is full; .* finished stages are kept")
    with refused as caught, stop_on_full_disk(tmp_path):
        raise error
    assert str(tmp_path) in one_line(caught)


@pytest.mark.parametrize(
    "error", [OSError(errno.EACCES, "Permission denied"), ValueError("something else"), sqlite3.Error("something else")]
)
def test_other_errors_pass_through(error, tmp_path):
    with pytest.raises(type(error), match=r"Permission denied|something else"), stop_on_full_disk(tmp_path):
        raise error
