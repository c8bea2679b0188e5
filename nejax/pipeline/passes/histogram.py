"""Histograms of every neuron's activation over a sample of the corpus.

The bins depend on the lowest activation, so the sample is run twice. Both passes reduce inside the layers' scan, as in
`nejax.pipeline.passes.collect`.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Float, UInt

from nejax.models.reading import LayerView
from nejax.pipeline.corpus.windows import Sequences
from nejax.pipeline.run.devices import AXIS, fetch, mesh_or_all, place, up_to_devices
from nejax.pipeline.run.spread import EVERYWHERE, ReplicatedModel, in_chunks

N_BINS = 40
"""Equal bins of a histogram."""

MOST_TOKENS = 8192
"""The sample is as many sequences as have at most so many tokens, and at least one."""


class Histograms(NamedTuple):
    """The histograms of all neurons over the sample."""

    counts: np.ndarray
    """[n_layers, d_mlp, N_BINS] uint32: tokens in equal bins from the lowest activation to the highest. A token on an
    edge between two bins is in the upper one, and at the highest activation in the last."""
    lowest: np.ndarray
    """[n_layers, d_mlp] float32: the lowest activation in the sample, the left edge of the first bin."""
    n_tokens: int
    """Tokens in the sample: what every neuron's counts sum to."""


def sample_sequences(n_peakable: np.ndarray, seq_len: int, seed: int) -> np.ndarray:
    """Draw the sequences of the sample, without replacement, from those in which anything counts.

    Args:
        n_peakable: [n_sequences] int, how many tokens of each sequence count.
        seq_len: tokens a sequence.
        seed: of the draw.

    Returns:
        [n] int64 numbers of sequences, ascending.
    """
    candidates = np.flatnonzero(n_peakable)
    n = min(max(1, MOST_TOKENS // seq_len), len(candidates))
    return np.sort(np.random.default_rng(seed).choice(candidates, size=n, replace=False))


def activation_histograms(
    model: Any,
    sequences: Sequences,
    can_peak: np.ndarray,
    highest: np.ndarray,
    *,
    batch_size: int,
    mesh: Mesh | None = None,
    progress: Callable[[int], object] = lambda n_tokens: None,
) -> Histograms:
    """Count the tokens in each bin of every neuron's activation.

    Args:
        model: see `nejax.models.reading`.
        sequences: of the sample, see `sample_sequences`.
        can_peak: [n_sequences, seq_len] bool: their tokens that count.
        highest: [n_layers, d_mlp] float32: each neuron's highest activation over the corpus, the right edge of its
            last bin. A neuron whose activation never changes has all its tokens there.
        batch_size: sequences a pass; does not change the result beyond rounding.
        mesh: the devices, see `nejax.pipeline.run.devices.mesh_of`; all of them, if None.
        progress: called with the number of tokens of each batch, twice for each.

    Returns:
        The histograms.
    """
    mesh = mesh_or_all(mesh)
    model, all_rows = ReplicatedModel.on(mesh, model), (sequences.tokens.astype(np.int32), can_peak)

    def batches() -> Iterator[Any]:
        for rows, batch in in_chunks(all_rows, up_to_devices(batch_size, mesh), mesh):
            yield batch
            progress(int(sequences.length[rows].sum()))

    lowest = highest.astype(np.float32)
    for batch in batches():
        lowest = np.minimum(lowest, fetch(_lowest(model, batch)))
    edges = np.linspace(np.float64(lowest), np.float64(highest), N_BINS + 1, axis=1).astype(np.float32)
    inner_edges = place(edges[:, 1:-1], mesh)
    reached = np.zeros((len(highest), N_BINS + 1, highest.shape[1]), np.uint32)
    reached[:, 0] = n_tokens = int(can_peak.sum())
    for batch in batches():
        reached[:, 1:-1] += fetch(_reached(model, batch, inner_edges))
    counts = (reached[:, :-1] - reached[:, 1:]).swapaxes(1, 2)
    return Histograms(np.ascontiguousarray(counts), lowest, n_tokens)


@jax.jit
def _lowest(model: ReplicatedModel, batch: list[Array]) -> Float[Array, "n_layers d_mlp"]:
    """The lowest activation of every neuron at the tokens that count; infinity if none does."""

    def of_rows(model: Any, rows: list[Array]) -> Array:
        tokens, counted = rows

        def read(view: LayerView) -> Array:
            return jnp.where(counted[:, :, None], view.activation, jnp.inf).min(axis=(0, 1))

        return lax.pmin(model(tokens, reader=read)[1], AXIS)

    return model.over_rows(of_rows, batch, out=EVERYWHERE)


@jax.jit
def _reached(
    model: ReplicatedModel, batch: list[Array], edges: Float[Array, "n_layers n_edges d_mlp"]
) -> UInt[Array, "n_layers n_edges d_mlp"]:
    """At how many of the tokens that count every neuron's activation is at least each edge."""

    def of_rows(model: Any, rows: list[Array], edges: Array) -> Array:
        tokens, counted = rows

        def read(view: LayerView) -> Array:
            activation = jnp.where(counted[:, :, None], view.activation, -jnp.inf)
            edge = edges[view.layer]

            # A sequence at a time: neither a scatter, which is slow on CPU, nor all comparisons at once in memory.
            def add(reached: Array, row: Float[Array, "seq d_mlp"]) -> tuple[Array, None]:
                return reached + (row[:, None, :] >= edge).sum(axis=0, dtype=jnp.uint32), None

            none = (edge + activation[0, 0] > jnp.inf).astype(jnp.uint32)  # varies over devices as the sums do
            return lax.scan(add, none, activation)[0]

        return lax.psum(model(tokens, reader=read)[1], AXIS)

    return model.over_rows(of_rows, batch, edges, out=EVERYWHERE)
