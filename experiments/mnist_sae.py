"""Sparse autoencoders on an MLP that reads digits: what the neuron-embedding loss buys, and what it costs.

Produces, in `--run`: `results.json` (settings, every seed's numbers, their means and standard deviations), `table.md`,
`tradeoff.png` (the loss's weight against everything else) and pictures of units: `latents.png`, `latents-standard.png`
and `neurons.png` (what each looks for, what it finds, what it does to the classes, its clusters).

    python experiments/mnist_sae.py                          # scikit-learn's 8 x 8 digits, offline
    python experiments/mnist_sae.py --data_dir=mnist/        # MNIST's IDX files, packed or not
    python experiments/mnist_sae.py --dataset=ylecun/mnist   # the same from the Hub

Each seed trains an MLP (784-64-10), and on its hidden layer a standard SAE, one with the neuron-embedding loss, and a
top-k SAE with it; the first seed also other weights of that loss. MNIST takes 6.6 CPU minutes, on all cores; its
top-k SAE is better than both of Foote (2024, arXiv 2411.08166) at once: L0 12.0, 0.069 ± 0.002 of the variance, 0.6 ±
0.9 dead latents, mean distance 0.070 ± 0.005. The digits take 1.3 CPU minutes.
"""

import json
import time
from pathlib import Path
from typing import Any

from absl import flags, logging

from nejax.scripts import read_flags, run_script

FLAGS = flags.FLAGS
flags.DEFINE_string("data_dir", None, "Folder with MNIST's four IDX files, as they are or with .gz.")
flags.DEFINE_string("dataset", None, "Dataset of grey images on the Hub, with columns image and label.")
flags.DEFINE_string("run", "runs/mnist_sae", "Where everything is written.")
flags.DEFINE_integer("seeds", None, "Seeds, from 0 (default: 5; 2 for the 8 x 8 digits).", lower_bound=1)
flags.DEFINE_integer("d_hidden", 64, "Hidden neurons of the MLP.", lower_bound=2)
flags.DEFINE_integer("mlp_steps", None, "Steps of the MLP's training (default: 3000; 1000).", lower_bound=1)
flags.DEFINE_integer("d_sae", None, "Latents (default: 512; 128).", lower_bound=2)
flags.DEFINE_integer("steps", None, "Steps of an SAE's training (default: 1500; 500).", lower_bound=1)
flags.DEFINE_integer("batch_size", None, "Inputs a step (default: 512; 256).", lower_bound=2)
flags.DEFINE_float("topk_learning_rate", 3e-3, "The highest, of top-k SAEs.", lower_bound=0.0)
flags.DEFINE_float("standard_learning_rate", 1e-2, "The highest, of standard SAEs.", lower_bound=0.0)
flags.DEFINE_integer("k", 12, "Latents of a top-k SAE that fire.", lower_bound=1)
flags.DEFINE_float("l1", 0.03, "Weight of the standard SAE's sparsity.", lower_bound=0.0)
flags.DEFINE_float("embedding_weight", 0.15, "Weight of the neuron-embedding loss in the table.", lower_bound=0.0)
flags.DEFINE_list("tradeoff", ["0", "0.03", "0.5", "1.5"], "More weights of it, for the trade-off curves.")

if __name__ == "__main__":
    read_flags()

import numpy as np

from mnist.images import Images, load_images
from mnist.mlp import MLP
from mnist.results import PUBLISHED, PUBLISHED_SHAPE, Trained, measured, numbers, summary, table
from mnist.side_by_side import OnSteps, on_all_devices
from mnist.tradeoff_plot import plot_tradeoff
from mnist.training import MLPRecipe, Recipe, accuracy, hidden_layer, train_mlp, train_sae
from mnist.unit_pictures import draw_units, hidden_units, latent_units, one_for_each_class
from nejax.errors import UserError
from nejax.models.sae.architectures import SAE
from nejax.pipeline.run.devices import use_all_cores
from nejax.pipeline.run.directory import RunDirectory, stop_on_full_disk
from nejax.pipeline.run.progress import progress_bar
from nejax.training.run import settings_of_flags

