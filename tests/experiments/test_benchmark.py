"""The benchmark with small settings: every contender is there, with figures that fit together."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "experiments" / "benchmark.py"


def benchmark(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, cwd=cwd)


@pytest.mark.slow
def test_clustering(tmp_path: Path):
    small = ["--n_examples=20", "--n_neurons=1,8", "--n_all=40", "--n_all_examples=20", "--repeats=1"]
    done = benchmark("clustering", *small, "--run=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out" / "clustering.json").read_text())
    figures = result["figures"]
    by = {what: {f["by"] for f in figures if f["what"].startswith(what)} for what in {f["what"] for f in figures}}
    assert {what.split(",")[0] for what in by} == {
        "distances and average linkage of all",
        "distances and connected components of all",
        "distances and k-means",
        "distances and spectral",
        "distances",
        "average linkage",
        "connected components",
        "k-means",
        "spectral",
    }
    assert by["average linkage"] == {"nejax", "SciPy linkage", "scikit-learn"}
    assert all("nejax" in found for found in by.values())
    assert {f["n_neurons"] for f in figures if f["by"] == "nejax"} == {1, 8, 40}
    assert all(0 < f["fastest_us"] <= f["us_per_neuron"] <= f["slowest_us"] for f in figures)
    assert result["machine"]["cores"] == len(result["machine"]["devices"])
    table = (tmp_path / "out" / "clustering.txt").read_text()
    assert table.strip() in done.stdout and "peak memory" in table


@pytest.mark.slow
@pytest.mark.parametrize("subjects", [[], ["sleep"], ["clustering", "clustering"]])
def test_an_unknown_subject(subjects, tmp_path: Path):
    done = benchmark(*subjects, cwd=tmp_path)
    assert done.returncode == 2 and "expected one subject of clustering" in done.stderr
    assert "Traceback" not in done.stderr and not list(tmp_path.iterdir())
