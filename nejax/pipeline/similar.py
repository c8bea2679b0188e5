"""Which features of other neurons read nearly the same: cosines between the inputs of central examples."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int

from nejax.errors import UserError
from nejax.neuron.embeddings import unit_rows
from nejax.pipeline.devices import AXIS, fetch, fill_up, mesh_of_all, place

N_ROWS, N_COLUMNS, GROUP = 1024, 32768, 32
"""Features that are compared at a time, on all devices together, and with how many others: 128 MiB of cosines.

The others are sifted by groups of neighbours in id."""

SAME = 1 - 1e-6
"""A cosine from here on counts as 1: equal inputs differ from 1 by rounding only, and must tie."""


class Similar(NamedTuple):
    """The features most like each feature, the most similar first; of equally similar ones, the lower id."""

    feature: np.ndarray
    """[n_features, k] int32, ids of features; -1 where there are no more."""
    similarity: np.ndarray
    """[n_features, k] float32, cosine of the inputs of the two central examples; NaN where there are no more."""


def similar_features(
    inputs: np.ndarray,
    neuron: np.ndarray,
    *,
    k: int,
    threshold: float,
    progress: Callable[[int], object] = lambda n_pairs: None,
) -> Similar:
    """The `k` nearest features of other neurons, by the cosine of what their central examples read.

    `similarity(f, g) = x_f . x_g / (|x_f| |x_g|)`, where `x_f` is the input of the layer of `f` at the peak of its
    central example. Exact: all pairs are compared, in blocks of one shape, and beside the arguments and the result
    memory does not grow with the number of features. Neurons of one layer that peak at the same token of the same
    sequence have the same input: their similarity is exactly 1. An input of zeros has no direction: its similarity to
    any other is 0.
    Source: Foote 2024, arXiv 2411.08166, similar features.

    Args:
        inputs: [n_features, d_model] float32.
        neuron: [n_features] int, the neuron of each feature: no two features of one neuron are compared.
        k: at most so many are found for each feature, at least 1.
        threshold: similarities must be above it.
        progress: called with the number of pairs of each block that was compared.

    Returns:
        Features and their similarities.

    Raises:
        UserError: an input is not finite.
    """
    n = len(inputs)
    mesh = mesh_of_all()
    n_rows, n_columns = _even_block(n, N_ROWS, mesh.size), _even_block(n, N_COLUMNS, GROUP)
    best = np.full((n, k), -np.inf, np.float32), np.full((n, k), -1, np.int32)
    for first in range(0, n, n_columns):
        last = min(first + n_columns, n)
        block = fill_up(inputs[first:last], n_columns), fill_up(neuron[first:last], n_columns)
        others = (_unit(place(block[0])), *place((block[1], np.int32(first), np.int32(last), np.float32(threshold))))
        if not np.isfinite(block[0]).all():
            raise UserError("the inputs of central examples are not all finite; check the model's weights")
        for start in range(0, n, n_rows):
            rows = slice(start, min(start + n_rows, n))
            mine = place([fill_up(values[rows], n_rows) for values in (*best, inputs, neuron)], AXIS)
            for values, merged in zip(best, fetch(_merge_on(mesh)(*mine, *others)), strict=True):
                values[rows] = merged[: rows.stop - start]
            progress((rows.stop - start) * (last - first))
    similarity, feature = best
    is_there = similarity > -np.inf
    return Similar(np.where(is_there, feature, -1), np.where(is_there, similarity, np.float32(np.nan)))


@functools.cache
def _merge_on(mesh: Mesh) -> Callable:
    """`_merge` with its rows spread over devices: the first four arguments and the results."""
    everywhere, spread = PartitionSpec(), PartitionSpec(*mesh.axis_names)
    in_specs = (spread,) * 4 + (everywhere,) * 5
    return jax.jit(jax.shard_map(_merge, mesh=mesh, in_specs=in_specs, out_specs=spread))


def _merge(
    similarity: Float[Array, "rows k"],
    feature: Int[Array, "rows k"],
    x: Float[Array, "rows d_model"],
    neuron: Int[Array, " rows"],
    others: Float[Array, "columns d_model"],
    neuron_of_others: Int[Array, " columns"],
    first: Int[Array, ""],
    last: Int[Array, ""],
    threshold: Float[Array, ""],
) -> tuple[Float[Array, "rows k"], Int[Array, "rows k"]]:
    """The best of those found so far and of one block of others: unit inputs of the features `first` to `last - 1`.

    `lax.top_k` prefers what comes first among equals, so everything is kept in order of id.
    """
    cosine = jnp.matmul(unit_rows(x), others.T, precision=lax.Precision.HIGHEST)
    cosine = jnp.where(cosine > SAME, 1, cosine)
    is_other = (neuron[:, None] != neuron_of_others) & (first + jnp.arange(len(others)) < last)
    groups = jnp.where(is_other & (cosine > threshold), cosine, -jnp.inf).reshape(len(x), -1, GROUP)
    # The best k stand in the k groups whose maxima are highest: sorting those is much less than sorting all.
    _, chosen = lax.top_k(groups.max(axis=2), min(feature.shape[1], groups.shape[1]))
    chosen = jnp.sort(chosen, axis=1)[:, :, None]
    candidate = jnp.take_along_axis(groups, chosen, axis=1).reshape(len(x), -1)
    candidate_id = (first + chosen * GROUP + jnp.arange(GROUP)).reshape(len(x), -1)
    similarity, at = lax.top_k(jnp.concatenate([similarity, candidate], axis=1), feature.shape[1])
    return similarity, jnp.take_along_axis(jnp.concatenate([feature, candidate_id], axis=1), at, axis=1)


_unit = jax.jit(unit_rows)


def _even_block(n: int, most: int, multiple: int) -> int:
    """The size, a multiple, of the fewest blocks of about `most` that hold `n`: the last is hardly filled up."""
    n_blocks = max(1, -(-n // most))
    return max(1, -(-n // (n_blocks * multiple))) * multiple
