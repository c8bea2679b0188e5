"""Spectral clustering of one neuron's examples, and their number of clusters by the eigengap."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_batching import custom_vmap
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from nejax.errors import UserError
from nejax.neuron.array_function import array_function
from nejax.neuron.clustering.kmeans import kmeans
from nejax.neuron.clustering.pairs import masked_distances
from nejax.neuron.defaults import MAX_CLUSTERS, N_NEIGHBORS, N_RESTARTS
from nejax.neuron.embeddings import unit_rows

_LARGEST_EXPONENT = 14.0
"""An edge weighs at least 1e-6: a far example keeps a direction that float32 eigenvectors still show."""

_CHOOSE = -1
"""In place of a number of clusters, where it is to be chosen."""

_OUTSIDE = -2.0
"""The eigenvalue of a masked row: below all others, which are in [-1, 1]."""


class Spectral(NamedTuple):
    """A neuron's examples in clusters that few paths of near neighbours join.

    Example:
        >>> x, w = np.eye(4)[[0, 0, 0, 1, 1, 1]], np.ones(4)
        >>> found = nejax.spectral(nejax.embedding_distances(x, w), key=jax.random.key(0))
        >>> print(found.n_clusters, found.eigenvalues.shape)
        2 (21,)
    """

    labels: Int[Array, " n"]
    """`[n]` int32 0..k-1 in order of first appearance; -1 where masked, and everywhere if a distance between unmasked
    rows is not finite, or if `n_clusters` was below 1 or above `max_clusters`."""
    n_clusters: Int[Array, ""]
    """`[]` int32 the number of clusters that was given (at most the number of unmasked rows) or chosen; 0 if all
    labels are -1."""
    eigenvalues: Float[Array, " max_clusters+1"]
    """`[max_clusters + 1]` largest eigenvalues of the normalised affinity, 1 and below, descending: 1 minus those
    of its Laplacian. NaN where there are no more, and everywhere if a distance between unmasked rows is not finite."""
    converged: Bool[Array, ""]
    """`[]` whether the k-means of the eigenvectors' rows came to an end; false if all labels are -1."""


@array_function
def spectral(
    distances: Float[Array, "n n"] | Float[np.ndarray, "n n"],
    n_clusters: int | np.integer | Int[Array, ""] | None = None,
    *,
    key: PRNGKeyArray,
    mask: Bool[Array, " n"] | Bool[np.ndarray, " n"] | None = None,
    max_clusters: int = MAX_CLUSTERS,
    n_neighbors: int = N_NEIGHBORS,
    n_restarts: int = N_RESTARTS,
) -> Spectral:
    """Cluster examples by the eigenvectors of their graph of near neighbours.

    With `A` the `affinity` of the examples and `D` its row sums, the normalised affinity is
    `N = D^-1/2 A D^-1/2`, and its `k` largest eigenvalues are near 1 where the graph almost falls into `k` parts.
    The eigenvectors of these `k`, one a column, give each example a row; the rows, at length 1, are
    clustered by `kmeans`. Where the number of clusters is not given, it is the one with the largest eigengap,
    `k = argmax (lambda_k - lambda_{k+1})` for `1 <= k <= max_clusters` and `k` less than the number of examples: one
    cluster is a possible answer, and the only one for two examples.

    An example far from all others is put in the nearest cluster, never in one of its own: a part of the graph has at
    least two examples. Examples along a thin curve are found as one cluster where the number is given; the eigengap
    cuts the curve into pieces. Nothing depends on the eigenvectors' signs, or on which of them stand for equal
    eigenvalues, but for a number given where `lambda_k = lambda_{k+1}`: there rounding decides.

    One compilation serves all masks and all numbers of clusters.
    Source: Ng, Jordan & Weiss 2001, On spectral clustering; von Luxburg 2007, arXiv 0711.0189, section 8.3 (eigengap).

    Args:
        distances: `[n, n]` distances, finite between unmasked rows; only those above the diagonal are read.
        n_clusters: at most `max_clusters`: an int, or an int32 scalar that may be traced; chosen if None.
        key: for the starts of k-means.
        mask: `[n]` false where a row does not count; all rows count if None.
        max_clusters: most clusters there can be; static.
        n_neighbors: see `affinity`; static. Fewer neighbours show finer clusters.
        n_restarts: starts of k-means, of which the best end is kept; static.

    Returns:
        A `Spectral`. It has no gradient.

    Raises:
        UserError: the distances are not square, the mask has another length, or a number is out of range.

    Example:
        >>> x, w = np.eye(4)[[0, 0, 0, 1, 1, 1]], np.ones(4)
        >>> distances = nejax.embedding_distances(x, w)
        >>> print(nejax.spectral(distances, key=jax.random.key(0)).labels)
        [0 0 0 1 1 1]
    """
    for name, value in (("max_clusters", max_clusters), ("n_neighbors", n_neighbors), ("n_restarts", n_restarts)):
        if value < 1:
            raise UserError(f"{name} is {value}; expected at least 1")
    if n_clusters is None:
        given = jnp.int32(_CHOOSE)
    elif isinstance(n_clusters, jax.Array):
        given = jnp.where((n_clusters >= 1) & (n_clusters <= max_clusters), n_clusters, 0).astype(jnp.int32)
    else:
        most = min(max_clusters, distances.shape[0])
        if not 1 <= n_clusters <= most or n_clusters != int(n_clusters):
            bound = f"{most}, the number of rows" if most < max_clusters else f"max_clusters, which is {most}"
            raise UserError(f"n_clusters is {n_clusters}; expected 1 to {bound}, or None to have it chosen")
        given = jnp.int32(int(n_clusters))
    settings = {"max_clusters": max_clusters, "n_neighbors": n_neighbors, "n_restarts": n_restarts}
    return _spectral(distances, given, key, mask, **settings)


