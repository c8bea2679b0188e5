"""The MNIST experiment with small settings on the bundled digits, its parts, and what it refuses."""

import json
import math
import subprocess
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from idx_files import write_idx_folder
from scripts import refusals, run, run_process
from tqdm import tqdm

from mnist.images import load_images
from mnist.mlp import MLP
from mnist.results import COLUMNS, PUBLISHED, summary, table
from mnist.side_by_side import on_all_devices
from mnist.training import Recipe, train_sae
from mnist.unit_pictures import draw_units, hidden_units, one_for_each_class
from nejax.errors import UserError
from nejax.models.sae.evaluation import evaluate_sae
from nejax.neuron.embeddings import embedding_distances

SMALL = ["--seeds=2", "--mlp_steps=150", "--d_hidden=16", "--d_sae=24", "--steps=120", "--batch_size=128", "--k=4"]
ROWS = ["standard", "standard, with the neuron-embedding loss", "top-k, with the neuron-embedding loss"]


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("digits")
    result = run("mnist_sae", *SMALL, "--tradeoff=0,2", "--embedding_weight=0.5", "--run=out", cwd=folder)
    assert result.returncode == 0, result.stderr[-3000:]
    return folder, result


@pytest.mark.slow
def test_the_whole_experiment(done):
    folder, printed = done
    result = json.loads((folder / "out" / "results.json").read_text())
    assert result["settings"]["seeds"] == 2 and result["settings"]["tradeoff"] == [0, 2]
    assert [of_seed["test_accuracy"] > 0.7 for of_seed in result["mlp"]["seeds"]] == [True] * 2
    assert list(result["rows"]) == ROWS and result["published"] == {}
    for name, row in result["rows"].items():
        assert [of_seed["seed"] for of_seed in row["seeds"]] == [0, 1]
        for column in COLUMNS:
            values = [of_seed[column] for of_seed in row["seeds"]]
            mean, deviation = sum(values) / 2, abs(values[0] - values[1]) / math.sqrt(2)
            assert math.isclose(row["summary"][column]["mean"], mean, rel_tol=1e-9), (name, column)
            assert math.isclose(row["summary"][column]["deviation"], deviation, rel_tol=1e-9, abs_tol=1e-12)
        assert 0 < row["summary"]["unexplained"]["mean"] < 0.6
        assert 0 < row["summary"]["mean_distance"]["mean"] < 1
    standard, with_loss, top_k = (result["rows"][name]["summary"] for name in ROWS)
    assert with_loss["mean_distance"]["mean"] < 0.95 * standard["mean_distance"]["mean"]
    assert 3 < top_k["l0"]["mean"] <= 4
    for curve in result["tradeoff"].values():
        assert [point["weight"] for point in curve] == [0, 0.5, 2]
        assert np.all(np.diff([point["mean_distance"] for point in curve]) < 0)  # it buys what it promises
    assert result["tradeoff"]["top-k"][1]["unexplained"] == result["rows"][ROWS[2]]["seeds"][0]["unexplained"]
    for name in ("tradeoff", "latents", "latents-standard", "neurons"):
        assert (folder / "out" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "out" / "table.md").read_text().strip() in printed.stdout
    assert f"{standard['unexplained']['mean']:.3f} ± " in printed.stdout
    assert f"{result['mlp']['test_accuracy']['mean']:.2%}" in printed.stdout
    assert "9 SAEs: 100%" in printed.stderr and "2 MLPs: 100%" in printed.stderr


@pytest.mark.slow
def test_the_same_command_again_shows_what_is_there(done):
    folder, first = done
    before = (folder / "out" / "results.json").stat().st_mtime_ns
    again = run_process("mnist_sae", *SMALL, "--tradeoff=0,2", "--embedding_weight=0.5", "--run=out", cwd=folder)
    assert again.returncode == 0 and "It was there" in again.stdout and "SAEs" not in again.stderr
    assert again.stdout.splitlines()[:5] == first.stdout.splitlines()[1:6]
    assert (folder / "out" / "results.json").stat().st_mtime_ns == before
    other = run("mnist_sae", *SMALL, "--tradeoff=0,2", "--embedding_weight=0.25", "--run=out", cwd=folder)
    assert other.returncode == 2 and "embedding_weight" in other.stderr and "0.25" in other.stderr


REFUSED = [
    (["--data_dir=nowhere"], "--data_dir=nowhere has no train-images-idx3-ubyte"),
    (["--data_dir=a", "--dataset=b/c"], "expected one of them"),
    (["--k=129"], "--k=129 is more than the --d_sae=128 latents"),
    (["--k=0"], "flag --k"),
    (["--seeds=0"], "flag --seeds"),
    (["--l1=-1"], "flag --l1"),
    (["--tradeoff=0,much"], "--tradeoff=0,much: expected numbers"),
    (["--tradeoff=0,-1"], "--tradeoff=0,-1: expected weights of 0 or more"),
    (["--tradeoff=nan"], "--tradeoff=nan: expected weights of 0 or more"),
]


