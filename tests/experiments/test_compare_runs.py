"""The script that compares two runs: its table, its figures, its exit status."""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import tiny_run
from scripts import refusals, run, run_process

pytestmark = pytest.mark.slow
compare = partial(run, "compare_runs")


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """`a`; `b`: other batches, on one device, with other instructions, which round otherwise; `c`: in bfloat16."""
    folder, flags = tmp_path_factory.mktemp("runs"), tiny_run.flags_of(tiny_run.sources_of(tmp_path_factory))
    shutil.copytree(tiny_run.finished(tmp_path_factory), folder / "a")
    other = "--xla_force_host_platform_device_count=1 --xla_cpu_max_isa=AVX"
    for done in (
        run_process("build_atlas", *flags, f"--run={folder / 'b'}", "--batch_size=5", XLA_FLAGS=other),
        run("build_atlas", *flags, f"--run={folder / 'c'}", "--precision=bfloat16"),
    ):
        assert done.returncode == 0, done.stderr[-2000:]
    return folder


def test_of_one_precision_all_is_explained(runs, tmp_path):
    done = run_process("compare_runs", str(runs / "a"), str(runs / "b"))
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    result = json.loads((runs / "b" / "compare.json").read_text())
    assert result["unexplained"] == 0 and result["precisions"] == ["float32", "float32"]
    assert len(result["layers"]) == 2
    for number, layer in enumerate(result["layers"]):
        assert 30 < layer["neurons"] <= 48 and layer["jaccard"]["mean"] > 0.99
        assert layer["values"]["activation"] < 1e-5
        assert f"\n{number:5}  {layer['neurons']:7}  " in done.stdout
    assert f"{result['near_ties']} near-ties, 0 unexplained differences, 0 neurons" in done.stdout
    assert "Traceback" not in done.stderr


def test_what_is_unexplained_ends_with_status_1(runs, tmp_path):
    """With no tolerance at all every rounding is; a run is still the same as itself."""
    out = tmp_path / "figures" / "strict.json"
    done = compare(str(runs / "a"), str(runs / "b"), "--tolerance=0", f"--out={out}")
    unexplained = json.loads(out.read_text())["unexplained"]
    differ = any(layer["values"]["activation"] > 0 for layer in json.loads(out.read_text())["layers"])
    assert done.returncode == (1 if unexplained else 0) and bool(unexplained) >= differ
    same = compare(str(runs / "a"), str(runs / "a"), "--tolerance=0", f"--out={out}")
    assert same.returncode == 0 and json.loads(out.read_text())["unexplained"] == 0


def test_of_two_precisions_it_is_said_how_far_they_agree(runs):
    done = compare(str(runs / "a"), str(runs / "c"))
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads((runs / "c" / "compare.json").read_text())
    assert "unexplained" not in result and "ARI" in done.stdout and "unexplained" not in done.stdout
    for layer in result["layers"]:
        jaccard, ari = layer["jaccard"], layer["adjusted_rand_index"]
        assert 0 <= jaccard["5th_percentile"] <= jaccard["median"] <= 1 and 0.5 < jaccard["mean"] <= 1
        assert ari["5th_percentile"] <= ari["median"] <= 1
        assert 0 <= layer["mean_distance_difference"]["median"] <= layer["mean_distance_difference"]["95th_percentile"]
        assert layer["n_features_difference"]["median"] >= 0


def test_what_is_refused(runs, tmp_path):
    other = shutil.copytree(runs / "b", tmp_path / "other")
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["settings"]["max_repeats"] = 5
    (other / "manifest.json").write_text(json.dumps(manifest))
    refused = {
        "is not a run": [str(runs / "a"), str(runs)],
        "max_repeats 2 and 5": [str(runs / "a"), str(other)],
        "--tolerance=2: expected": [str(runs / "a"), str(runs / "b"), "--tolerance=2"],
        "cannot be written": [str(runs / "a"), str(runs / "b"), f"--out={runs / 'a' / 'summary.txt' / 'x'}"],
    }
    for words, said in zip(refused, refusals("compare_runs", [*refused.values()]), strict=True):
        assert said and words in said