DEFAULTS = dict(seeds=(5, 2), mlp_steps=(3000, 1000), d_sae=(512, 128), steps=(1500, 500), batch_size=(512, 256))
"""Of flags that are not given: on MNIST, and on scikit-learn's few small digits."""


def read_settings(script: str) -> dict[str, Any]:
    """The flags that decide the result, every one with a value."""
    settings = settings_of_flags(script)
    small = not (FLAGS.data_dir or FLAGS.dataset)
    settings |= {name: both[small] for name, both in DEFAULTS.items() if settings[name] is None}
    if FLAGS.k > settings["d_sae"]:
        raise UserError(f"--k={FLAGS.k} is more than the --d_sae={settings['d_sae']} latents; expected at most as many")
    try:
        settings["tradeoff"] = [float(weight) for weight in FLAGS.tradeoff]
    except ValueError:
        raise UserError(f"--tradeoff={','.join(FLAGS.tradeoff)}: expected numbers with commas between") from None
    if any(not 0 <= weight < float("inf") for weight in settings["tradeoff"]):
        raise UserError(f"--tradeoff={','.join(FLAGS.tradeoff)}: expected weights of 0 or more")
    return settings


def plan(settings: dict[str, Any]) -> tuple[dict[str, Recipe], dict[str, dict[float, Recipe]]]:
    """The rows of the table, and of each curve the recipe at every weight of the neuron-embedding loss."""

    def recipe(weight: float, architecture: str, arguments: dict[str, Any], sparsity: dict[str, float]) -> Recipe:
        s = settings
        weights = tuple((sparsity | {"neuron_embedding": weight}).items())
        of_architecture = (architecture, s["d_sae"], tuple(arguments.items()))
        return Recipe(*of_architecture, weights, s[f"{architecture}_learning_rate"], s["steps"], s["batch_size"])

    kinds = {"standard": ({}, {"sparsity": settings["l1"]}), "topk": ({"k": settings["k"]}, {})}
    chosen = settings["embedding_weight"]
    weights = sorted({chosen, *settings["tradeoff"]})
    curves = {
        name: {weight: recipe(weight, kind, *kinds[kind]) for weight in weights}
        for name, kind in (("standard", "standard"), ("top-k", "topk"))
    }
    rows = {
        "standard": recipe(0.0, "standard", *kinds["standard"]),
        "standard, with the neuron-embedding loss": curves["standard"][chosen],
        "top-k, with the neuron-embedding loss": curves["top-k"][chosen],
    }
    return rows, curves


def train_all(
    images: Images, settings: dict[str, Any], tasks: list[tuple[Recipe, int]]
) -> tuple[list[MLP], dict[tuple[Recipe, int], Trained]]:
    """An MLP a seed, and every SAE that is asked for on its seed's MLP."""
    of_mlp = MLPRecipe(settings["d_hidden"], settings["mlp_steps"])
    with progress_bar(total=settings["seeds"] * of_mlp.n_steps, desc=f"{settings['seeds']} MLPs", unit=" steps") as bar:

        def mlp_of(seed: int, on_steps: OnSteps) -> MLP:
            return train_mlp(images, of_mlp, seed=seed, on_steps=on_steps)

        mlps = list(on_all_devices(mlp_of, range(settings["seeds"]), bar))
    hidden = [(hidden_layer(mlp, images.x), hidden_layer(mlp, images.x_test)) for mlp in mlps]
    with progress_bar(total=len(tasks) * settings["steps"], desc=f"{len(tasks)} SAEs", unit=" steps") as bar:

        def sae_of(task: tuple[Recipe, int], on_steps: OnSteps) -> SAE:
            recipe, seed = task
            return train_sae(hidden[seed][0], recipe, seed=seed, on_steps=on_steps)

        # evaluated as they come, while others are trained
        saes = zip(tasks, on_all_devices(sae_of, tasks, bar), strict=True)
        return mlps, {task: measured(sae, task[1], *hidden[task[1]]) for task, sae in saes}


