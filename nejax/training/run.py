"""A training run: its steps, their metrics, a progress bar, and checkpoints from which it resumes exactly.

A run directory keeps the settings and refuses others (see `nejax.pipeline.run.directory.RunDirectory`); the rest is
here.
"""

import json
import math
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, NamedTuple

import orbax.checkpoint as ocp
from matplotlib.figure import Figure

from nejax.errors import UserError, refuse_undecodable
from nejax.pipeline.corpus.sequences import ahead
from nejax.pipeline.run.directory import stop_on_full_disk
from nejax.pipeline.run.progress import progress_bar
from nejax.scripts import own_flags
from nejax.training.language_model import TrainState

Metrics = list[dict[str, float | int]]
"""One entry a step: `step`, and what was measured then."""


class Curve(NamedTuple):
    """One metric in a picture."""

    metric: str
    label: str


def settings_of_flags(script: str) -> dict[str, Any]:
    """The values of the flags that a script defines, all but where it writes.

    Args:
        script: the name it was started by, `argv[0]`.

    Raises:
        UserError: one is not UTF-8.
    """
    settings = {name: value for name, value in own_flags(script).items() if name != "run"}
    for name, value in settings.items():
        for text in value if isinstance(value, list) else [value]:
            refuse_undecodable(f"{name}=", text)
    return settings


def train(
    run: Path,
    step: Callable[[TrainState, Any], tuple[TrainState, dict[str, Any]]],
    state: TrainState,
    batches: Callable[[int], Generator[Any, None, None]],
    *,
    n_steps: int,
    checkpoint_every: int,
    n_per_step: int,
    unit: str = "tokens",
    look: Callable[[int, TrainState], dict[str, float]] = lambda n_done, state: {},
) -> tuple[TrainState, Metrics]:
    """Train, or resume an interrupted training: the result is the same to the bit.

    Args:
        run: where `metrics.jsonl` and `checkpoints/` are, or will be.
        step: from `nejax.training.language_model.make_train_step`; its metrics are numbers, `loss` among them.
        state: before the first step; a checkpoint in `run` takes its place.
        batches: from a step's number to the batches from that step on; they are made in a thread, ahead of their use.
        n_steps: in all.
        checkpoint_every: steps between checkpoints, of which the last two are kept; there is one at the end.
        n_per_step: units a step, for the bar.
        unit: what the bar counts.
        look: `(steps done, state) -> more metrics`, called after every step.

    Returns:
        The state after the last step, and the metrics of all.

    Raises:
        UserError: the loss is not finite, or the disk is full.
    """
    metrics_file = run / "metrics.jsonl"
    options = ocp.CheckpointManagerOptions(max_to_keep=2)
    with (
        stop_on_full_disk(run, "it goes on from its last checkpoint"),
        ocp.CheckpointManager(run / "checkpoints", options=options) as manager,
    ):
        if (latest := manager.latest_step()) is not None:
            state = manager.restore(latest, args=ocp.args.StandardRestore(state))
        first = int(state.step)
        lines = metrics_file.read_text().splitlines() if metrics_file.exists() else []
        metrics = [entry for entry in map(json.loads, lines[:first]) if entry["step"] < first]
        bar = progress_bar(total=n_steps * n_per_step, initial=first * n_per_step, unit=f" {unit}", unit_scale=True)
        with bar, metrics_file.open("w") as file, ahead(batches(first)) as ready:
            file.writelines(json.dumps(entry) + "\n" for entry in metrics)
            for i in range(first, n_steps):
                state, measured = step(state, next(ready))
                entry = {"step": i} | {name: float(value) for name, value in measured.items()}
                if not math.isfinite(entry["loss"]):
                    raise UserError(f"the loss is {entry['loss']} at step {i}", "lower {learning_rate}")
                metrics.append(entry | look(i + 1, state))
                file.write(json.dumps(metrics[-1]) + "\n")
                if (i + 1) % checkpoint_every == 0 or i + 1 == n_steps:
                    file.flush()
                    manager.save(i + 1, args=ocp.args.StandardSave(state))
                bar.set_postfix(loss=f"{entry['loss']:.3f}", refresh=False)
                bar.update(n_per_step)
    return state, metrics


def plot_training(metrics: Metrics, file: Path, left: Curve, right: Curve) -> None:
    """Two metrics over the steps, each with its own axis; one that few steps have is drawn with dots."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel("step")
    for curve, colour, side in ((left, "tab:blue", axes), (right, "tab:orange", axes.twinx())):
        has = [entry for entry in metrics if curve.metric in entry]
        style: dict[str, Any] = {"lw": 0.8} if len(has) == len(metrics) else {"marker": "o", "ms": 4}
        side.plot([entry["step"] for entry in has], [entry[curve.metric] for entry in has], color=colour, **style)
        side.set_ylabel(curve.label, color=colour)
    figure.savefig(file, dpi=150)
