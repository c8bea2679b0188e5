"""The measures of units over inputs in memory: neurons of a layer, or latents of a sparse autoencoder.

The pipeline finds every neuron's best examples in a corpus; here the examples are the first that fire, in the order of
the data, and the mean distance of *all* that fire is computed in its streaming form.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from nejax.neuron._kernels.one_kernel import layer_program, loops_are_kernels
from nejax.neuron.clustering.average_linkage import average_linkage, cut
from nejax.neuron.embeddings import embedding_distances
from nejax.neuron.polysemanticity import (
    Polysemanticity,
    count_unit_embeddings,
    polysemanticity,
    streaming_mean_distance,
    sum_unit_embeddings,
)

CHUNK = 512
"""Units measured by one call."""


class UnitMeasures(NamedTuple):
    """The measures of `n` units. NaN where there is no pair of examples."""

    n_fired: np.ndarray
    """`[n]` int64: at how many inputs each fires."""
    first: np.ndarray
    """`[n, n_examples]` int32: the first inputs at which it fires; -1 beyond the last."""
    measures: Polysemanticity
    """Of these first ones, clustered by average linkage; fields `[n]`."""
    streaming_mean_distance: np.ndarray
    """`[n]` float32: mean distance over all pairs of inputs at which it fires."""

    @property
    def n_dead(self) -> int:
        """How many never fire."""
        return int((self.n_fired == 0).sum())

    def mean(self, values: ArrayLike) -> float:
        """Mean of one number a unit, over the units that have it; NaN if none has."""
        values = np.asarray(values)
        there = np.isfinite(values)
        return float(np.mean(values[there], dtype=np.float64)) if there.any() else float("nan")


def measure_units(
    x: Float[np.ndarray, "n_inputs d"],
    w_in: Float[Array, "d n"] | Float[np.ndarray, "d n"],
    fires: Callable[[Any, Float[Array, "b d"]], Bool[Array, "b n"]],
    of: Any = None,
    *,
    n_examples: int = 100,
    height: float = 0.05,
    batch_size: int = 4096,
) -> UnitMeasures:
    """Measure units on inputs, in two passes: which fire where, then the distances of each unit's first examples.

    Args:
        x: `[n_inputs, d]` what the units read, on the host.
        w_in: `[d, n]` their input weights, a column a unit.
        fires: `(of, inputs [b, d]) -> [b, n]`, which units fire. The same function is compiled once for one shape.
        of: what it needs besides the inputs, a tree of arrays: parameters, thresholds.
        n_examples: examples of each unit: the first at which it fires (Foote 2024, arXiv 2411.08166: 100).
        height: at which the average linkage of these is cut (there: 0.05 for latents, 0.2 for neurons).
        batch_size: inputs a pass. It does not change the result beyond rounding.

    Returns:
        The measures of each unit.
    """
    w_in, batch_size = jnp.asarray(w_in), min(batch_size, len(x))
    first = _FirstExamples(w_in.shape[1], n_examples)
    sums, counts = jnp.zeros(w_in.shape), jnp.zeros(w_in.shape[1])

    for start in range(0, len(x), batch_size):
        batch = x[start : start + batch_size]
        real = np.arange(batch_size) < len(batch)
        batch = np.pad(batch, ((0, batch_size - len(batch)), (0, 0)))  # one shape, one compilation
        sums, counts, mask = _look(sums, counts, of, w_in, batch, real, fires=fires)
        first.add(start, np.asarray(mask))
    return UnitMeasures(
        n_fired=first.n_fired,
        first=first.index,
        measures=_measure_examples(x, np.asarray(w_in), first.index, height),
        streaming_mean_distance=np.asarray(streaming_mean_distance(sums, counts)),
    )


@partial(jax.jit, static_argnames="fires", donate_argnames=("sums", "counts"))
def _look(
    sums: Array, counts: Array, of: Any, w_in: Array, x: Array, real: Array, *, fires: Callable
) -> tuple[Array, Array, Array]:
    """Add a batch to the sums of unit embeddings and their counts; and which units fire."""
    mask = fires(of, x) & real[:, None]
    return sums + sum_unit_embeddings(x, w_in, mask), counts + count_unit_embeddings(x, w_in, mask), mask


class _FirstExamples:
    """The first inputs at which each unit fires."""

    def __init__(self, n_units: int, n_examples: int):
        self.index = np.full((n_units, n_examples), -1, np.int32)
        self.n_fired = np.zeros(n_units, np.int64)

    def add(self, start: int, mask: Bool[np.ndarray, "b n"]) -> None:
        """Add a batch whose first input has number `start`."""
        open_units = np.flatnonzero(self.n_fired < self.index.shape[1])
        unit, row = np.nonzero(mask[:, open_units].T)  # in the order of units, then of inputs
        n_new = np.bincount(unit, minlength=len(open_units))
        place = self.n_fired[open_units][unit] + np.arange(len(unit)) - (np.cumsum(n_new) - n_new)[unit]
        fits = place < self.index.shape[1]
        self.index[open_units[unit[fits]], place[fits]] = start + row[fits]
        self.n_fired += mask.sum(axis=0)


def _measure_examples(
    x: np.ndarray, w_in: np.ndarray, first: Int[np.ndarray, "n n_examples"], height: float
) -> Polysemanticity:
    """The measures of each unit's examples, `CHUNK` units a call."""
    parts = []
    for start in range(0, len(first), CHUNK):
        index = first[start : start + CHUNK]
        missing = min(CHUNK, len(first)) - len(index)
        index = np.pad(index, ((0, missing), (0, 0)), constant_values=-1)
        # Only the inputs that are someone's example go to the device, as many as there can be at most: one shape.
        rows, place = np.unique(np.maximum(index, 0), return_inverse=True)
        some = np.pad(x[rows], ((0, min(index.size, len(x)) - len(rows)), (0, 0)))
        w = np.pad(w_in[:, start : start + CHUNK].T, ((0, missing), (0, 0)))
        found = _measure_chunk(some, np.where(index >= 0, place.reshape(index.shape), -1), w, height)
        parts.append(jax.tree.map(lambda values: np.asarray(values)[: len(index) - missing], found))  # noqa: B023
    return jax.tree.map(lambda *values: np.concatenate(values), *parts)


@partial(jax.jit, static_argnames="height")
@layer_program
def _measure_chunk(
    x: Float[Array, "rows d"], index: Int[Array, "chunk n_examples"], w: Float[Array, "chunk d"], height: float
) -> Polysemanticity:
    def unit(of_unit: tuple[Array, Array]) -> Polysemanticity:
        index, w = of_unit
        mask = index >= 0
        distances = embedding_distances(x[jnp.maximum(index, 0)], w)
        return polysemanticity(distances, cut(average_linkage(distances, mask), height))

    return lax.map(unit, (index, w), batch_size=None if loops_are_kernels() else 8)
