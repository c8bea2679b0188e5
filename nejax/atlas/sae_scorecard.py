"""An SAE's scorecard for readers: a page of Markdown, and a plot."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nejax.atlas.plain import plain
from nejax.models.sae.evaluation import SAEReport
from nejax.neuron.streaming.unit_measures import UnitMeasures
from nejax.training.scorecard import LEVELS, SpliceLosses

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#9a9a9a"
"""Of Okabe and Ito's palette, which colour-blind people can tell apart."""


class Scorecard(NamedTuple):
    """Everything that was found of one SAE."""

    about: dict[str, Any]
    """What it is, and what it was evaluated on."""
    report: SAEReport
    """For itself."""
    losses: SpliceLosses
    """Spliced into its model."""
    latents: list[UnitMeasures]
    """At each of `LEVELS`."""
    neurons: list[UnitMeasures]
    """Of the same layer's MLP, at the same levels."""

    def numbers(self) -> dict[str, Any]:
        """All but what is each unit's own, for JSON. NaN is null."""
        levels = [
            {"level": level, "latents": _summary(latents), "neurons": _summary(neurons)}
            for level, latents, neurons in zip(LEVELS, self.latents, self.neurons, strict=True)
        ]
        found = {"about": self.about, "sae": self.report.numbers(), "loss": self.losses.numbers(), "levels": levels}
        return plain(found)


def markdown(card: Scorecard) -> str:
    """The scorecard as a page of Markdown."""
    report, losses = card.report, card.losses.numbers()
    d_sae = len(report.latents.n_fired)
    rows = {
        "latents that fire at an input (L0)": f"{report.l0:.2f} of {d_sae:,}",
        "dead latents": f"{report.dead:,} ({report.dead / d_sae:.1%})",
        "squared error, a mean over dimensions": f"{report.squared_error:.4g}",
        "variance explained": f"{1 - report.unexplained:.4f}",
        "variance unexplained": f"{report.unexplained:.4f}",
        "next-token loss: clean": f"{losses['clean']:.4f} nats",
        "... with the SAE spliced in": f"{losses['spliced']:.4f} nats",
        "... with zeros instead (zero-ablation)": f"{losses['zero']:.4f} nats",
        "... with the mean instead (mean-ablation)": f"{losses['mean']:.4f} nats",
        "loss recovered, from zero-ablation": f"{losses['recovered']:.4f}",
        "loss recovered, from mean-ablation": f"{losses['recovered_from_mean']:.4f}",
        "mean distance of a latent's first examples": f"{report.mean_distance:.4f}",
        "... of all inputs at which it fires": f"{report.streaming_mean_distance:.4f}",
        "clusters of its first examples": f"{report.n_clusters:.2f}",
    }
    lines = ["# " + card.about["sae"], ""]
    lines += [f"- {name}: {value}" for name, value in card.about.items() if name != "sae"]
    lines += ["", "| | |", "|---|---:|", *(f"| {name} | {value} |" for name, value in rows.items()), ""]
    n_examples = report.latents.first.shape[1]
    lines += [
        f"Mean distance over the first {n_examples} inputs above a fraction of each unit's own maximum, a mean over "
        "units with two such inputs or more:",
        "",
        "| above | latents | units | neurons of the layer | units |",
        "|---:|---:|---:|---:|---:|",
    ]
    for level, *both in zip(LEVELS, card.latents, card.neurons, strict=True):
        cells = (f"{_summary(units)['mean_distance']:.4f} | {_summary(units)['units']:,}" for units in both)
        lines.append(f"| {level:.2f} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def plot_scorecard(card: Scorecard, file: Path) -> None:
    """Distances of latents beside neurons, how often latents fire, and what the model's loss becomes."""
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    (levels, spread), (firing, losses) = figure.subplots(2, 2)
    _levels(levels, card)
    _spread(spread, card)
    _firing(firing, card.report)
    _losses(losses, card.losses)
    for axes in (levels, spread, firing, losses):
        axes.spines[["top", "right"]].set_visible(False)
        axes.title.set(fontsize=11)
    figure.suptitle(f"{card.about['sae']} on {card.about['corpus']}", x=0.01, ha="left")
    figure.savefig(file, dpi=130)


def _levels(axes: Axes, card: Scorecard) -> None:
    for name, units, colour, marker in (
        ("neurons of the layer", card.neurons, ORANGE, "s"),
        ("latents", card.latents, BLUE, "o"),
    ):
        lows, mids, highs = zip(*(_quartiles(np.asarray(each.measures.mean_distance)) for each in units), strict=True)
        axes.fill_between(LEVELS, lows, highs, color=colour, alpha=0.15, lw=0)
        axes.plot(LEVELS, mids, color=colour, marker=marker, label=name)
    axes.set(
        title="Polysemanticity at matched activation",
        xlabel="examples are above this fraction of the unit's maximum",
        ylabel="mean cosine distance (median, quartiles)",
        xticks=LEVELS,
    )
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, loc="lower left")


