"""Places where a folder cannot be made are refused in one line; what is not UTF-8 is refused where it enters."""

import os
from pathlib import Path

import numpy as np
import pytest

from nejax.atlas.files import find_atlas
from nejax.errors import UserError
from nejax.models.formats.files import read_json
from nejax.models.loading import load_model
from nejax.models.sae.files import load_sae
from nejax.pipeline.compare.runs import open_finished
from nejax.pipeline.run.directory import DamagedStore, RunDirectory
from nejax.pipeline.run.folders import make_folder

NOT_UTF8 = os.fsdecode(b"caf\xe9")


@pytest.mark.parametrize("open_it", [find_atlas, open_finished])
def test_a_demo_that_is_not_there(open_it, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for demo in ("runs/demo", tmp_path / "runs" / "demo"):
        with pytest.raises(UserError, match=r"runs/demo does not exist \(make demo makes it\); expected"):
            open_it(demo)
    with pytest.raises(UserError, match=r"^runs/other does not exist; expected"):
        open_it("runs/other")


def refused(work, *words: str) -> None:
    with pytest.raises(UserError) as error:
        work()
    assert "\n" not in str(error.value) and all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize("make", [make_folder, lambda path: RunDirectory(path, {})])
def test_a_broken_link_is_named_with_where_it_leads(make, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nothing")
    for path in (link, link / "below", link / "far" / "below"):
        refused(lambda: make(path), f"{link} is a link to {tmp_path / 'nothing'}, which does not exist")  # noqa: B023
    (tmp_path / "nothing").mkdir()
    make(link / "below")
    assert (tmp_path / "nothing" / "below").is_dir()


@pytest.mark.parametrize("make", [make_folder, lambda path: RunDirectory(path, {})])
def test_a_file_in_its_place_or_above_it(make, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    refused(lambda: make(file), "is a file; expected a ")
    refused(lambda: make(file / "below"), "cannot be written (Not a directory)")


@pytest.mark.parametrize(
    "work", [make_folder, lambda path: RunDirectory(path, {}), find_atlas, lambda path: load_model(str(path)), load_sae]
)
def test_names_that_are_not_utf8_are_refused(work, tmp_path):
    refused(lambda: work(tmp_path / NOT_UTF8), "caf\\udce9' is not UTF-8")
    assert not list(tmp_path.iterdir())


def test_half_a_character_in_a_configuration_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"hook_name": "caf\\ud83d"}')
    refused(lambda: read_json(tmp_path / "config.json"), "config.json cannot be read as JSON", "surrogates")
    (tmp_path / "config.json").write_text('{"hook_name": "caf\\ud83d\\ude00"}')
    assert read_json(tmp_path / "config.json") == {"hook_name": "caf😀"}


def test_a_run_all_of_whose_stages_were_damaged_is_still_of_its_settings(tmp_path):
    """Unfinished work in it may be of these."""
    run = RunDirectory(tmp_path, {"seed": 0})
    run.save("one", {"x": np.zeros(3)}, {})
    for file in filter(Path.is_file, (tmp_path / "one").rglob("*")):
        file.write_bytes(b"")
    with pytest.raises(DamagedStore):
        run.load("one")
    assert not run.manifest["stages"]
    refused(lambda: RunDirectory(tmp_path, {"seed": 1}), "seed is 0 there and 1 now")
    RunDirectory(tmp_path, {"seed": 0})
