"""Whole tiny runs compared: another batch size, another precision, and runs that cannot be compared."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from stage_stores import layers_of
from tiny_gpt2 import random_model

from nejax.errors import UserError
from nejax.models.formats.tokens import train_tokenizer
from nejax.models.formats.weights import save_weights
from nejax.pipeline.compare.runs import compare_runs, open_finished
from nejax.pipeline.stages.run import Run, Settings

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """Of a tiny GPT-2, in batches of 1 and of 7, and in bfloat16."""
    folder = tmp_path_factory.mktemp("runs")
    words = ["the", "a", "cat", "dog", "house", "river", "sang", "ran", "red", "blue", "and", "of", "naïve", "東京"]
    tokenizer = train_tokenizer([" ".join(words)], vocab_size=300, n_positions=32)
    save_weights(random_model(300, 32), folder / "model", tokenizer)
    rng = np.random.default_rng(0)
    (folder / "corpus.txt").write_text(" ".join(rng.choice(words, 800)), encoding="utf-8")
    settings = Settings(str(folder / "model"), corpus=str(folder / "corpus.txt"), seq_len=24, keep=8, examples=6)
    for name, batch_size, precision in (("one", 1, "float32"), ("seven", 7, "float32"), ("half", 7, "bfloat16")):
        run = Run(folder / name, dataclasses.replace(settings, precision=precision), batch_size=batch_size, quiet=True)
        assert len(layers_of(run)) == 3
    return {name: folder / name for name in ("one", "seven", "half")}


def test_the_batch_size_leaves_nothing_unexplained(runs):
    layers = [*compare_runs(open_finished(runs["one"]), open_finished(runs["seven"]))]
    assert len(layers) == 3 and sum(layer.neurons for layer in layers) > 30
    for layer in layers:
        assert layer.kept and layer.chosen and layer.features
        assert layer.beyond == layer.kept.unexplained == layer.chosen.unexplained == layer.features.unexplained == 0


def test_of_another_precision_it_is_said_how_far_it_agrees(runs):
    shares = []
    for layer in compare_runs(open_finished(runs["one"]), open_finished(runs["half"])):
        assert layer.beyond is layer.kept is layer.chosen is layer.features is None
        assert 1e-4 < layer.values.activation < 0.1  # bfloat16 has 8 bits
        jaccard = layer.overlap.jaccard[~np.isnan(layer.overlap.jaccard)]
        assert len(jaccard) == layer.neurons
        shares.append(jaccard.mean())
    assert 0.5 < np.mean(shares) < 1


def test_what_is_refused(runs, tmp_path):
    def changed(change) -> Run:
        path = shutil.copytree(runs["seven"], tmp_path / "run", dirs_exist_ok=True)
        manifest = json.loads((path / "manifest.json").read_text())
        change(manifest)
        (path / "manifest.json").write_text(json.dumps(manifest))
        return open_finished(path)

    one = open_finished(runs["one"])
    for change, said in [
        (lambda m: m["settings"].update(seed=5), "--seed 0 and 5"),
        (lambda m: m["settings"].update(min_fraction=0.5), "--min_fraction 0.4 and 0.5"),
        (lambda m: m["model"].update(fingerprint="f00"), "and f00"),
        (lambda m: m["stages"]["tokens"].update(fingerprint="f01"), "and f01"),
    ]:
        with pytest.raises(UserError, match="cannot be compared") as error:
            next(compare_runs(one, changed(change)))
        assert said in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(UserError, match="--tolerance=-1: expected"):
        next(compare_runs(one, one, tolerance=-1.0))
    with pytest.raises(UserError, match=r"not finished \(done: .*features-01"):
        changed(lambda m: m["stages"].pop("features-02"))
    with pytest.raises(UserError, match="not finished"):
        changed(lambda m: m["stages"].clear())
    with pytest.raises(UserError, match=r"is not a run"):
        open_finished(tmp_path)
    elsewhere = changed(lambda m: m["settings"].update(model="elsewhere", similar=3))
    assert next(compare_runs(one, elsewhere)).beyond == 0, "the same files in another place"
