"""The benchmark with small settings: every contender and every figure is there, and they fit together."""

import importlib.util
import json
import re
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from scripts import EXPERIMENTS, refusal, refusals, run, run_process
from tiny_run import tiny_run

from benchmarks import importance
from nejax.pipeline.run.settings import Settings

benchmark = partial(run, "benchmark")


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
    table = (tmp_path / "out" / "clustering.txt").read_text()
    assert table.strip() in done.stdout and "peak memory" in table


@pytest.mark.slow
def test_explorer(tmp_path: Path):
    sizes = ["--n_layers=2", "--d_mlp=48", "--d_model=32", "--n_sequences=150", "--vocab_size=1000"]
    settings = [*sizes, "--n_requests=100", "--n_clients=8", "--repeats=1", "--run=out"]
    # in a process of its own: where tests have a browser, an event loop runs in this one
    done = run_process("benchmark", "explorer", *settings, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "out" / "explorer.json").read_text())["figures"]
    assert all(figure["value"] > 0 for figure in figures)
    by_name = {figure["what"].strip(): figure for figure in figures}
    opened = by_name["start of the process to index.html and atlas.json"]
    assert opened["unit"] == "s" and opened["aim"] == 2
    assert by_name["neurons, 8 clients: median"]["aim"] == 100
    assert by_name["neurons, 8 clients: median"]["note"].startswith("100 requests, ")
    for group in ("neurons, 8 clients", "neurons, 1 client", "sequences, 8 clients", "search, 8 clients"):
        at = figures.index(by_name[f"{group}: median"])
        median, last, rate = figures[at : at + 3]
        assert median["value"] <= last["value"] and median["unit"] == last["unit"] == "ms"
        assert rate["unit"] == "requests/s"
    assert [f"memory of the server after {n} requests" in by_name for n in (10, 50, 100)] == [True] * 3
    site = by_name["static site: size"]
    assert int(site["note"].split()[0].replace(",", "")) > 2 * 48 + 15 + 10 and site["value"] < site["aim"]
    left = sorted(path.name for path in (tmp_path / "out" / "explorer").iterdir())
    assert left == ["atlas", "manifest.json", "sources", "tokens-0000"]
    table = (tmp_path / "out" / "explorer.txt").read_text()
    assert table.strip() in done.stdout and "aim: below 300" in table


@pytest.mark.parametrize("arguments", [[], ["sleep"], ["clustering", "clustering"]], ids=str)
def test_an_unknown_subject(tmp_path: Path, arguments: list[str]):
    done = benchmark(*arguments, cwd=tmp_path)
    line = f"{' '.join(['benchmark.py', *arguments])}: expected clustering|collection|explorer|"
    assert refusal(done).startswith(line) and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_every_subject_is_offered():
    source = (EXPERIMENTS / "benchmark.py").read_text()
    names = re.findall(r'^    "(\w+)": \(', source, re.MULTILINE)
    assert len(names) >= 6 and f'read_flags("{"|".join(names)}")' in source


REFUSED = [
    (["similar", "--similar_sizes=300,many"], "--similar_sizes"),
    (["similar", "--similar_sizes=99"], "--similar_sizes"),
    (["similar", "--similar_recall=1"], "--similar_recall"),
    (["importance", "--importance_sequences=64,many"], "--importance_sequences"),
    (["importance", "--importance_sequences=0"], "--importance_sequences"),
    (["collection", "--n_sequences=15"], "--n_sequences=15: expected a multiple of --batch_size=16"),
    (["collection", "--d_model=100"], "--d_model=100: expected less than 64, or a multiple of 64"),
]


@pytest.mark.slow
def test_settings_that_make_no_sense(tmp_path: Path):
    said = refusals("benchmark", [arguments for arguments, _ in REFUSED], tmp_path)
    for (_, words), message in zip(REFUSED, said, strict=True):
        assert message and words in message and "expected" in message


@pytest.mark.slow
def test_sae(tmp_path: Path):
    small = ["--sae_sizes=8:64:32", "--sae_architectures=topk,gated", "--repeats=2", "--run=out"]
    done = benchmark("sae", *small, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "out" / "sae.json").read_text())["figures"]
    assert [f["architecture"] for f in figures] == ["topk", "topk", "gated", "gated"]
    assert all(0 < f["fastest_ms"] <= f["ms"] <= f["slowest_ms"] for f in figures)
    assert done.stdout.count("with the neuron-embedding loss") == 2


