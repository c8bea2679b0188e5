"""The script that kills runs: what it calls different, and two kills in earnest."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_run import tiny_run

from atlas.differences import differences

ROOT = Path(__file__).parents[2]


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


def kill(*arguments: str, cwd: Path, path: str = str(ROOT)) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "experiments" / "kill_and_resume.py"), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu"},
    )


@pytest.mark.slow
def test_two_kills_end_with_the_same_atlas(tmp_path: Path):
    done = kill("--kills=2", "--seed=1", "--run=out", "--", *tiny_run(tmp_path), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    result = json.loads((tmp_path / "out" / "kill_and_resume.json").read_text())
    assert len(result["kills"]) == 2 and result["uninterrupted_seconds"] > 1
    for found in result["kills"]:
        assert found["differences"] == [] and 0 < found["second"] <= result["uninterrupted_seconds"]
        assert f"{found['second']:.2f} s | {' '.join(found['done']) or 'nothing done yet'} | identical" in done.stdout
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["kill_and_resume.json"], "the runs are removed"
    assert "2 kills: 0 atlases differ" in done.stdout


@pytest.mark.slow
def test_an_atlas_that_differs_is_said_and_kept(tmp_path: Path):
    """Every process that ends by itself leaves its number in the atlas."""
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit, os, sys\nfrom pathlib import Path\n"
        "def leave():\n"
        "    run = [flag[6:] for flag in sys.argv if flag.startswith('--run=')]\n"
        "    if sys.argv[0].endswith('build_atlas.py'): Path(run[0], 'atlas', 'pid').write_text(str(os.getpid()))\n"
        "atexit.register(leave)\n"
    )
    flags = tiny_run(tmp_path)
    done = kill("--kills=1", "--run=out", "--", *flags, cwd=tmp_path, path=f"{tmp_path}:{ROOT}")
    assert done.returncode == 1, done.stdout + done.stderr[-2000:]
    assert "1 kills: 1 atlases differ" in done.stdout and "atlas/pid:" in done.stdout
    kept = {file.name for file in (tmp_path / "out").iterdir()}
    assert kept >= {"uninterrupted", "different-01", "different-01.log", "kill_and_resume.json"}
    [found] = json.loads((tmp_path / "out" / "kill_and_resume.json").read_text())["kills"]
    assert len(found["differences"]) == 1 and found["differences"][0].startswith("atlas/pid: ")


@pytest.mark.slow
def test_what_is_refused(tmp_path: Path):
    for arguments, said in [
        (["--", "--run=elsewhere"], "--run after --"),
        (["--kills=0"], "kills"),
        (
            ["--run=out", "--", "--model=nonexistent/folder/of/mine"],
            "build_atlas.py fails by itself, with exit status 2",
        ),
    ]:
        done = kill(*arguments, cwd=tmp_path)
        assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr[-2000:]
        assert said in done.stderr.splitlines()[-1]
