"""Pictures of units: what each looks for, what it finds, its effect on the classes, the clusters of its inputs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mnist.images import Images
from mnist.mlp import MLP
from mnist.training import hidden_layer
from nejax.models.sae.architectures import SAE
from nejax.neuron.clustering.average_linkage import average_linkage, cut
from nejax.neuron.embeddings import embedding_distances
from nejax.neuron.polysemanticity import polysemanticity

N_EXAMPLES = 100
N_CLUSTERS = 4
"""The largest are shown."""

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#666666"
INK, SIGNED = "gray_r", "RdBu_r"


class Unit(NamedTuple):
    """A neuron or a latent, as its picture shows it."""

    name: str
    weights: Float[np.ndarray, " d_in"]
    """What it looks for, as an image."""
    effect: Float[np.ndarray, " n_classes"]
    """What it adds to the classes' scores when its activation rises by 1."""
    examples: Int[np.ndarray, " n"]
    """The first images at which it fires."""
    clusters: Int[np.ndarray, " n"]
    """Which cluster each is in."""
    mean_distance: float
    """Between these examples."""


def hidden_units(mlp: MLP, images: Images, chosen: Sequence[int], *, height: float = 0.2) -> list[Unit]:
    """Neurons of the hidden layer. Their examples are above half of their maximum, their inputs the pixels."""
    activations = hidden_layer(mlp, images.x)
    w_in, effects = np.asarray(mlp.input_weights()), np.asarray(mlp.W_out[...])
    return [
        _unit(f"neuron {j}", images.x, w_in[:, j], w_in[:, j], effects[j], _above_half(activations[:, j]), height)
        for j in chosen
    ]


def _above_half(activation: Float[np.ndarray, " n"]) -> np.ndarray:
    return activation > 0.5 * activation.max()


def latent_units(
    mlp: MLP, sae: SAE, hidden: Float[np.ndarray, "n d_hidden"], chosen: Sequence[int], *, height: float = 0.05
) -> list[Unit]:
    """Latents of an SAE on the hidden layer. Their examples are where they fire, their inputs the hidden neurons.

    The image of a latent's weights is `W_in @ W_enc[:, j]`: what it looks for, through the neurons it reads, as if all
    of them were on.
    """
    w_enc = np.asarray(sae.W_enc[...])
    images, effects = np.asarray(mlp.input_weights()) @ w_enc, np.asarray(mlp.class_effects(sae.W_dec[...]))
    fires = np.asarray(sae.encode(jnp.asarray(hidden))) > 0
    return [_unit(f"latent {j}", hidden, w_enc[:, j], images[:, j], effects[j], fires[:, j], height) for j in chosen]


def _unit(
    name: str, x: np.ndarray, w: np.ndarray, image: np.ndarray, effect: np.ndarray, fires: np.ndarray, height: float
) -> Unit:
    examples = np.flatnonzero(fires)[:N_EXAMPLES]
    distances = embedding_distances(jnp.asarray(x[examples]), jnp.asarray(w))
    labels = cut(average_linkage(distances), height)
    mean_distance = float(polysemanticity(distances, labels).mean_distance)
    return Unit(name, image, effect, examples, np.asarray(labels), mean_distance)


def one_for_each_class(effects: Float[np.ndarray, "n n_classes"], n_fired: Int[np.ndarray, " n"]) -> list[int]:
    """For each class, the unit that raises its score most above the mean of the others, of those with enough examples.

    A unit stands for one class only; fewer are returned where there are not enough, none where none ever fires.
    """
    left = np.flatnonzero(n_fired >= max(1, min(N_EXAMPLES, n_fired.max()))).tolist()
    effects = effects / np.maximum(np.linalg.norm(effects, axis=1, keepdims=True), 1e-30)
    chosen: list[int] = []
    for c in range(effects.shape[1]):
        if left:
            chosen.append(max(left, key=lambda j: effects[j, c] - effects[j].mean()))
            left.remove(chosen[-1])
    return chosen


def draw_units(units: Sequence[Unit], images: Images, title: str, path: Path) -> None:
    """A row a unit: its weights, average image and effect; its largest clusters as image and product.

    Without units there is no file.
    """
    if not units:
        return
    figure = Figure(figsize=(15, 1.35 * len(units) + 1.1), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.03)  # pyright: ignore
    ratios = [1.0, 1.0, 1.7, *[1.0] * (2 * N_CLUSTERS)]
    rows = figure.subplots(len(units), len(ratios), width_ratios=ratios, squeeze=False)
    for axes, unit in zip(rows, units, strict=True):
        _draw(axes, unit, images)
    heads = ["weights", "average input", "effect on the classes"]
    heads += [f"{head} {c + 1}" for c in range(N_CLUSTERS) for head in ("cluster", "× weights")]
    for axes, head in zip(rows[0], heads, strict=True):
        axes.set_title(head, fontsize=9)
    key = "Red is positive, blue negative. The products of a row share one scale; paper counts as 0 in them."
    figure.suptitle(f"{title}\n{key}", x=0.005, ha="left", fontsize=11)
    figure.savefig(path, dpi=110)


def _draw(axes: Any, unit: Unit, images: Images) -> None:
    ink = images.x[unit.examples] * images.deviation + images.mean
    _image(axes[0], unit.weights, images.shape, signed=True)
    label = [unit.name, f"{len(unit.examples)} examples", f"{unit.clusters.max() + 1} clusters"]
    label.append(f"distance {unit.mean_distance:.2f}")
    axes[0].set_ylabel("\n".join(label), rotation=0, ha="right", va="center", fontsize=9)
    _image(axes[1], ink.mean(axis=0), images.shape)
    _bars(axes[2], unit.effect)
    sizes = np.bincount(unit.clusters)
    largest = np.argsort(-sizes, kind="stable")[:N_CLUSTERS]
    averages = [ink[unit.clusters == c].mean(axis=0) for c in largest]
    scale = max(float(np.abs(average * unit.weights).max()) for average in averages)
    for size, average, pair in zip(sizes[largest].tolist(), averages, axes[3:].reshape(-1, 2), strict=False):
        _image(pair[0], average, images.shape)
        _image(pair[1], average * unit.weights, images.shape, signed=True, scale=scale)
        pair[0].set_xlabel(f"{size} example{'s'[: size > 1]}", fontsize=8, color=GREY, labelpad=2)
    for empty in axes[3 + 2 * len(largest) :]:
        empty.axis("off")


def _image(
    axes: Axes, pixels: np.ndarray, shape: tuple[int, int], *, signed: bool = False, scale: float | None = None
) -> None:
    top = scale or float(np.abs(pixels).max()) or 1.0
    axes.imshow(pixels.reshape(shape), cmap=SIGNED if signed else INK, vmin=-top if signed else 0, vmax=top)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(color="#cccccc", linewidth=0.6)


def _bars(axes: Axes, effect: np.ndarray) -> None:
    axes.bar(range(len(effect)), effect, color=[ORANGE if value > 0 else BLUE for value in effect], width=0.75)
    axes.axhline(0, color=GREY, lw=0.6)
    axes.set_xticks(range(len(effect)), [str(c) for c in range(len(effect))], fontsize=7)
    axes.tick_params(length=0, pad=1)
    axes.set_yticks([])
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