@partial(jax.jit, static_argnames=("max_clusters", "n_neighbors", "n_restarts"))
def _spectral(
    distances: Float[Array, "n n"],
    given: Int[Array, ""],
    key: PRNGKeyArray,
    mask: Bool[Array, " n"] | None,
    *,
    max_clusters: int,
    n_neighbors: int,
    n_restarts: int,
) -> Spectral:
    n = distances.shape[0]
    mask = jnp.ones(n, bool) if mask is None else mask
    weights = affinity(distances, mask, n_neighbors)
    finite = jnp.all(jnp.isfinite(weights))
    eigenvalues, eigenvectors = largest_eigenpairs(jnp.where(finite, weights, 0), mask, max_clusters + 1)

    n_rows = jnp.sum(mask, dtype=jnp.int32)
    k = jnp.where(given == _CHOOSE, n_clusters_by_eigengap(eigenvalues), given)
    k = jnp.where(finite, jnp.minimum(k, n_rows), 0)
    chosen = jnp.arange(eigenvectors.shape[1], dtype=k.dtype) < k
    rows = jnp.where(mask[:, None] & chosen[None, :], eigenvectors, 0)
    found = kmeans(unit_rows(rows), k, key=key, mask=mask, max_clusters=max_clusters, n_restarts=n_restarts)
    return Spectral(found.labels, k, jnp.where(finite, eigenvalues, jnp.nan), found.converged)


@array_function
@partial(jax.jit, static_argnames="n_neighbors")
def affinity(
    distances: Float[Array, "n n"], mask: Bool[Array, " n"] | None = None, n_neighbors: int = N_NEIGHBORS
) -> Float[Array, "n n"]:
    """How strongly examples are joined: the graph of nearest neighbours, weighted by locally scaled distances.

    `a_ij = exp(-d_ij^2 / (s_i s_j))` where `j` is one of the `n_neighbors` nearest examples of `i`, or `i` one of
    those of `j`, and 0 elsewhere; `s_i` is the mean distance of `i` to its `n_neighbors` nearest. Each example thus
    measures distance in its own unit, so that dense and loose clusters are found together (Zelnik-Manor & Perona
    2004, Self-tuning spectral clustering, where `s_i` is the last of these distances, and all pairs are joined).
    In hundreds of dimensions the distances within a cluster are not much smaller than those between clusters;
    without the many weak edges between clusters their number still shows. The exponent ends at 14.

    scikit-learn takes the matrix of the unmasked rows with `SpectralClustering(affinity="precomputed")`.

    Args:
        distances: `[n, n]` distances, finite between unmasked rows; only those above the diagonal are read. Up to 4
            units of rounding at 1 (5e-7 in float32) count as 0: identical examples are that far apart.
        mask: `[n]` false where a row does not count; all rows count if None.
        n_neighbors: how many nearest examples, all if there are fewer; equally near ones beyond it are joined too.

    Returns:
        `[n, n]` symmetric, in [0, 1]; 0 on the diagonal and where masked; all NaN if a distance between unmasked rows
        is not finite. No gradient.

    Raises:
        UserError: the distances are not square, the mask has another length, or `n_neighbors` is below 1.
    """
    if n_neighbors < 1:
        raise UserError(f"n_neighbors is {n_neighbors}; expected at least 1")
    distances, mask, pairs = masked_distances(lax.stop_gradient(distances), mask)
    finite = jnp.all(jnp.isfinite(jnp.where(pairs, distances, 0)))
    identical = 4 * jnp.finfo(distances.dtype).eps
    distances = jnp.where(distances > identical, distances, 0)

    nearest = -lax.top_k(-distances, min(n_neighbors, distances.shape[0]))[0]
    there = nearest < jnp.inf
    nearest = jnp.where(there, nearest, 0)
    reach = jnp.max(nearest, axis=1)
    scale = jnp.sum(nearest, axis=1) / jnp.maximum(jnp.sum(there, axis=1, dtype=nearest.dtype), 1)
    joined = pairs & (distances <= jnp.maximum(reach[:, None], reach[None, :]))
    # Of two identical examples the quotient is 0 / 0 where more of them leave no other unit: it counts as 0.
    units = jnp.maximum(scale[:, None] * scale[None, :], jnp.finfo(distances.dtype).tiny)
    exponent = jnp.minimum(jnp.where(joined, distances, 0) ** 2 / units, _LARGEST_EXPONENT)
    return jnp.where(finite, jnp.where(joined, jnp.exp(-exponent), 0), jnp.nan)