@pytest.mark.slow
def test_what_is_refused(tmp_path: Path):
    said = refusals("mnist_sae", [[*arguments, f"--run=out{i}"] for i, (arguments, _) in enumerate(REFUSED)], tmp_path)
    for (_, message), line in zip(REFUSED, said, strict=True):
        assert message in line
    assert not list(tmp_path.glob("out*/results.json"))


def test_a_training_that_diverges():
    x = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    recipe = Recipe("topk", 8, (("k", 2),), (("neuron_embedding", 0.1),), 1e30, n_steps=5, batch_size=8)
    with pytest.raises(UserError, match="lower --topk_learning_rate"):
        train_sae(x, recipe, seed=0, on_steps=lambda n: None)


@pytest.mark.slow
def test_training_finds_sparse_causes():
    """Inputs that are one of ten directions each, far from zero mean, on another scale: a top-1 SAE explains them."""
    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.normal(size=(16, 16)))[0][:10]
    x = (40 * rng.uniform(0.5, 1.5, (3000, 1)) * directions[rng.integers(0, 10, 3000)] + 7).astype(np.float32)
    recipe = Recipe("topk", 32, (("k", 1),), (("neuron_embedding", 0.01),), 1e-2, n_steps=400, batch_size=256)
    counted: list[int] = []
    sae = train_sae(x, recipe, seed=0, on_steps=counted.append)
    assert sum(counted) == 400 and len(counted) == 8
    report = evaluate_sae(sae, x)
    assert report.unexplained < 0.02 and report.l0 <= 1
    same = train_sae(x, recipe, seed=0, on_steps=counted.append)
    np.testing.assert_array_equal(sae.W_enc[...], same.W_enc[...])
    scaled = evaluate_sae(train_sae(0.01 * x, recipe, seed=0, on_steps=counted.append), 0.01 * x)
    np.testing.assert_allclose(scaled.unexplained, report.unexplained, rtol=0.05)  # rounding grows over 400 steps


def test_tasks_come_back_in_their_order_and_the_first_error_stops_the_rest():
    with tqdm(total=20, disable=True) as bar:
        assert list(on_all_devices(lambda task, on_steps: (on_steps(1), task)[1], range(20), bar)) == list(range(20))
    begun: list[int] = []

    def work(task: int, on_steps) -> int:
        begun.append(task)
        if task == 0:
            raise ValueError("the first")
        while True:  # until it is told to stop
            threading.Event().wait(0.01)
            on_steps(1)

    with tqdm(disable=True) as bar, pytest.raises(ValueError, match="the first"):
        list(on_all_devices(work, range(100), bar))
    assert len(begun) <= jax.device_count() + 1


def test_table_and_summary():
    seeds = [{"seed": s, **dict.fromkeys(COLUMNS, value)} for s, value in enumerate((1.0, 2.0, 6.0))]
    found = summary(seeds)
    assert found["l0"]["mean"] == 3 and math.isclose(found["l0"]["deviation"], math.sqrt(7))
    assert summary(seeds[:1])["dead"] == {"mean": 1, "deviation": 0}
    lines = table({"ours": found}, PUBLISHED).splitlines()
    assert len({len(line) for line in lines}) == 1 and len(lines) == 5
    assert [cell.strip() for cell in lines[2].split("|")][2:8] == ["12.2", "0.340", "0.125", "95.0", "0.207", "18.7"]
    assert [cell.strip() for cell in lines[4].split("|")][1:4] == ["ours", "3.0 ± 2.6", "3.000 ± 2.646"]


@pytest.mark.slow
def test_pictures_show_each_neurons_own_examples(tmp_path: Path):
    write_idx_folder(tmp_path, n=300)
    images = load_images(str(tmp_path), None)
    mlp = MLP(25, 6, 3, rngs=nnx.Rngs(0))
    units = hidden_units(mlp, images, [1, 4])
    activation = np.asarray(mlp.activation(jnp.asarray(images.x)))
    for unit, j in zip(units, (1, 4), strict=True):
        above = np.flatnonzero(activation[:, j] > activation[:, j].max() / 2)[:100]
        np.testing.assert_array_equal(unit.examples, above)
        distances = np.asarray(embedding_distances(jnp.asarray(images.x[above]), mlp.W_in[...][:, j]))
        pairs = distances[np.triu_indices(len(above), 1)]
        np.testing.assert_allclose(unit.mean_distance, pairs.mean(), rtol=1e-5)
        assert len(unit.clusters) == len(above) and unit.weights.shape == (25,)
    draw_units(units, images, "Two neurons", tmp_path / "units.png")
    assert (tmp_path / "units.png").read_bytes().startswith(b"\x89PNG")
    draw_units([], images, "None", tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_one_unit_for_each_class():
    effects = np.array([[9.0, 0, 0], [3, 0, 0.1], [1, 1, 0], [0, -1, 5], [0, 8, 0]])
    assert one_for_each_class(effects, np.array([500, 500, 500, 500, 0])) == [0, 2, 3]
    assert one_for_each_class(effects, np.array([0, 7, 0, 0, 0])) == [1]
    assert one_for_each_class(effects, np.zeros(5, int)) == []
