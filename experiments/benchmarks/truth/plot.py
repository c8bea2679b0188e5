"""The figures as pictures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks.truth.answers import Answers, Key
from benchmarks.truth.arms import ARMS
from benchmarks.truth.figures import ALL, COMMON, HELD_OUT, INSEPARABLE, ONE, SEVERAL, Figures, kind_of
from benchmarks.truth.scoreboard import Row

MOST = 12
"""Clusters shown; more are drawn here."""


def draw_counts(answers: Answers, rows: Sequence[Row], path: Path) -> None:
    """Clusters found against features there, a panel a rule: medians, and the middle half; planted neurons.

    Args:
        answers: for planted neurons.
        rows: with the form of each rule.
        path: the PNG.
    """
    own = [row for row in rows if row.arm == ARMS[0]]
    figure = Figure(figsize=(11, 5.5), layout="constrained")
    panels = figure.subplots(2, -(-len(own) // 2), sharex=True, sharey=True, squeeze=False).ravel()
    kinds = [kind_of(unit, bool(ok)) for unit, ok in zip(answers.units, answers.is_separable, strict=True)]
    shown = [i for i, unit in enumerate(answers.units) if not unit.is_held_out and kinds[i] in (ONE, SEVERAL)]
    there = np.array([answers.units[i].answer[1] for i in shown])
    for axes, row in zip(panels, own, strict=False):
        scores = answers.scores[Key(row.arm, row.rule, row.form)]
        found = np.array([scores[i].found for i in shown])
        axes.plot([0, 8], [0, 8], color="black", linewidth=0.6)
        for n in np.unique(there):
            low, middle, high = np.minimum(np.quantile(found[there == n], [0.25, 0.5, 0.75]), MOST)
            axes.plot([n, n], [low, high], color="C0", linewidth=5, alpha=0.35, solid_capstyle="butt")
            axes.plot(n, middle, "o", color="C0" if middle < MOST else "C3", markersize=4)
        axes.set_title(f"{row.rule}, {row.form}", fontsize=9)
        axes.set(ylim=(-0.5, MOST + 0.5))
    for axes in panels[len(own) :]:
        axes.set_axis_off()
    figure.supxlabel("features with at least five examples", fontsize=9)
    figure.supylabel(f"clusters found: median and middle half ({MOST} or more in red)", fontsize=9)
    figure.savefig(path, dpi=120)


def draw_noise(figures: Sequence[Figures], rows: Sequence[Row], path: Path) -> None:
    """Share of planted neurons whose number is wrong, against noise: several features, told apart or not; at most one.

    Args:
        figures: of planted neurons.
        rows: with the form of each rule.
        path: the PNG.
    """
    figure = Figure(figsize=(11, 4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    some = [f for f in figures if f.arm == ARMS[0] and f.group.startswith("noise =")]
    noise = sorted({float(f.group.split()[-1]) for f in some})
    for axes, kinds in zip(panels, ((SEVERAL, INSEPARABLE), (ONE,)), strict=True):
        for row in (row for row in rows if row.arm == ARMS[0]):
            shares = []
            for level in noise:
                here = [f for f in some if f.group == f"noise = {level:g}" and f.kind in kinds]
                here = [f for f in here if (f.rule, f.form) == (row.rule, row.form)]
                n = sum(f.n for f in here)
                shares.append(sum(f.n * (1 - f.right) for f in here) / n if n else np.nan)
            axes.plot(noise, shares, "o-", label=row.rule, linewidth=2.5 if row.rule == "separated" else 1)
        axes.set_xscale("log")
        axes.set_xticks(noise, [f"{level:g}" for level in noise])
        axes.minorticks_off()
        axes.set_xlabel("total variance of the noise (a feature's length is 1)")
    panels[0].set(
        ylabel="share wrong", ylim=(-0.03, 1.03), title="several features, whether they can be told apart or not"
    )
    panels[1].set(title="no feature, or one")
    figure.legend(*panels[1].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    figure.savefig(path, dpi=120)


def draw_shares(rows: Sequence[Row], path: Path) -> None:
    """Right and falsely split, a bar a rule, with 95% intervals."""
    own = [row for row in rows if row.arm == ARMS[0]]
    columns = {
        f"planted, {COMMON}": ("planted_right", "planted_split"),
        f"planted, {HELD_OUT}": ("held_out_right", "held_out_split"),
        f"chimeras, {ALL}": ("chimera_right", "chimera_split"),
    }
    figure = Figure(figsize=(11, 4), layout="constrained")
    place = np.arange(len(own))
    for axes, (title, names) in zip(figure.subplots(1, 3, sharey=True), columns.items(), strict=True):
        for name, shift, colour in zip(names, (-0.2, 0.2), ("C0", "C3"), strict=True):
            shares = [getattr(row, name) for row in own]
            for at, share in zip(place, shares, strict=True):
                if share:
                    spread = [[share.of - share.least], [share.most - share.of]]
                    axes.barh(at + shift, share.of, 0.4, xerr=spread, color=colour, ecolor="black")
        axes.set(title=title, xlim=(0, 1))
        axes.set_yticks(place, [row.rule for row in own])
    figure.axes[0].invert_yaxis()
    figure.supxlabel("blue: several features, number right; red: one or none, falsely split", fontsize=9)
    figure.savefig(path, dpi=120)
