"""Whole tiny runs compared: another batch size, another precision, and runs that cannot be compared."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from nejax.errors import UserError
from nejax.pipeline.compare.runs import compare_runs, open_finished
from nejax.pipeline.stages.run import Run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(features_done, batches_of_7, bfloat16, tmp_path_factory) -> dict[str, Path]:
    """In batches of 4 and of 7, and in bfloat16."""
    made, folder = {"four": features_done, "seven": batches_of_7, "half": bfloat16}, tmp_path_factory.mktemp("runs")
    return {name: shutil.copytree(run, folder / name) for name, run in made.items()}


def test_the_batch_size_leaves_nothing_unexplained(runs):
    layers = [*compare_runs(open_finished(runs["four"]), open_finished(runs["seven"]))]
    assert len(layers) == 3 and sum(layer.neurons for layer in layers) > 30
    for layer in layers:
        assert layer.kept and layer.chosen and layer.features
        assert layer.beyond == layer.kept.unexplained == layer.chosen.unexplained == layer.features.unexplained == 0


def test_of_another_precision_it_is_said_how_far_it_agrees(runs):
    shares, layers = [], [*compare_runs(open_finished(runs["four"]), open_finished(runs["half"]))]
    assert [layer.neurons > 0 for layer in layers] == [True, False, True]
    for layer in layers[::2]:
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

    four = open_finished(runs["four"])
    for change, said in [
        (lambda m: m["settings"].update(seed=5), "seed 0 and 5"),
        (lambda m: m["settings"].update(min_fraction=0.5), "min_fraction 0.4 and 0.5"),
        (lambda m: m["model"].update(fingerprint="f00"), "and f00"),
        (lambda m: m["stages"]["tokens"].update(fingerprint="f01"), "and f01"),
    ]:
        with pytest.raises(UserError, match="cannot be compared") as error:
            next(compare_runs(four, changed(change)))
        assert said in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"^tolerance=-1: expected"):
        next(compare_runs(four, four, tolerance=-1.0))
    with pytest.raises(UserError, match=r"not finished \(done: .*features-01"):
        changed(lambda m: m["stages"].pop("features-02"))
    with pytest.raises(UserError, match="not finished"):
        changed(lambda m: m["stages"].clear())
    with pytest.raises(UserError, match=r"is not a run"):
        open_finished(tmp_path)
    elsewhere = changed(lambda m: m["settings"].update(model="elsewhere", similar=3))
    assert next(compare_runs(four, elsewhere)).beyond == 0, "the same files in another place"
