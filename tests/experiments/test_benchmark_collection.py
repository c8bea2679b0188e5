"""The collection benchmark at its smallest: who is there races, who is missing is said."""

import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from test_benchmark import benchmark

from benchmarks import collection, collection_figures
from benchmarks.workers import Task
from nejax.models.families.gpt2 import GPT2, GPT2Config

SMALL = Task(4, 16, 8, 2, 2, 64, 96, 50, "float32", 1)


@pytest.mark.slow
def test_collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Of the growth two rows, each of which is a process; which rows there are is tested below."""
    all_tasks = collection.varied_tasks
    monkeypatch.setattr(collection, "varied_tasks", lambda task: [all_tasks(task)[i] for i in (0, 3)])
    sizes = ["--n_sequences=16", "--seq_len=16", "--keep=8", "--n_layers=2", "--d_model=64", "--d_mlp=96"]
    settings = [*sizes, "--vocab_size=300", "--repeats=2", "--run=out"]
    done = benchmark("collection", *settings, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "out" / "collection.json").read_text())["figures"]
    assert all(math.isfinite(value) for figure in figures for value in figure.values() if isinstance(value, float))
    speeds = {figure["by"]: figure for figure in figures if "share" in figure}
    growth = [figure for figure in figures if "varied" in figure]
    absent = collection.missing()
    assert set(speeds) == set(collection.CONTENDERS) - {peer.by for peer in absent}
    assert [figure for figure in figures if set(figure) == {"by", "note"}] == [peer._asdict() for peer in absent]
    limit = speeds.pop(collection.PRODUCT)
    assert limit["share"] == 1 and limit["gflops"] > 0
    for speed in speeds.values():
        assert 0 < speed["slowest"] <= speed["tokens_per_second"] <= speed["fastest"]
        assert speed["peak_mib"] > 10 and speed["share"] > 0
        assert speed["times_nejax"] * speed["tokens_per_second"] == pytest.approx(speeds["nejax"]["tokens_per_second"])
        assert "COMPILED" not in speed["note"]
    varied = [(g["n_sequences"], g["seq_len"], g["keep"]) for g in growth]
    assert varied == [(16, 16, 8), (16, 32, 8)]
    assert all(g["tokens_per_second"] * g["seconds"] == pytest.approx(g["n_sequences"] * g["seq_len"]) for g in growth)
    assert (tmp_path / "out" / "collection.png").read_bytes().startswith(b"\x89PNG")
    written = (tmp_path / "out" / "collection.txt").read_text()
    assert all(line in done.stdout for line in written.splitlines())


@pytest.mark.slow
def test_collection_in_bfloat16():
    absent = {peer.by for peer in collection.missing()}
    names = [by for by in (collection.NEJAX, "PyTorch, hooks", collection.PRODUCT) if by not in absent]
    speeds = collection.race(SMALL._replace(precision="bfloat16"), names, 1)
    assert [speed.by for speed in speeds] == names
    assert all(speed.share > 0 and "COMPILED" not in speed.note for speed in speeds)


def test_missing_peers_are_said(monkeypatch: pytest.MonkeyPatch):
    there = {"torch": "2.13.0", "transformer-lens": "4.3.0"}

    def version(package: str) -> str:
        if package not in there:
            raise collection.PackageNotFoundError(package)
        return there[package]

    monkeypatch.setattr(collection, "version", version)
    (lens,) = collection.missing()
    assert lens.by == "TransformerLens"
    assert "needs transformer-lens 3.x and there is 4.3.0; pip install -e '.[benchmark]'" in lens.note
    del there["torch"]
    assert [peer.by for peer in collection.missing()] == ["PyTorch, hooks", "TransformerLens"]
    assert collection_figures.table(collection.missing())[0].startswith("PyTorch, hooks: left out, as it needs torch")
    there.update({"torch": "2.13.0", "transformer-lens": "3.9.0"})
    assert collection.missing() == []


@pytest.mark.slow
@pytest.mark.parametrize("head", [False, True])
def test_flops_are_those_of_the_model_s_products(head: bool):
    """Of one layer, whose loop XLA counts once; what is no product is below a tenth at this size."""
    task = SMALL._replace(n_layers=1, d_model=256, d_mlp=1024, vocab_size=1000, seq_len=64)
    config = GPT2Config(task.vocab_size, 64, task.d_model, 1, task.n_heads, task.d_mlp, activation="relu")
    graph, state = nnx.split(GPT2(config, rngs=nnx.Rngs(0)))

    def run(state, tokens):
        logits, last = nnx.merge(graph, state)(tokens, reader=lambda view: view.mlp_output)
        return logits if head else last

    cost = jax.jit(run).lower(state, jnp.zeros((2, 64), jnp.int32)).compile().cost_analysis()
    counted = cost["flops"] / (2 * 64)
    assert 0 <= counted / collection.flops_per_token(task, head=head) - 1 < 0.1


def test_each_row_of_the_growth_varies_one_size():
    (first, same), *others = collection.varied_tasks(SMALL)
    assert (first, same) == ("", SMALL)
    for varied, task in others:
        assert [name for name in Task._fields if getattr(task, name) != getattr(SMALL, name)] == [varied]
    sizes = [(varied, getattr(task, varied)) for varied, task in others]
    assert sizes == [("n_sequences", 40), ("seq_len", 8), ("seq_len", 32), ("keep", 2), ("keep", 32)]
