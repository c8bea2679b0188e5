"""Plots of an atlas: the distribution of its measures in each layer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from nejax.atlas.atlas import Atlas

BLUE, ORANGE = "#0072B2", "#D55E00"
"""Of Okabe and Ito's palette, which colour-blind people can tell apart."""

Table = dict[str, np.ndarray]


class _Panel(NamedTuple):
    """One measure of the neurons."""

    title: str
    unit: str
    column: str
    log: bool = False


_ACTIVITY = [
    _Panel("Firing rate", "share of tokens", "firing_rate", log=True),
    _Panel("Maximum activation", "activation", "max_activation"),
    _Panel("Examples", "examples a neuron", "n_examples"),
    _Panel("Features", "features a neuron", "n_features"),
]
_DISTANCES = [
    _Panel("Mean distance of examples", "cosine distance", "mean_distance"),
    _Panel("... within features", "cosine distance", "intra_cluster_distance"),
    _Panel("... between features", "cosine distance", "inter_cluster_distance"),
]
_HEIGHT = _Panel("Height of the cut", "cosine distance", "height")
_SILHOUETTE = _Panel("Silhouette", "mean silhouette", "silhouette")


def plot_measures(atlas: Atlas, folder: Path | str) -> list[Path]:
    """Draw the distributions of measures over neurons and features.

    Args:
        atlas: opened.
        folder: made if it is not there; files of the same names are replaced.

    Returns:
        The files: `neurons.png`, the measures of the neurons by layer; `features.png`, the sizes and the cohesion of
        the features, and mean distances beside heights (or silhouettes).
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Callable[[Atlas], Figure]] = {"neurons.png": _neurons, "features.png": _features}
    for name, draw in figures.items():
        draw(atlas).savefig(folder / name, dpi=120)
    return [folder / name for name in figures]


def _neurons(atlas: Atlas) -> Figure:
    table = atlas.neurons_table()
    alive = {name: column[table["n_examples"] > 0] for name, column in table.items()}
    figure = _new_figure(6.5)
    rows = figure.subplots(2, len(_ACTIVITY), sharex=True)
    for axes in rows[1]:
        axes.sharey(rows[1, 0])
        axes.set_xlabel("layer")
    panels = [*_ACTIVITY, *_DISTANCES, _separation(table)]
    for axes, panel in zip(rows.flat, panels, strict=True):
        _spread(axes, alive["layer"], alive[panel.column], atlas.n_layers, panel)
    for axes, panel in zip(rows.flat, panels, strict=True):  # not before all is drawn: some share it
        axes.set_ylim(bottom=None if panel.log else 0)
    n_dead = atlas.n_neurons - len(alive["id"])
    what = "neurons" if atlas.sides == 1 else "sides of neurons"
    _title(figure, atlas, f"{len(alive['id']):,} {what}{f' ({n_dead:,} dead ones left out)' if n_dead else ''}")
    figure.legend(handles=_KEYS, loc="outside lower center", ncols=len(_KEYS), frameon=False)
    return figure


def _separation(neurons: dict[str, np.ndarray]) -> _Panel:
    """The measure of how far apart features are: the height of the cut, or for other clusterings the silhouette."""
    return _SILHOUETTE if np.isnan(neurons["height"]).all() else _HEIGHT


def _features(atlas: Atlas) -> Figure:
    neurons, features = atlas.neurons_table(), atlas.features_table()
    figure = _new_figure(4.3)
    sizes, cohesion, distances = figure.subplots(1, 3)

    count = np.bincount(features["n_examples"])[1:]
    sizes.bar(np.arange(1, len(count) + 1), count, width=1, color=BLUE)
    sizes.set(yscale="log", title="Size of features", xlabel="examples a feature", ylabel="features")
    sizes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _plain(sizes)

    panel = _Panel("Cohesion of features of 2 or more examples", "mean cosine similarity", "cohesion")
    _spread(cohesion, features["layer"], features["cohesion"], atlas.n_layers, panel)
    cohesion.set_xlabel("layer")
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.14), "frameon": False}
    cohesion.legend(handles=_KEYS, ncols=len(_KEYS), **below)

    panel = _separation(neurons)
    known = ~np.isnan(neurons["mean_distance"] + neurons[panel.column])
    separation, mean = neurons[panel.column][known], neurons["mean_distance"][known]
    distances.set(
        title=f"Mean distance and {panel.column}", xlabel=panel.title.lower(), ylabel="mean distance of examples"
    )
    if known.any():
        drawn = distances.hexbin(separation, mean, gridsize=40, bins="log", cmap="cividis", mincnt=1, linewidths=0.1)
        figure.colorbar(drawn, ax=distances, label="neurons")
    if known.any() and panel is _HEIGHT:
        middle = np.median(separation)
        distances.axline((middle, middle), slope=1, color=ORANGE, linewidth=1.4, linestyle="--", label="equal")
        distances.legend(**below)
    _plain(distances)

    _title(figure, atlas, f"{len(features['id']):,} features")
    return figure


def _spread(axes: Axes, layer: np.ndarray, values: np.ndarray, n_layers: int, panel: _Panel) -> None:
    """One measure: a bar of quantiles a layer."""
    known = ~np.isnan(values) & ((values > 0) | (not panel.log))
    bar = {**_BAR, "linewidth": min(7, 150 / n_layers)}
    for i in range(n_layers):
        here = values[known & (layer == i)]
        if len(here):
            low, first, middle, third, high = np.quantile(here, [0.05, 0.25, 0.5, 0.75, 0.95])
            axes.plot([i, i], [low, high], **_LINE)
            axes.plot([i, i], [first, third], **bar)
            axes.plot(i, middle, **_DOT)
    axes.set(title=panel.title, ylabel=panel.unit, xlim=(-0.6, n_layers - 0.4))
    axes.set_xticks(range(0, n_layers, -(-n_layers // 8)))
    if panel.log:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
    elif np.issubdtype(values.dtype, np.integer):
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    _plain(axes)


_LINE: dict[str, Any] = {"color": BLUE, "linewidth": 1.2}
_BAR: dict[str, Any] = {"color": BLUE, "linewidth": 7, "alpha": 0.6, "solid_capstyle": "butt"}
_DOT: dict[str, Any] = {
    "marker": "o",
    "color": "white",
    "markeredgecolor": BLUE,
    "markersize": 5,
    "linestyle": "",
    "clip_on": False,
}
_KEYS = [
    Line2D([], [], **_DOT, label="median"),
    Line2D([], [], **_BAR, label="middle half"),
    Line2D([], [], **_LINE, label="5% to 95%"),
]


def _plain(axes: Axes) -> None:
    axes.grid(axis="y", color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _new_figure(height: float) -> Figure:
    figure = Figure(figsize=(13, height), layout="constrained")
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.06)
    return figure


def _title(figure: Figure, atlas: Atlas, what: str) -> None:
    settings = atlas.manifest["settings"]
    figure.suptitle(f"{what} of {Path(settings['model']).name} on {Path(settings['corpus']).name}")
