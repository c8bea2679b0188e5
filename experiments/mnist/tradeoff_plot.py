"""What the neuron-embedding loss costs and buys: a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
"""Of Okabe and Ito's palette, which colour-blind people can tell apart."""
GREY = "#666666"

BESIDE = {"l0": "L0", "dead": "dead latents", "n_clusters": "clusters a latent"}
"""What is drawn against the weight."""


def plot_tradeoff(
    curves: Mapping[str, Sequence[Mapping[str, Any]]], published: Mapping[str, Mapping[str, float]], path: Path
) -> None:
    """Draw the share of the variance that is lost against mean distance, and the other numbers against the weight.

    Args:
        curves: of each kind of SAE, its numbers at each `weight`, in the order of the weights.
        published: of others' SAEs; the area in which one is better than all of them in both numbers is shaded.
        path: the PNG.
    """
    figure = Figure(figsize=(12, 6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(7, 5))  # pyright: ignore[reportGeneralTypeIssues]
    main = left.subplots()
    for (name, points), colour in zip(curves.items(), COLOURS, strict=False):
        _curve(main, name, points, colour)
    _published(main, published)
    main.set(xlabel="mean distance of a latent's inputs", ylabel="share of the variance lost")
    main.set_title("Each point: a weight of the neuron-embedding loss", fontsize=10, loc="left")
    main.set_xlim(left=0)
    main.set_ylim(bottom=0)
    main.legend(frameon=False, loc="best", fontsize=9)
    panels = right.subplots(len(BESIDE), 1, sharex=True)
    for axes, (column, label) in zip(panels, BESIDE.items(), strict=True):
        for points, colour in zip(curves.values(), COLOURS, strict=False):
            # the weights are spaced evenly: one is 0, and the others grow by factors
            axes.plot(range(len(points)), [point[column] for point in points], "o-", color=colour, ms=4)
        axes.set_ylabel(label)
        axes.set_ylim(0, 1.1 * max(1, *(point[column] for points in curves.values() for point in points)))
        _plain(axes)
    weights = [point["weight"] for point in next(iter(curves.values()))]
    panels[-1].set_xticks(range(len(weights)), [f"{weight:g}" for weight in weights])
    panels[-1].set_xlabel("weight of the neuron-embedding loss")
    _plain(main)
    figure.savefig(path, dpi=130)


def _curve(axes: Axes, name: str, points: Sequence[Mapping[str, Any]], colour: str) -> None:
    x, y = [point["mean_distance"] for point in points], [point["unexplained"] for point in points]
    axes.plot(x, y, "o-", color=colour, label=name, ms=5)
    for point, at in zip(points, zip(x, y, strict=True), strict=True):
        axes.annotate(f"{point['weight']:g}", at, (5, 5), textcoords="offset points", fontsize=8, color=colour)


def _published(axes: Axes, published: Mapping[str, Mapping[str, float]]) -> None:
    if not published:
        return
    for (name, given), marker in zip(published.items(), "s^Dv", strict=False):
        at = (given["mean_distance"], given["unexplained"])
        axes.plot(*at, marker, color=GREY, ms=7, ls="none", label=name)
    width, height = (min(given[c] for given in published.values()) for c in ("mean_distance", "unexplained"))
    axes.add_patch(Rectangle((0, 0), width, height, color="#009E73", alpha=0.08, lw=0))
    axes.annotate(
        "better than both published",
        (0, height),
        (4, -4),
        textcoords="offset points",
        fontsize=8,
        color="#00704f",
        va="top",
    )


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, lw=0.6)
