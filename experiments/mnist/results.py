"""What the runs of one table came to: each seed's numbers, their means and spreads, the table."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from nejax.models.sae.architectures import SAE
from nejax.models.sae.evaluation import SAEReport, evaluate_sae


class Trained(NamedTuple):
    """One trained SAE."""

    seed: int
    """Of the MLP that it reads, and of its own training."""
    sae: SAE
    report: SAEReport
    """On the images that the MLP was trained on."""
    test: dict[str, float]
    """On others: `l0` and `unexplained`."""


COLUMNS = {
    "l0": ("L0", "{:.1f}"),
    "squared_error": ("squared error", "{:.3f}"),
    "unexplained": ("of the variance", "{:.3f}"),
    "dead": ("dead latents", "{:.1f}"),
    "mean_distance": ("mean distance", "{:.3f}"),
    "n_clusters": ("clusters a latent", "{:.1f}"),
    "test_l0": ("L0, test", "{:.1f}"),
    "test_unexplained": ("of the variance, test", "{:.3f}"),
}
"""The numbers of an SAE, with their heads and formats in the table."""

PUBLISHED_SHAPE = (60_000, 784)
"""Of MNIST's training images: only beside these do the published numbers stand."""

PUBLISHED = {
    "published, standard": {
        "l0": 12.2,
        "squared_error": 0.340,
        "unexplained": 0.125,
        "dead": 95,
        "mean_distance": 0.207,
        "n_clusters": 18.7,
    },
    "published, with the neuron-embedding loss": {
        "l0": 45.1,
        "squared_error": 0.547,
        "unexplained": 0.201,
        "dead": 12,
        "mean_distance": 0.112,
        "n_clusters": 11.7,
    },
}
"""Measured in the same way on the two SAEs of 512 latents that Foote published, on the hidden layer of his own MLP,
over the 60,000 training images of MNIST. The squared error depends on the MLP's scale; its share of the variance does
not."""


def numbers(trained: Trained) -> dict[str, Any]:
    """One seed's numbers, for JSON."""
    report = trained.report
    return {
        "seed": trained.seed,
        **{name: getattr(report, name) for name in COLUMNS if not name.startswith("test_")},
        "streaming_mean_distance": report.streaming_mean_distance,
        "nearly_dead": int(np.sum((report.latents.n_fired > 0) & (report.latents.n_fired < report.n_inputs / 2000))),
        **{f"test_{name}": value for name, value in trained.test.items()},
    }


def measured(sae: SAE, seed: int, x: Float[np.ndarray, "n d_in"], x_test: Float[np.ndarray, "m d_in"]) -> Trained:
    """Evaluate an SAE that was trained with a seed on `x`, there and on other inputs."""
    l0, unexplained = _on_test(sae, jnp.asarray(x_test))
    return Trained(seed, sae, evaluate_sae(sae, x), {"l0": float(l0), "unexplained": float(unexplained)})


@nnx.jit
def _on_test(sae: SAE, x: Float[Array, "m d_in"]) -> tuple[Array, Array]:
    """See `SAEReport`. Nothing is clustered: that of few inputs would not compare."""
    error, variance = jnp.sum((x - sae(x)) ** 2), jnp.sum((x - x.mean(axis=0)) ** 2)
    return jnp.mean(jnp.sum(sae.encode(x) > 0, axis=-1)), error / variance


def summary(seeds: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation (over `n - 1`; 0 for one seed) of each number over seeds."""
    values = {name: np.array([of_seed[name] for of_seed in seeds], np.float64) for name in seeds[0] if name != "seed"}
    return {
        name: {"mean": float(v.mean()), "deviation": float(v.std(ddof=1)) if len(v) > 1 else 0.0}
        for name, v in values.items()
    }


def table(rows: dict[str, dict[str, dict[str, float]]], published: dict[str, dict[str, float]]) -> str:
    """A Markdown table: a row an SAE, mean ± standard deviation.

    Args:
        rows: of each name, its `summary`.
        published: single numbers of others, put first.
    """
    lines = [["SAE", *(head for head, _ in COLUMNS.values())]]
    for name, given in published.items():
        lines.append([name, *(f.format(given[c]) if c in given else "" for c, (_, f) in COLUMNS.items())])
    for name, found in rows.items():
        cells = [f"{f.format(found[c]['mean'])} ± {f.format(found[c]['deviation'])}" for c, (_, f) in COLUMNS.items()]
        lines.append([name, *cells])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    padded = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([padded[0], rule, *padded[1:]])