SIMILAR = ["similar", "--similar_dimensions=16", "--similar_k=5", "--similar_queries=150", "--repeats=2", "--run=out"]


@pytest.mark.slow
def test_similar(tmp_path: Path):
    """The peer has its own test: numba compiles for minutes."""
    done = run_process("benchmark", *SIMILAR, "--similar_sizes=300,1000", "--similar_peer_most=0", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out" / "similar.json").read_text())
    assert result["machine"]["cores"] == len(result["machine"]["devices"])
    figures = result["figures"]
    assert [f["by"] for f in figures] == ["nejax, exact", "nejax, approximate", "the products alone"] * 2
    assert [f["n_features"] for f in figures] == [300] * 3 + [1000] * 3
    assert all(0 < f["fastest"] <= f["seconds"] <= f["slowest"] and f["peak_mib"] > 0 for f in figures)
    for f in figures:
        assert f["n_queries"] == 150 and f["scaled"]
        assert f["seconds_for_all"] == pytest.approx(f["seconds"] * f["n_features"] / 150)
        assert f["gflops"] == pytest.approx(2 * 150 * f["n_features"] * 16 / f["seconds"] / 1e9)
    assert [f["recall"] for f in figures if f["by"] == "nejax, exact"] == [1, 1]
    assert all(f["recall"] >= 0.95 for f in figures if f["by"] == "nejax, approximate")
    assert done.stdout.count(" scaled") == 6 + 2  # the heads of the tables say so too
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["similar.json", "similar.txt"]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("pynndescent") is None, reason="needs PyNNDescent, of the extra benchmark")
def test_similar_beside_its_peer(tmp_path: Path):
    done = benchmark(*SIMILAR, "--similar_sizes=1000", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    peer = json.loads((tmp_path / "out" / "similar.json").read_text())["figures"][-1]
    assert peer["by"] == "PyNNDescent" and peer["n_queries"] == peer["n_features"] == 1000 and not peer["scaled"]
    assert peer["seconds_for_all"] == peer["seconds"] > 0 and peer["gflops"] is None
    assert 0.9 < peer["recall"] <= 1  # 0.99 here; an approximate method


@pytest.mark.slow
def test_importance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Of a tiny model, whose sequences have 32 tokens, in place of the bundled one."""
    model, corpus = (flag.partition("=")[2] for flag in tiny_run(tmp_path / "world")[:2])
    tiny = {"model": model, "corpus": corpus, "seq_len": 32, "keep": 16, "examples": 12}
    monkeypatch.setattr(importance, "Settings", SimpleNamespace(of=lambda **settings: Settings.of(**tiny, **settings)))
    seen, examples_of = [], importance._examples_of
    monkeypatch.setattr(importance, "_examples_of", lambda run: seen.append(examples_of(run)) or seen[-1])
    small = ["--importance_sequences=4", "--importance_timed=2", "--importance_passes=24", "--repeats=2", "--run=out"]
    done = benchmark("importance", *small, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "out" / "importance.json").read_text())["figures"]
    naive, shared, ours = figures
    assert [f["by"].split(",")[0] for f in figures] == ["a pass an example and token"] + [
        "a pass a peak's place and token",
        "nejax",
    ]
    assert naive["passes"] == naive["n_pairs"] > shared["passes"] > ours["passes"] >= ours["n_places"] > 0
    assert all(f["tokens"] == 32 * f["passes"] for f in (naive, shared)) and ours["tokens"] < shared["tokens"] / 8
    length: dict[tuple[int, int], int] = {}  # of the branch at each ablated token, to the last peak it reads
    for sequence, position in zip(seen[0].peaks.sequence.tolist(), seen[0].peaks.position.tolist(), strict=True):
        for taken in range(max(1, position - seen[0].window), position + 1):
            length[sequence, taken] = max(length.get((sequence, taken), 0), position - taken + 1)
    assert (ours["passes"], ours["tokens"]) == (len(length), sum(length.values()))
    assert naive["timed_passes"] == shared["timed_passes"] == 24 and ours["timed_passes"] == ours["passes"]
    for f in figures:
        assert 0 < f["fastest"] <= f["seconds"] <= f["slowest"]
        assert f["us_a_pair"] == pytest.approx(1e6 * f["seconds"] / f["n_pairs"])
        assert f["worst_difference"] <= 1e-5
    assert done.stdout.count("scaled from 24 passes") == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["importance.json", "importance.txt"]