def draw_all(images: Images, mlp: MLP, standard: Trained, best: Trained, run: Path) -> None:
    """Pictures of ten neurons, and of ten latents of both SAEs."""
    hidden = hidden_layer(mlp, images.x)
    for name, trained, what in (
        ("latents.png", best, "Latents of the top-k SAE with the neuron-embedding loss"),
        ("latents-standard.png", standard, "Latents of the standard SAE"),
    ):
        effects = np.asarray(mlp.class_effects(trained.sae.W_dec[...]))
        chosen = one_for_each_class(effects, trained.report.latents.n_fired)
        title = f"{what}: for each class, the one that raises it most"
        draw_units(latent_units(mlp, trained.sae, hidden, chosen), images, title, run / name)
    chosen = one_for_each_class(np.asarray(mlp.W_out[...]), (hidden > 0).sum(axis=0))
    title = "Hidden neurons: for each class, the one that raises it most"
    draw_units(hidden_units(mlp, images, chosen), images, title, run / "neurons.png")


def main(argv: list[str]) -> None:
    """Train, evaluate, draw, report."""
    start, settings = time.perf_counter(), read_settings(argv[0])
    use_all_cores()
    images = load_images(FLAGS.data_dir, FLAGS.dataset)
    directory = RunDirectory(FLAGS.run, settings | {"digest of the images": images.digest()})
    run = directory.path
    if directory.is_done("results"):
        print(f"{(run / 'table.md').read_text()}\nIt was there: {run}. Remove it to begin anew")
        return
    print(f"{images.source}: {len(images.x):,} images to train on and {len(images.x_test):,} others", flush=True)
    rows, curves = plan(settings)
    tasks = [(recipe, seed) for seed in range(settings["seeds"]) for recipe in rows.values()]
    tasks += [(recipe, 0) for curve in curves.values() for recipe in curve.values()]
    mlps, trained = train_all(images, settings, list(dict.fromkeys(tasks)))
    accuracies = [{"test_accuracy": accuracy(mlp, images.x_test, images.labels_test)} for mlp in mlps]
    seeds = {name: [numbers(trained[recipe, s]) for s in range(settings["seeds"])] for name, recipe in rows.items()}
    tradeoff = {
        name: [{"weight": weight, **numbers(trained[recipe, 0])} for weight, recipe in curve.items()]
        for name, curve in curves.items()
    }
    published = PUBLISHED if images.x.shape == PUBLISHED_SHAPE else {}
    standard, _, best = rows.values()
    means = {name: summary(of_seeds) for name, of_seeds in seeds.items()}
    of_mlp = summary(accuracies)["test_accuracy"]
    lines = [
        table(means, published),
        "",
        f"Mean ± standard deviation over seeds ({len(mlps)}), on the {len(images.x):,} training images of "
        f"{images.source}; `test`: on {len(images.x_test):,} others.",
        f"MLP {images.x.shape[1]}-{FLAGS.d_hidden}-{images.n_classes}, accuracy on these: {of_mlp['mean']:.2%} ± "
        f"{of_mlp['deviation']:.2%}. SAEs of {settings['d_sae']} latents.",
    ]
    result = {
        "settings": settings,
        "mlp": {"seeds": accuracies, "test_accuracy": of_mlp},
        "rows": {
            name: {"recipe": rows[name]._asdict(), "seeds": of_seeds, "summary": means[name]}
            for name, of_seeds in seeds.items()
        },
        "tradeoff": tradeoff,
        "published": published,
        "seconds": round(time.perf_counter() - start, 1),
    }
    with stop_on_full_disk(run, "it begins anew"):
        draw_all(images, mlps[0], trained[standard, 0], trained[best, 0], run)
        plot_tradeoff(tradeoff, published, run / "tradeoff.png")
        (run / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (run / "results.json").write_text(json.dumps(result, indent=1))
        directory.mark("results", {"seconds": result["seconds"]})
    print("\n".join([*lines, "", f"{result['seconds']:.0f} s. Written to {run}"]))


if __name__ == "__main__":
    logging.set_verbosity(logging.WARNING)
    run_script(main, what_is_left="the same command begins anew")
