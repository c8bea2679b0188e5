"""The script that kills runs: what it calls different, and a kill in earnest."""

import json
from pathlib import Path

import pytest
from scripts import refusal, run, run_process
from tiny_run import tiny_run

from atlas.differences import differences


def fake_run(folder: Path) -> Path:
    (folder / "atlas" / "tokenizer").mkdir(parents=True)
    (folder / "atlas" / "tokens.npy").write_bytes(bytes(range(200)))
    (folder / "atlas" / "tokenizer" / "tokenizer.json").write_text("{}")
    facts = {"tokens": {"digest": "d0", "seconds": 1.5}, "atlas": {"bytes": 202}}
    (folder / "manifest.json").write_text(json.dumps({"stages": facts}))
    return folder


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    return fake_run(tmp_path / "one"), fake_run(tmp_path / "other")


def test_identical_runs(two):
    manifest = two[1] / "manifest.json"
    manifest.write_text(manifest.read_text().replace("1.5", "9.75"))
    assert differences(*two) == [], "how long a stage took is no part of it"


def test_one_byte(two):
    file = two[1] / "atlas" / "tokens.npy"
    file.write_bytes(file.read_bytes()[:77] + b"\0" + file.read_bytes()[78:])
    assert differences(*two) == ["atlas/tokens.npy: 200 bytes, expected 200; the first that differs is byte 77"]


def test_a_truncated_file(two):
    file = two[1] / "atlas" / "tokens.npy"
    file.write_bytes(file.read_bytes()[:-1])
    assert differences(*two) == ["atlas/tokens.npy: 199 bytes, expected 200; the first that differs is byte 199"]


def test_files_in_one_run_only(two):
    (two[0] / "atlas" / "tokenizer" / "tokenizer.json").unlink()
    (two[1] / "atlas" / "tokens.npy").unlink()
    assert differences(*two) == [
        "atlas/tokenizer/tokenizer.json: only in the resumed run",
        "atlas/tokens.npy: only in the uninterrupted run",
    ]


def test_digests_and_stages(two):
    facts = {"tokens": {"digest": "d1"}, "plots": {}}
    (two[1] / "manifest.json").write_text(json.dumps({"stages": facts}))
    assert differences(*two) == [
        "stage atlas: done only in the uninterrupted run",
        "stage plots: done only in the resumed run",
        "stage tokens: digest d1, expected d0",
    ]


def test_nothing_at_all(two, tmp_path):
    assert len(differences(two[0], tmp_path / "absent")) == 4


@pytest.mark.slow
def test_killed_and_resumed_it_ends_with_the_same_atlas(tmp_path: Path):
    done = run("kill_and_resume", "--kills=1", "--seed=1", "--run=out", "--", *tiny_run(tmp_path), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    result = json.loads((tmp_path / "out" / "kill_and_resume.json").read_text())
    assert len(result["kills"]) == 1 and result["uninterrupted_seconds"] > 1
    for found in result["kills"]:
        assert found["differences"] == [] and 0 < found["second"] <= result["uninterrupted_seconds"]
        assert f"{found['second']:.2f} s | {' '.join(found['done']) or 'nothing done yet'} | identical" in done.stdout
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["kill_and_resume.json"], "the runs are removed"
    assert "1 kills: 0 atlases differ" in done.stdout


def test_an_atlas_that_differs_is_said_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In place of `build_atlas.py`, a script that leaves its process's number in the atlas."""
    script = tmp_path / "build.py"
    script.write_text(
        "import json, os, sys, time\nfrom pathlib import Path\n"
        "run = Path(sys.argv[-1].removeprefix('--run='))\n"
        "if not (run / 'atlas').exists(): (run / 'atlas').mkdir(parents=True); time.sleep(0.5)\n"
        "(run / 'atlas' / 'pid').write_text(str(os.getpid()))\n"
        "(run / 'manifest.json').write_text(json.dumps({'stages': {}}))\n"
    )
    with_name = Path.with_name
    monkeypatch.setattr(
        Path, "with_name", lambda self, name: script if name == "build_atlas.py" else with_name(self, name)
    )
    done = run("kill_and_resume", "--kills=1", "--run=out", cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr[-2000:]
    assert "1 kills: 1 atlases differ" in done.stdout and "atlas/pid:" in done.stdout
    kept = {file.name for file in (tmp_path / "out").iterdir()}
    assert kept >= {"uninterrupted", "different-01", "different-01.log", "kill_and_resume.json"}
    [found] = json.loads((tmp_path / "out" / "kill_and_resume.json").read_text())["kills"]
    assert len(found["differences"]) == 1 and found["differences"][0].startswith("atlas/pid: ")


@pytest.mark.slow
def test_what_is_refused(tmp_path: Path):
    assert "--run after --" in refusal(run("kill_and_resume", "--", "--run=elsewhere", cwd=tmp_path))
    assert "kills" in refusal(run("kill_and_resume", "--kills=0", cwd=tmp_path))
    absent = ["--run=out", "--", "--model=nonexistent/folder/of/mine"]
    said = refusal(run_process("kill_and_resume", *absent, cwd=tmp_path))
    assert "build_atlas.py fails by itself, with exit status 2" in said
