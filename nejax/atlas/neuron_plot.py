"""A picture of one neuron: the dendrogram of its examples, coloured by feature, next to the peak tokens of each
feature."""

from collections import Counter
from pathlib import Path
from textwrap import shorten

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nejax.atlas.entries import Feature
from nejax.atlas.neuron import Neuron
from nejax.atlas.units import capitalized

COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
"""Of the largest features: Okabe and Ito's palette, which colour-blind people can tell apart."""
OTHER = "#9a9a9a"
"""Of the features after those, and of merges above the cut."""

_SNIPPETS = 3
_WIDTH = 104


def plot_neuron(neuron: Neuron, file: Path | str) -> Path:
    """Draw one neuron.

    Args:
        neuron: with at least two examples.
        file: where the PNG goes.

    Returns:
        The file.
    """
    figure = Figure(figsize=(13, 6.2), layout="constrained")
    tree, text = figure.subplots(1, 2, width_ratios=[4, 9])
    _draw_dendrogram(tree, neuron)
    shown = [feature for feature in neuron.features[: len(COLOURS)] if feature.n_examples > 1]
    _write_features(text, shown or neuron.features[:1])
    rest = len(neuron.features) - len(shown)
    figure.suptitle(
        f"{capitalized(neuron.name)}: {neuron.n_examples} examples, {neuron.n_features} features"
        + (f" ({rest} small ones not shown)" if rest else "")
        + f", mean distance {neuron.mean_distance:.2f}",
        x=0.01,
        ha="left",
    )
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
    return file


def _colour(feature: int) -> str:
    return COLOURS[feature] if feature < len(COLOURS) else OTHER


def _draw_dendrogram(axes: Axes, neuron: Neuron) -> None:
    """Leaves from top to bottom, heights from left to right; a merge within one feature has the feature's colour."""
    merges = np.asarray(neuron.linkage.merges)
    n_leaves = len(merges) + 1
    label = [example.feature for example in neuron.examples]
    place = {leaf: row for row, leaf in enumerate(_leaf_order(merges, neuron.n_merges))}
    at = {leaf: (0.0, float(row), label[leaf]) for leaf, row in place.items()}
    for k in range(neuron.n_merges):
        (x1, y1, one), (x2, y2, other) = at[int(merges[k, 0])], at[int(merges[k, 1])]
        height = float(merges[k, 2])
        feature = one if one == other else -1
        axes.plot([x1, height, height, x2], [y1, y1, y2, y2], color=_colour(feature) if feature >= 0 else OTHER, lw=1.2)
        at[n_leaves + k] = height, (y1 + y2) / 2, feature
    axes.scatter(np.zeros(len(place)), list(place.values()), s=9, c=[_colour(label[leaf]) for leaf in place], zorder=3)
    if not np.isnan(neuron.height):
        axes.axvline(neuron.height, color="black", lw=0.8, ls="--")
        axes.text(neuron.height, -1.8, f"cut at {neuron.height:.2f}", ha="center", va="bottom", fontsize=8)
    axes.invert_yaxis()
    axes.set_yticks([])
    axes.set_xlabel("cosine distance of neuron embeddings")
    axes.spines[["top", "right", "left"]].set_visible(False)


def _leaf_order(merges: np.ndarray, n_merges: int) -> list[int]:
    """The leaves such that no two branches cross."""
    n_leaves = len(merges) + 1
    if not n_merges:
        return [0]
    order, stack = [], [n_leaves + n_merges - 1]
    while stack:
        node = stack.pop()
        if node < n_leaves:
            order.append(node)
        else:
            stack += [int(merges[node - n_leaves, 1]), int(merges[node - n_leaves, 0])]
    return order


def _write_features(axes: Axes, features: list[Feature]) -> None:
    axes.set_axis_off()
    axes.set_ylim(len(features) * (_SNIPPETS + 1.9), -0.5)
    axes.set_xlim(0, 1)
    row = 0.0
    for feature in features:
        peaks = "  ".join(f"{name} ×{count}" for name, count in _named(feature.peak_tokens))
        axes.text(
            0.0,
            row,
            f"Feature {feature.index}: {feature.n_examples} examples, cohesion {feature.cohesion:.2f}   "
            + shorten(peaks, 70, placeholder=" …"),
            color=_colour(feature.index),
            weight="bold",
            fontsize=9.5,
            parse_math=False,
        )
        others = [example for example in feature.examples if example is not feature.central]
        for i, example in enumerate([feature.central, *others][:_SNIPPETS]):
            line = example.snippet(_WIDTH)
            axes.text(0.015, row + 1 + i, line, family="DejaVu Sans Mono", fontsize=8.5, parse_math=False)
        row += _SNIPPETS + 1.9


def _named(peak_tokens: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """Peak tokens by what is shown of them, those that differ in white space alone as one, the most frequent first."""
    counts: Counter[str] = Counter()
    for text, count in peak_tokens:
        counts[text.strip() or repr(text)] += count
    return counts.most_common()