def largest_eigenpairs(
    weights: Float[Array, "n n"], mask: Bool[Array, " n"], count: int
) -> tuple[Float[Array, " count"], Float[Array, "n columns"]]:
    """The largest eigenvalues of the normalised affinity, descending, NaN where there are no more, and eigenvectors.

    Masked rows have an eigenvalue of their own, below all others, so they show in no other eigenvector.

    Returns:
        The `count` largest eigenvalues, and `min(count, n)` eigenvectors as columns.
    """
    degree = jnp.sum(weights, axis=1)
    alone = degree == 0  # an example without others is a part of the graph, which has the eigenvalue 1
    root = 1 / jnp.sqrt(jnp.where(alone, 1, degree))
    normalised = weights * (root[:, None] * root[None, :])
    diagonal = jnp.where(mask, jnp.where(alone, 1, 0), _OUTSIDE)
    values, vectors = _eigenpairs(normalised + jnp.diag(diagonal.astype(weights.dtype)))
    values, vectors = values[::-1][:count], vectors[:, ::-1][:, :count]
    values = jnp.where(jnp.arange(len(values), dtype=jnp.int32) < jnp.sum(mask, dtype=jnp.int32), values, jnp.nan)
    return jnp.pad(values, (0, count - len(values)), constant_values=jnp.nan), vectors


def n_clusters_by_eigengap(eigenvalues: Float[Array, " count"]) -> Int[Array, ""]:
    """How many eigenvalues come before the largest drop; 1 if there is none. NaN follows the last eigenvalue."""
    gaps = eigenvalues[:-1] - eigenvalues[1:]
    return 1 + jnp.argmax(jnp.where(jnp.isnan(gaps), -jnp.inf, gaps)).astype(jnp.int32)


def _eigh(matrix: Float[Array, "n n"]) -> tuple[Float[Array, " n"], Float[Array, "n n"]]:
    """Eigenvalues, ascending, and eigenvectors of a symmetric matrix, both triangles of which are there."""
    values, vectors = jnp.linalg.eigh(matrix, symmetrize_input=False)
    return values, vectors


_eigenpairs = custom_vmap(_eigh)


@_eigenpairs.def_vmap
def _eigenpairs_of_many(axis_size: int, in_batched: Any, matrices: Array) -> tuple[Any, Any]:
    # On CPU, XLA shares the matrices of a batch out to the threads that run the computation, and waits in one of them:
    # two batches in one computation may wait for each other forever. One matrix at a time waits for nobody.
    alone_each = partial(lax.map, _eigenpairs)
    of = jax.typeof(matrices).sharding
    if of.spec and of.spec[0] is not None:  # an explicit axis of a mesh: each device has matrices of its own
        over = PartitionSpec(of.spec[0])
        each_device = jax.shard_map(alone_each, mesh=of.mesh, in_specs=over, out_specs=(over, over))
        return each_device(matrices), (True, True)
    return lax.platform_dependent(matrices, cpu=alone_each, default=jax.vmap(_eigh)), (True, True)
