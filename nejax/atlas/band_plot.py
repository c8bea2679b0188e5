"""The plot of how far apart a neuron's inputs are in each band of its activation."""

import itertools
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from nejax.atlas.plots import BLUE, ORANGE
from nejax.errors import UserError

MOST_PANELS = 12
"""The most layers with a panel of their own; of deeper models so many, evenly chosen, with the first and the last."""

MOST_LABELS = 6
"""Lines that are labelled one by one; more have a scale of colours."""

_COLUMNS = 4


def plot_bands(
    path: Path | str,
    edges: np.ndarray,
    distances: np.ndarray,
    counts: np.ndarray,
    corpus_distances: np.ndarray | None = None,
    *,
    title: str | None = None,
) -> Path:
    """Draw the mean distance between the inputs of a neuron, by how strongly they excite it.

    Above, a panel a layer: the median over the neurons and their middle half in each band, and dashed the median over
    all inputs at which a neuron fires. Below, all layers on one scale.

    Args:
        path: of the PNG file; its folder is made if it is not there, a file of that name is replaced.
        edges: [n_bands + 1] fractions of a neuron's maximum.
        distances: [n_layers, d_mlp, n_bands] mean cosine distances; NaN where a band has fewer than two tokens.
        counts: [n_layers, d_mlp, n_bands] tokens in each band.
        corpus_distances: [n_layers, d_mlp] mean distances over all bands together.
        title: above the figure.

    Returns:
        The path.

    Raises:
        UserError: the shapes do not fit, or no band of any neuron has a mean distance.
    """
    edges, distances, counts = map(np.asarray, (edges, distances, counts))
    expected = (*distances.shape[:2], len(edges) - 1)
    if distances.shape != expected or counts.shape != expected:
        raise UserError(
            f"distances and counts of bands have shapes {distances.shape} and {counts.shape}; expected "
            f"[n_layers, d_mlp, n_bands] with {len(edges) - 1} bands between {len(edges)} edges"
        )
    if corpus_distances is not None and np.shape(corpus_distances) != expected[:2]:
        raise UserError(f"corpus_distances has shape {np.shape(corpus_distances)}; expected {expected[:2]}")
    if np.isnan(distances).all():
        raise UserError("no band of any neuron has two tokens: there is nothing to draw; read more sequences")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _draw(edges, distances, counts, corpus_distances, title).savefig(path, dpi=120)
    return path


def _draw(
    edges: np.ndarray, distances: np.ndarray, counts: np.ndarray, corpus: np.ndarray | None, title: str | None
) -> Figure:
    n_layers = len(distances)
    shown = np.unique(np.linspace(0, n_layers - 1, min(n_layers, MOST_PANELS)).round().astype(int))
    n_columns = min(len(shown), 2 if len(shown) <= 4 else _COLUMNS)
    n_rows = -(-len(shown) // n_columns)
    figure = Figure(figsize=(13, max(5.6, 2.3 * n_rows + 1)), layout="constrained")
    halves: Any = figure.subfigures(1, 2, width_ratios=(1, 1.75), wspace=0.03)
    left, right = halves
    together, share = left.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    panels = right.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False)

    colors = LinearSegmentedColormap.from_list("layers", matplotlib.colormaps["cividis"](np.linspace(0, 0.85, 64)))
    of_layers = ScalarMappable(Normalize(0, max(n_layers - 1, 1)), colors)
    middle = _quantiles(distances, [0.5])[0]  # [n_layers, n_bands]
    for layer in range(n_layers):
        color = colors(layer / max(n_layers - 1, 1))
        together.plot(middle[layer], color=color, marker="o", markersize=4, linewidth=1.6, clip_on=False)
        if n_layers <= MOST_LABELS:
            _label_end(together, middle[layer], layer, color)
    if n_layers > MOST_LABELS:
        left.colorbar(of_layers, ax=together, label="layer", ticks=MaxNLocator(integer=True), aspect=40, pad=0.02)
    together.set(title="Median over the neurons of each layer", ylabel="mean distance of inputs")

    bands = counts.sum(axis=(0, 1), dtype=np.float64)
    bars = share.bar(range(len(bands)), bands / max(bands.sum(), 1), width=0.7, color=BLUE, alpha=0.6)
    share.bar_label(bars, [_percent(part) for part in bands / max(bands.sum(), 1)], fontsize=8, padding=1)
    share.set(ylabel="share of\nfiring tokens", xlabel="activation, % of the neuron's maximum")
    share.margins(y=0.25)

    low, center, high = _quantiles(distances, [0.25, 0.5, 0.75])
    for axes, layer in zip(panels.flat, shown, strict=False):
        there = np.flatnonzero(~np.isnan(center[layer]))
        axes.fill_between(there, low[layer][there], high[layer][there], color=BLUE, alpha=0.25, linewidth=0)
        axes.plot(there, center[layer][there], color=BLUE, marker="o", markersize=4, linewidth=1.6)
        if corpus is not None and not np.isnan(corpus[layer]).all():
            axes.axhline(np.nanmedian(corpus[layer]), color=ORANGE, linestyle="--", linewidth=1.3)
        axes.set_title(f"layer {layer}", fontsize=10, pad=3)
    for axes in panels.flat[len(shown) :]:
        axes.set_visible(False)
    for axes in (together, share, *panels.flat):
        axes.grid(axis="y", color="0.9")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xticks(range(len(edges) - 1), _names(edges), fontsize=8 if n_columns < _COLUMNS else 7)
    for column in range(n_columns):  # a shorter last row leaves columns without labels of their own
        lowest = panels[(len(shown) - 1 - column) // n_columns, column]
        lowest.xaxis.set_tick_params(labelbottom=True)
    for axes in (together, *panels.flat):
        axes.set_ylim(bottom=0)
    together.set_ylim(panels[0, 0].get_ylim())
    right.supylabel("mean cosine distance of a neuron's inputs", fontsize=10)
    keys: list[Any] = [
        Line2D([], [], color=BLUE, marker="o", markersize=4, label="median of the neurons"),
        Patch(color=BLUE, alpha=0.25, linewidth=0, label="their middle half"),
    ]
    if corpus is not None:
        keys.append(
            Line2D([], [], color=ORANGE, linestyle="--", label="median over all inputs at which a neuron fires")
        )
    right.legend(handles=keys, loc="outside lower center", ncols=len(keys), frameon=False, fontsize=9)
    figure.suptitle(title or "How meanings multiply below the maximum")
    return figure


def _label_end(axes: Axes, middle: np.ndarray, layer: int, color: Any) -> None:
    """The layer's number at the end of its line."""
    known = np.flatnonzero(~np.isnan(middle))
    if len(known):
        place = (float(known[-1]), float(middle[known[-1]]))
        axes.annotate(
            f"layer {layer}",
            place,
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=color,
            annotation_clip=False,
        )


def _quantiles(distances: np.ndarray, which: list[float]) -> np.ndarray:
    """[len(which), n_layers, n_bands] over the neurons that have a distance; NaN where none has."""
    found = np.full((len(which), distances.shape[0], distances.shape[2]), np.nan)
    for layer, band in np.ndindex(found.shape[1:]):
        known = distances[layer, :, band]
        known = known[~np.isnan(known)]
        if len(known):
            found[:, layer, band] = np.quantile(known, which)
    return found


def _names(edges: np.ndarray) -> list[str]:
    return [f"{100 * low:g}–{100 * high:g}" for low, high in itertools.pairwise(edges)]


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%" if share >= 0.095 else f"{100 * share:.2g}%"
