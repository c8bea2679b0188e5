"""Average-linkage clustering of one neuron's examples: the full dendrogram, and its cut at a height."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, ScalarLike

from nejax.errors import UserError
from nejax.neuron._kernels.one_kernel import least, loops_are_kernels, padded_to_lanes, small_call, zero_of
from nejax.neuron.array_function import array_function
from nejax.neuron.clustering.labels import relabel
from nejax.neuron.clustering.pairs import masked_distances


class Linkage(NamedTuple):
    """A dendrogram in SciPy's Z layout.

    Leaves are the rows `0..n-1` of the distances; merge `k` makes cluster `n + k`. With `m` unmasked rows the
    first `m - 1` merges are real; the rows after them are filler: ids -1, height +inf, 0 leaves.

    Example:
        >>> x, w = np.eye(4)[[0, 0, 1, 1, 1, 2]], np.ones(4)
        >>> linkage = nejax.average_linkage(nejax.embedding_distances(x, w))
        >>> print(linkage.n_merges, linkage.merges[:, 2])
        5 [0. 0. 0. 1. 1.]
    """

    merges: Float[Array, "n-1 4"]
    """`[n - 1, 4]` smaller id, larger id, height (the mean distance between the two), number of leaves.
    Heights never decrease; all are NaN if a distance between unmasked rows is not finite."""
    n_merges: Int[Array, ""]
    """`[]` int32: how many of the merges are real."""
    mask: Bool[Array, " n"]
    """`[n]` false where a row was masked: it is in no merge."""


@array_function
@jax.jit
def average_linkage(distances: Float[Array, "n n"], mask: Bool[Array, " n"] | None = None) -> Linkage:
    """Agglomerative clustering: repeatedly merge the two clusters with the least mean distance.

    The distance of clusters A and B is the mean of `d_ij` over `i` in A and `j` in B. The result is that of
    `scipy.cluster.hierarchy.linkage(..., "average")` where all these distances differ. On a tie the
    lowest row wins: of equally near clusters the chain goes to the one with the lowest row, unless one of
    them is where it came from. The dendrogram is then one of several correct ones.

    O(n^2) operations by nearest-neighbour chains: follow nearest neighbours until two clusters are each
    other's nearest, and merge those; for average linkage such a pair is in the dendrogram whatever else is
    merged before.
    Source: Foote 2024, arXiv 2411.08166 (the clustering); Müllner 2011, arXiv 1109.2378 (the algorithm).

    Args:
        distances: `[n, n]` distances, finite between unmasked rows; only those above the diagonal are read.
        mask: `[n]` false where a row does not count; all rows count if None.

    Returns:
        A `Linkage`. It has no gradient.

    Raises:
        UserError: the distances are not square, or the mask has another length.

    Example:
        >>> x, w = np.eye(4)[[0, 0, 1, 1, 1, 2]], np.ones(4)
        >>> linkage = nejax.average_linkage(nejax.embedding_distances(x, w))
        >>> print(linkage.merges[0])  # the first two rows, at a distance of 0, make a cluster of 2
        [0. 1. 0. 2.]
    """
    mask = jnp.ones(distances.shape[0], bool) if mask is None else mask
    merges = _dendrogram(lax.stop_gradient(distances), mask)
    return Linkage(merges, jnp.maximum(jnp.sum(mask, dtype=jnp.int32) - 1, 0), mask)


@small_call
def _dendrogram(distances: Float[Array, "n n"], mask: Bool[Array, " n"]) -> Float[Array, "n-1 4"]:
    """The merges in order of their heights, as `Linkage` has them."""
    n = distances.shape[0]
    distances, mask, pairs = masked_distances(distances, mask)
    finite = jnp.all(jnp.isfinite(jnp.where(pairs, distances, 0)))
    filler = padded_to_lanes(n) - n
    found = _nearest_neighbour_chain(
        jnp.pad(distances, (0, filler), constant_values=jnp.inf),
        jnp.pad(mask, (0, filler), constant_values=False),
        jnp.sum(mask, dtype=jnp.int32) if loops_are_kernels() else n,
    )

    # The chain finds the merges in another order. Heights grow from child to parent, so a stable order by height
    # keeps children before parents. Counting places beats a sort, and works inside a kernel.
    step = jnp.arange(len(found), dtype=jnp.int32)
    real = step < jnp.sum(mask, dtype=jnp.int32) - 1
    height = jnp.where(real, found[:, 2], jnp.inf)
    earlier = (height[:, None] < height[None, :]) | (
        (height[:, None] == height[None, :]) & (step[:, None] < step[None, :])
    )
    place = jnp.sum(earlier, axis=0, dtype=jnp.int32)
    order = jnp.sum(jnp.where(place[:, None] == step[None, :], step[:, None], 0), axis=0, dtype=jnp.int32)
    ids = found[:, :2].astype(jnp.int32)  # rows are themselves, the cluster made in step k is -1 - k
    ids = jnp.where(ids < 0, n + place[jnp.maximum(-1 - ids, 0)], ids)[order]
    columns = (
        jnp.where(real, jnp.min(ids, axis=1), -1),
        jnp.where(real, jnp.max(ids, axis=1), -1),
        jnp.where(real, jnp.where(finite, found[order, 2], jnp.nan), jnp.inf),
        jnp.where(real, found[order, 3], 0),
    )
    return jnp.stack([column[: n - 1].astype(distances.dtype) for column in columns], axis=1)


def _nearest_neighbour_chain(
    distances: Float[Array, "n n"], mask: Bool[Array, " n"], most: Int[Array, ""] | int
) -> Float[Array, "n 4"]:
    """The merges in the order in which the chain finds them: two clusters, height, leaves.

    A cluster is numbered by its row, or by -1 - k if step k of the merges made it; it is stored in the slot of its
    lowest row. Each step looks at the nearest neighbour of the chain's last cluster: if that is the one before it, the
    two merge, otherwise it joins the chain. A step costs O(n); without a merge it writes what was there. There are as
    many steps as `most` rows can need: with a plain number, neurons in lockstep (`vmap`) need no select over the whole
    matrix. Entries after the last merge are arbitrary.

    `n` is a multiple of `LANES`.
    """
    n, dtype = distances.shape[0], distances.dtype
    rows = jnp.arange(n, dtype=jnp.int32)
    start = jnp.argmax(mask).astype(jnp.int32)
    # Every merge takes at most two clusters from the chain, and each had to be put there.
    n_steps = 3 * (most - 1)

    def step(_: Int[Array, ""] | int, state: tuple) -> tuple:
        n_merged, length, distances, size, name, chain, merges, written, values = state
        # The last step's row is written here, before anything is read: so the matrix is updated in place.
        distances = lax.dynamic_update_slice(distances, values[None, :], (written, jnp.int32(0)))
        distances = lax.dynamic_update_slice(distances, values[:, None], (jnp.int32(0), written))

        last = chain[length - 1]
        # Alone in the chain, a cluster has itself before it: infinitely far, so it will not merge.
        before = jnp.where(length > 1, chain[length - 2], last)
        from_last = jnp.where(size > 0, distances[last], jnp.inf)
        from_before = distances[before]
        height = least(from_last)
        nearest = least(jnp.where(from_last == height, rows, n - 1))
        merge = (from_last[before] <= height) & (height < jnp.inf)

        size_last, size_before = size[last], size[before]
        mean = (size_last * from_last + size_before * from_before) / (size_last + size_before)
        # A mean is not below the lesser of the two: rounding may not turn the dendrogram upside down.
        mean = jnp.maximum(mean, jnp.minimum(from_last, from_before))
        kept = jnp.where(merge, jnp.minimum(last, before), last)
        dropped = jnp.where(merge, jnp.maximum(last, before), n)
        count = jnp.where(merge, size_last + size_before, size_last)
        size = jnp.where(rows == kept, count, jnp.where(rows == dropped, 0, size))
        merge_row = jnp.stack([name[last].astype(dtype), name[before].astype(dtype), height, count])
        merges = lax.dynamic_update_slice(merges, merge_row[None, :], (n_merged, jnp.int32(0)))
        name = jnp.where(merge & (rows == kept), -1 - n_merged, name)
        # Next comes the nearest; after a merge that empties the chain, the merged cluster starts it anew.
        end, next_link = jnp.where(merge, length - 2, length), jnp.where(merge, kept, nearest)
        chain = jnp.where(rows == end, next_link, chain)
        length = jnp.where(merge, jnp.maximum(length - 2, 1), length + 1)
        values = jnp.where(merge, mean, from_last)
        return n_merged + merge.astype(jnp.int32), length, distances, size, name, chain, merges, kept, values

    zero = zero_of(distances, mask)
    start, size = start + zero, mask.astype(dtype) + zero.astype(dtype)
    merges = jnp.zeros((n, 4), dtype) + zero.astype(dtype)
    chain, first = jnp.full(n, start), distances[start]
    state = (zero, 1 + zero, distances, size, rows + zero, chain, merges, start, first)
    return lax.fori_loop(0, n_steps, step, state)[6]


@array_function
@jax.jit
def cut(linkage: Linkage, height: ScalarLike) -> Int[Array, " n"]:
    """The clusters left when all merges with a height of at most `height` are made.

    That is `scipy.cluster.hierarchy.fcluster(Z, height, criterion="distance")` with other names for the
    clusters.

    Args:
        linkage: of one neuron.
        height: `[]` in the units of the distances.

    Returns:
        `[n]` int32 labels 0..k-1 in order of first appearance; -1 where masked, and everywhere if the heights
        of the linkage are NaN. It has no gradient.

    Raises:
        UserError: it is no `Linkage`, or of several neurons.

    Example:
        >>> x, w = np.eye(4)[[0, 0, 1, 1, 1, 2]], np.ones(4)
        >>> print(nejax.cut(nejax.average_linkage(nejax.embedding_distances(x, w)), 0.5))
        [0 0 1 1 1 2]
    """
    n = linkage.mask.shape[0]
    ids, heights = linkage.merges[:, :2].astype(jnp.int32), linkage.merges[:, 2]
    k = jnp.arange(n - 1, dtype=jnp.int32)
    applied = (heights <= height) & (k < linkage.n_merges)
    nodes = 2 * n - 1
    parent = jnp.arange(nodes, dtype=jnp.int32)
    parent = parent.at[jnp.where(applied[:, None], ids, nodes)].set((n + k)[:, None], mode="drop")
    for _ in range((n - 1).bit_length()):  # each doubles the way that a pointer goes, at most n - 1 steps
        parent = parent[parent]
    return relabel(parent[:n], linkage.mask & ~jnp.any(jnp.isnan(heights)))


@array_function
def to_scipy(linkage: Linkage) -> np.ndarray:
    """The dendrogram of the unmasked rows alone, as SciPy's functions (`dendrogram`, `fcluster`) take it.

    Args:
        linkage: of one neuron, with at least two unmasked rows.

    Returns:
        Z, `[m - 1, 4]` float64 for `m` unmasked rows; leaf `i` is the `i`-th unmasked row.

    Raises:
        UserError: it is no `Linkage`, several of them at once, fewer than two unmasked rows, or heights that are NaN.

    Example:
        >>> x, w = np.eye(4)[[0, 0, 1, 1, 1, 2]], np.ones(4)
        >>> z = nejax.to_scipy(nejax.average_linkage(nejax.embedding_distances(x, w)))
        >>> from scipy.cluster.hierarchy import fcluster
        >>> print(fcluster(z, 0.5, "distance").max())
        3
    """
    merges, mask = np.asarray(linkage.merges, np.float64), np.asarray(linkage.mask)
    n, m = mask.size, int(mask.sum())
    if m < 2:
        raise UserError(f"the linkage has {m} unmasked rows; a dendrogram needs at least 2")
    z = merges[: m - 1].copy()
    if np.isnan(z[:, 2]).any():
        raise UserError("the linkage has NaN heights: its distances were not finite; mend them, cluster again")
    ids = z[:, :2].astype(int)
    leaf = np.cumsum(mask) - 1
    z[:, :2] = np.where(ids < n, leaf[np.minimum(ids, n - 1)], ids - n + m)
    return z
