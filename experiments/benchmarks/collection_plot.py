"""The figures of a collection benchmark as a picture."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.collection_figures import Growth, Speed

LABELS = {"n_sequences": "sequences", "seq_len": "tokens a sequence", "keep": "examples kept (K)"}


def draw(speeds: Sequence[Speed], growth: Sequence[Growth], path: Path) -> None:
    """Bars of tokens a second; nejax's time and memory against each size.

    Args:
        speeds: of each contender; those without tokens are left out.
        growth: the first is of the sizes that the others vary.
        path: the PNG.
    """
    figure = Figure(figsize=(11, 8), layout="constrained")
    halves: Any = figure.subfigures(2, 1, height_ratios=(2, 3))
    above, below = halves
    _bars(above.subplots(), [speed for speed in speeds if speed.tokens_per_second])
    panels = below.subplots(2, 3, sharex="col", sharey="row")
    for column, (name, label) in enumerate(LABELS.items()):
        some = sorted((g for g in growth if g.varied in ("", name)), key=lambda g: getattr(g, name))
        sizes = [getattr(g, name) for g in some]
        time, memory = panels[:, column]
        time.plot(sizes, [1e6 / g.tokens_per_second for g in some], "o-")
        memory.plot(sizes, [g.peak_mib for g in some], "o-")
        memory.set_xscale("log")
        memory.set_xticks(sizes, [f"{size:,}" for size in sizes])
        memory.minorticks_off()
        memory.set_xlabel(label)
    panels[0, 0].set(ylabel="nejax: µs a token", ylim=(0, 1.1 * max(1e6 / g.tokens_per_second for g in growth)))
    panels[1, 0].set(ylabel="nejax: peak MiB of the process")
    if all(map(math.isfinite, highest := [g.peak_mib for g in growth])):
        panels[1, 0].set_ylim(0, 1.1 * max(highest))
    figure.savefig(path, dpi=120)


def _bars(axes: Any, speeds: Sequence[Speed]) -> None:
    """The median; the line spans slowest to fastest."""
    middle = [speed.tokens_per_second for speed in speeds]
    spread = [[speed.tokens_per_second - speed.slowest for speed in speeds]]
    spread.append([speed.fastest - speed.tokens_per_second for speed in speeds])
    ours = ["C0" if speed.by == "nejax" else "C7" for speed in speeds]
    axes.barh([speed.by for speed in speeds], middle, xerr=spread, color=ours, ecolor="black")
    axes.invert_yaxis()
    axes.set_xlabel("tokens a second: median, slowest, fastest")