def _spread(axes: Axes, card: Scorecard) -> None:
    middle = len(LEVELS) // 2
    for name, units, colour in (("neurons of the layer", card.neurons, ORANGE), ("latents", card.latents, BLUE)):
        values = np.asarray(units[middle].measures.mean_distance)
        values = values[np.isfinite(values)]
        if len(values):
            shares = np.full(len(values), 1 / len(values))
            bins = np.linspace(0, max(1.0, float(values.max())), 41)
            axes.hist(values, bins=bins.tolist(), weights=shares, color=colour, alpha=0.55, label=name)
    axes.set(
        title=f"The same, unit by unit, above {LEVELS[middle]:g} of the maximum",
        xlabel="mean cosine distance of a unit's first examples",
        ylabel="share of the units",
    )
    axes.legend(frameon=False, loc="upper left")


def _firing(axes: Axes, report: SAEReport) -> None:
    rate = report.latents.n_fired / report.n_inputs
    alive = rate[rate > 0]
    if len(alive):
        lowest = np.floor(np.log10(alive.min()))
        axes.hist(alive, bins=np.logspace(lowest, 0, 41).tolist(), color=BLUE, alpha=0.8)
        axes.set_xscale("log")
    dead = f"{report.dead:,} of {len(rate):,} latents never fire"
    axes.set(title=f"How often latents fire ({dead})", xlabel="share of inputs", ylabel="latents")


def _losses(axes: Axes, losses: SpliceLosses) -> None:
    names = ["model as it is", "SAE spliced in", "mean instead", "zeros instead"]
    values = [losses.clean, losses.spliced, losses.mean, losses.zero]
    axes.axvline(losses.clean, color=GREY, lw=1, ls="--")
    for row, (value, colour) in enumerate(zip(values, [GREY, BLUE, ORANGE, ORANGE], strict=True)):
        axes.plot([losses.clean, value], [row, row], color=colour, lw=3)
        axes.plot(value, row, "o", color=colour, ms=9)
        axes.annotate(f"{value:.3f}", (value, row), (9, 9), textcoords="offset points", va="center")
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.margins(x=0.15)
    numbers = losses.numbers()
    recovered = f"{numbers['recovered']:.3f} from zeros, {numbers['recovered_from_mean']:.3f} from the mean"
    axes.set(
        title=f"Loss recovered: {recovered}",
        xlabel="next-token loss, nats (dashed: the model as it is)",
    )


def _summary(units: UnitMeasures) -> dict[str, Any]:
    distance = np.asarray(units.measures.mean_distance)
    return {"mean_distance": units.mean(distance), "units": int(np.isfinite(distance).sum())}


def _quartiles(values: np.ndarray) -> tuple[float, float, float]:
    there = values[np.isfinite(values)]
    low, mid, high = np.quantile(there, [0.25, 0.5, 0.75]) if len(there) else [float("nan")] * 3
    return float(low), float(mid), float(high)
