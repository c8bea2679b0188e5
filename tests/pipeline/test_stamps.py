"""Files are known by their size and times, where these tell, and else by their content."""

import json
import os
import time

import pytest

from nejax.models.formats import files as model_file_tools
from nejax.models.formats.files import digest_of_file, stamp_of
from nejax.pipeline.run.sources import changed_files, describe_files

OLD = time.time() - 1000


def test_a_young_file_has_no_stamp_and_an_old_one_has_its_size_and_times(tmp_path, old_clock, monkeypatch):
    file = tmp_path / "a"
    file.write_text("one")
    stamp = stamp_of(file)
    assert stamp and stamp == stamp_of(file) and stamp.startswith("3 ")
    assert stamp_of(tmp_path / "nothing") is None and stamp_of(tmp_path) is None
    monkeypatch.undo()
    assert stamp_of(file) is None


def test_a_stamp_sees_a_file_whose_time_was_set_back(tmp_path, old_clock):
    file = tmp_path / "a"
    file.write_text("one")
    os.utime(file, (OLD, OLD))
    before = stamp_of(file)
    time.sleep(0.02)  # the clock of the file system moves on
    file.write_text("two")
    os.utime(file, (OLD, OLD))
    assert file.stat().st_mtime == pytest.approx(OLD) and stamp_of(file) != before


def test_a_digest_is_not_remembered_of_a_file_too_young_to_tell(tmp_path):
    file, digests = tmp_path / "a", set()
    for text in ("one", "two", "six"):
        file.write_text(text)
        os.utime(file, ns=(10**18, 10**18))
        digests.add(digest_of_file(file))
    assert len(digests) == 3


def test_an_old_file_is_digested_once(tmp_path, old_clock, monkeypatch):
    file = tmp_path / "a"
    file.write_text("one")
    first = digest_of_file(file)
    monkeypatch.setattr(model_file_tools, "_digest", lambda path: pytest.fail("read again"))
    assert digest_of_file(file) == first


def test_files_of_a_model_that_are_gone_new_or_other_are_named(tmp_path, old_clock, monkeypatch):
    paths = {name: tmp_path / name for name in ("config.json", "model.safetensors", "merges.txt", "touched", "none")}
    for name in ("config.json", "model.safetensors", "touched"):
        paths[name].write_text(name)
    before = describe_files(paths)
    assert changed_files(paths, json.loads(json.dumps(before))) == []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nejax.pipeline.run.sources.digest_of_file", lambda path: pytest.fail("read again"))
        assert changed_files(paths, before) == []
    paths["config.json"].unlink()
    paths["model.safetensors"].write_text("MODEL.safetensors")  # of the same size
    paths["merges.txt"].write_text("")
    os.utime(paths["touched"], (OLD, OLD))
    changes = changed_files(paths, before)
    assert [line.split(" (")[0] for line in changes] == [
        "config.json is gone",
        "model.safetensors is not what it was",
        "merges.txt is new",
    ]
