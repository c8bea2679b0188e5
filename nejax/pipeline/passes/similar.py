"""The features most like others: cosines between what they read, compared in blocks over devices."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from nejax.errors import UserError
from nejax.neuron.embeddings import unit_rows
from nejax.pipeline.run.devices import fetch, fill_up, mesh_or_all, place
from nejax.pipeline.run.spread import over_devices, place_rows, slices

N_ROWS, N_COLUMNS, GROUP = 1024, 32768, 32
"""Features that are compared at a time, on all devices together, and with how many others: 128 MiB of cosines.

The others are sifted by groups of neighbours in id."""

SAME = 1 - 1e-6
"""A cosine from here on counts as 1: equal inputs differ from 1 by rounding only, and must tie."""


class Similar(NamedTuple):
    """The features most like each feature, the most similar first; of equally similar ones, the lower id."""

    feature: np.ndarray
    """[n_queries, k] int32, ids of features; -1 where there are no more."""
    similarity: np.ndarray
    """[n_queries, k] float32, cosine of the inputs of the two features; NaN where there are no more."""


def similar_features(
    inputs: np.ndarray,
    neuron: np.ndarray,
    *,
    k: int,
    threshold: float,
    recall: float = 1.0,
    queries: np.ndarray | None = None,
    mesh: Mesh | None = None,
    progress: Callable[[int], object] = lambda n_pairs: None,
) -> Similar:
    """The `k` nearest features of other neurons, by the cosine of what they read.

    `similarity(f, g) = x_f . x_g / (|x_f| |x_g|)`, where `x_f` is the input of the layer of `f` at the peak of its
    central example, or the mean of those inputs over all its examples. All pairs are compared, in blocks of one shape,
    and beside the arguments and the result memory does not grow with the number of features. Features of one layer
    whose central examples peak at the same token of the same sequence have the same input: their similarity is exactly
    1. An input of zeros has no direction: its similarity to any other is 0.

    With a `recall` below 1 the best of each block are sought by `jax.lax.approx_max_k`, which keeps one of each group
    of others that it throws together, in groups so small that this share of the true neighbours is expected to be
    found. What is found is right, its similarity too; some may be missing, and worse ones stand in their place. That
    pays where sorting is dear, on a TPU. Elsewhere JAX sorts whole blocks instead: on CPU the result was the exact one
    in every measurement; choosing took twice as long as with `recall=1`, the whole search about as long.
    Sources: Foote 2024, arXiv 2411.08166, similar features; Chern et al. 2022, arXiv 2206.14286, approximate maxima.

    Args:
        inputs: [n_features, d_model] float32.
        neuron: [n_features] int, the neuron of each feature: no two features of one neuron are compared.
        k: at most so many are found for each feature, at least 1.
        threshold: similarities must be above it.
        recall: the share of the true neighbours that is expected to be found, above 0; 1 finds all of them.
        queries: [n_queries] int, ids of the features whose neighbours are sought; all of them, if None.
        mesh: the devices, see `nejax.pipeline.run.devices.mesh_of`; all of them, if None.
        progress: called with the number of pairs of each block that was compared.

    Returns:
        Features and their similarities, a row for each of `queries`.

    Raises:
        UserError: an input is not finite, `recall` is out of range, or a query is not the id of a feature.
    """
    n = len(inputs)
    if not 0 < recall <= 1:
        raise UserError(f"recall={recall:g}: expected a share above 0, at most 1, which is exact")
    queries = np.arange(n) if queries is None else queries
    if len(queries) and not (queries.min() >= 0 and queries.max() < n):
        raise UserError(f"queries from {queries.min()} to {queries.max()}: expected ids of features, 0 to {n - 1}")
    mesh = mesh_or_all(mesh)
    n_rows, n_columns = _even_block(len(queries), N_ROWS, mesh.size), _even_block(n, N_COLUMNS, GROUP)
    best = np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int32)
    for columns in slices(n, n_columns):
        block = fill_up(inputs[columns], n_columns), fill_up(neuron[columns], n_columns)
        if not np.isfinite(block[0]).all():
            raise UserError("the inputs of features are not all finite; check the model's weights")
        bounds = np.int32(columns.start), np.int32(columns.stop), np.float32(threshold)
        others = place((*block, *bounds), mesh)
        others = _unit(others[0]), *others[1:]
        for rows in slices(len(queries), n_rows):
            wanted = (*(values[rows] for values in best), inputs[queries[rows]], neuron[queries[rows]])
            found = fetch(_merge_on(mesh, recall)(others, place_rows(wanted, n_rows, mesh)))
            n_here = rows.stop - rows.start
            for values, merged in zip(best, found, strict=True):
                values[rows] = merged[:n_here]
            progress(n_here * (columns.stop - columns.start))
    similarity, feature = best
    is_there = similarity > -np.inf
    return Similar(np.where(is_there, feature, -1), np.where(is_there, similarity, np.float32(np.nan)))


@functools.cache
def _merge_on(mesh: Mesh, recall: float) -> Callable:
    return jax.jit(over_devices(functools.partial(_merge, recall=recall), mesh))


def _merge(
    block: tuple[
        Float[Array, "columns d_model"], Int[Array, " columns"], Int[Array, ""], Int[Array, ""], Float[Array, ""]
    ],
    rows: list[Array],
    *,
    recall: float,
) -> tuple[Float[Array, "rows k"], Int[Array, "rows k"]]:
    """The best of those found so far and of one block of others.

    `lax.top_k` prefers what comes first among equals, so everything is kept in order of id.

    Args:
        block: unit inputs and neurons of the features `first` to `last - 1`, these two numbers, and the threshold.
        rows: similarities [rows, k] and features [rows, k] that were found, inputs [rows, d_model], neurons [rows].
        recall: see `similar_features`.
    """
    others, neuron_of_others, first, last, threshold = block
    similarity, feature, x, neuron = rows
    cosine = jnp.matmul(unit_rows(x), others.T, precision=lax.Precision.HIGHEST)
    cosine = jnp.where(cosine > SAME, 1, cosine)
    is_other = (neuron[:, None] != neuron_of_others) & (first + jnp.arange(len(others)) < last)
    cosine = jnp.where(is_other & (cosine > threshold), cosine, -jnp.inf)
    at = _candidates(cosine, feature.shape[1]) if recall == 1 else _some_of_best(cosine, feature.shape[1], recall)
    candidate = jnp.take_along_axis(cosine, at, axis=1)
    similarity, kept = lax.top_k(jnp.concatenate([similarity, candidate], axis=1), feature.shape[1])
    return similarity, jnp.take_along_axis(jnp.concatenate([feature, first + at], axis=1), kept, axis=1)


def _candidates(cosine: Float[Array, "rows columns"], k: int) -> Int[Array, "rows candidates"]:
    """Columns in ascending order, the best `k` of each row among them.

    The best `k` stand in the `k` groups whose maxima are highest: sorting those is much less than sorting all.
    """
    groups = cosine.reshape(len(cosine), -1, GROUP)
    _, chosen = lax.top_k(groups.max(axis=2), min(k, groups.shape[1]))
    return (jnp.sort(chosen, axis=1)[:, :, None] * GROUP + jnp.arange(GROUP)).reshape(len(cosine), -1)


def _some_of_best(cosine: Float[Array, "rows columns"], k: int, recall: float) -> Int[Array, "rows candidates"]:
    """Columns in ascending order; the share `recall` of the best `k` of each row is expected among them.

    So is that share of the best of all blocks: those that stand in this one are the first of its best, and the better
    ones are missed less often.
    """
    _, chosen = lax.approx_max_k(cosine, min(k, cosine.shape[1]), recall_target=recall)
    return jnp.sort(chosen, axis=1)


_unit = jax.jit(unit_rows)


def _even_block(n: int, most: int, multiple: int) -> int:
    """The size, a multiple, of the fewest blocks of about `most` that hold `n`: the last is hardly filled up."""
    n_blocks = max(1, -(-n // most))
    return max(1, -(-n // (n_blocks * multiple))) * multiple
