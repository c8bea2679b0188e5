"""k-means: clusters around centroids."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, ScalarLike

from nejax.neuron.array_function import array_function
from nejax.neuron.clustering.kmeans_search import Settings, search, settled
from nejax.neuron.clustering.labels import members
from nejax.neuron.defaults import MIN_SILHOUETTE, N_RESTARTS
from nejax.neuron.embeddings import ROUNDINGS, embedding_distances, unit_rows
from nejax.neuron.precision import at_least_float32


class KMeans(NamedTuple):
    """A neuron's examples in clusters around centroids.

    Example:
        >>> x = np.eye(4)[[0, 0, 1, 1, 1, 2]]
        >>> found = nejax.kmeans(x, 3, key=jax.random.key(0))
        >>> print(found.n_clusters, found.centroids.shape, found.converged)
        3 (3, 4) True
    """

    centroids: Float[Array, "max_clusters d"] | None
    """`[max_clusters, d]` row `c` is the mean of the rows of cluster `c`; spherical: of its unit rows, at length 1, or
    zero if they cancel out. NaN where there is no cluster `c`. None from `kmeans_from_distances`."""
    labels: Int[Array, " n"]
    """`[n]` int32 0..n_clusters-1 in order of first appearance; -1 where masked, and everywhere if there is no answer:
    an unmasked row that is not finite, or a distance between unmasked ones that is negative or not finite; an array
    `n_clusters` outside 1..max_clusters."""
    inertia: Float[Array, ""]
    """`[]` sum over the rows of the squared distance to their centroid, in the squared units of `x`; NaN if there is no
    answer. Spherical: `2 (1 - cos)`, summed."""
    n_clusters: Int[Array, ""]
    """`[]` int32 number of clusters; fewer than asked for if fewer rows differ. 0 if all is masked, or no answer."""
    silhouettes: Float[Array, " max_clusters"] | None
    """`[max_clusters]` if the number of clusters was chosen: entry `k - 1` is the mean silhouette of `k` clusters, NaN
    where that is not defined, as for one. None if the number was given."""
    converged: Bool[Array, ""]
    """`[]` whether no row could be moved to another cluster to lower the inertia; false if `max_steps` came first."""


@array_function
def kmeans(
    x: Float[Array, "n d"] | Float[np.ndarray, "n d"],
    n_clusters: int | np.integer | Int[Array, ""] | None,
    *,
    key: PRNGKeyArray,
    mask: Bool[Array, " n"] | Bool[np.ndarray, " n"] | None = None,
    max_clusters: int | None = None,
    n_restarts: int = N_RESTARTS,
    max_steps: int = 100,
    spherical: bool = False,
    min_silhouette: ScalarLike = MIN_SILHOUETTE,
) -> KMeans:
    """Put rows into clusters so that the sum of their squared distances to the mean of their cluster is small.

    The inertia `sum_i |x_i - mu_c(i)|^2` is lowered from several starts by greedy k-means++: all rows go to the nearest
    mean, the means follow, and so on (Lloyd). From the best of these ends, single rows are moved to another cluster as
    long as that lowers the inertia (Hartigan & Wong). All this is done on the squared distances between rows, which are
    computed once. Rows nearer to each other than rounding shows (about 0.2% of their distance from the mean of all)
    count as identical.

    If `n_clusters` is None, every number up to `max_clusters` is tried, and the one with the highest mean silhouette
    wins; if not even that is above `min_silhouette`, there is one cluster, which has no silhouette.

    Spherical k-means measures by the angle: rows are brought to length 1, and so are the means. A zero row has no
    direction: as in `embedding_distances` it is at right angles to all other rows, and to its centroid.
    Source: Arthur & Vassilvitskii 2007 (k-means++); Lloyd 1982, "Least squares quantization in PCM"; Hartigan & Wong
    1979, "Algorithm AS 136"; Dhillon & Modha 2001, "Concept decompositions" (spherical); Rousseeuw 1987, "Silhouettes".

    Args:
        x: `[n, d]`, of any size: squares need not be representable. Masked rows may hold anything.
        n_clusters: a number from 1 to `n`; or a (traced) int array `[]`, for one compilation whatever the number; or
            None to have it chosen.
        key: random key; the same for the same result, wherever in a batch.
        mask: `[n]` false where a row does not count; all rows count if None.
        max_clusters: the most clusters there can be, which sizes the arrays (or `n`, if that is less); static. Required
            if `n_clusters` is an array; `n_clusters` itself if that is a number; 20 if it is None, where it counts as
            `n - 1` at most.
        n_restarts: how many starts, of which the best end is kept.
        max_steps: the most steps of Lloyd's from a start, and again the most single moves.
        spherical: cluster directions.
        min_silhouette: `[]` the mean silhouette that several clusters must exceed where their number is chosen, by the
            Euclidean distances between rows (spherical: the cosine distances). See `MIN_SILHOUETTE` for the default.

    Returns:
        A `KMeans`. `centroids` and `inertia` are differentiable in `x`, with the labels held fixed.

    Raises:
        UserError: `x` is not `[n, d]`, the mask has another length, a number is out of range, or `n_clusters` is an
            array and `max_clusters` is missing.

    Example:
        >>> x = np.eye(4)[[0, 0, 1, 1, 1, 2]]
        >>> print(nejax.kmeans(x, 3, key=jax.random.key(0)).labels)
        [0 0 1 1 1 2]
    """
    n_clusters, settings = settled(
        n_clusters, max_clusters, n_restarts, max_steps, spherical, min_silhouette, x.shape[0]
    )
    return _kmeans(x, mask, n_clusters, min_silhouette, key, settings=settings)


@partial(jax.jit, static_argnames="settings")
def _kmeans(
    x: Array, mask: Array | None, n_clusters: Array, min_silhouette: ScalarLike, key: Array, *, settings: Settings
) -> KMeans:
    mask = jnp.ones(x.shape[0], bool) if mask is None else mask
    x = jnp.where(mask[:, None], x.astype(at_least_float32(x)), 0)
    points, middle, scale = _directions(x) if settings.spherical else _centred(x, mask)
    valid = jnp.all(jnp.isfinite(points))
    points = jnp.where(valid, points, 0)
    n_clusters = jnp.where(valid, n_clusters, 0)
    between = _cosine_distances if settings.spherical else _euclidean_distances
    pairs = mask[:, None] & mask[None, :]
    squared, distances = (jnp.where(pairs, values, 0) for values in between(lax.stop_gradient(points)))
    found = search(squared, distances, mask, n_clusters, min_silhouette, key=key, settings=settings)

    member = members(found.labels, settings.max_clusters).astype(x.dtype)
    size = jnp.sum(member, axis=1)[:, None]
    means = jnp.matmul(member, points, precision=lax.Precision.HIGHEST) / jnp.maximum(size, 1)
    centroids = unit_rows(means) if settings.spherical else means
    errors = jnp.sum(jnp.square(points - centroids[found.labels]), axis=1)
    if settings.spherical:  # a right angle to a zero is a squared distance of 2 as well
        zeros = [~jnp.any(points != 0, axis=1), ~jnp.any(centroids != 0, axis=1)[found.labels]]
        errors += sum(zero.astype(x.dtype) for zero in zeros)
    inertia = jnp.sum(jnp.where(found.labels >= 0, errors, 0)) * scale * scale
    return KMeans(
        centroids=jnp.where(size > 0, centroids * scale + middle[None, :], jnp.nan),
        inertia=jnp.where(n_clusters > 0, inertia, jnp.nan),
        **found._asdict(),
    )


def _centred(x: Float[Array, "n d"], mask: Bool[Array, " n"]) -> tuple[Array, Array, Array]:
    """Rows less their mean, with a largest entry of 1: squares lose the least; masked rows zero. Mean and scale.

    Rows that differ by no more than the rounding of their own entries are all at the mean.
    """
    middle = jnp.sum(x / jnp.maximum(jnp.sum(mask), 1).astype(x.dtype), axis=0)
    points = jnp.where(mask[:, None], x - middle[None, :], 0)
    rounding = ROUNDINGS * jnp.finfo(x.dtype).eps * lax.stop_gradient(jnp.max(jnp.abs(middle)))
    points = jnp.where(jnp.max(jnp.abs(points)) <= rounding, 0, points)
    largest = lax.stop_gradient(jnp.max(jnp.abs(points)))
    scale = jnp.where(largest < jnp.finfo(x.dtype).tiny, 1, largest)
    return points / scale, middle, scale


def _directions(x: Float[Array, "n d"]) -> tuple[Array, Array, Array]:
    """Unit rows, which are neither moved nor scaled."""
    return unit_rows(x), jnp.zeros(x.shape[1], x.dtype), jnp.ones((), x.dtype)


def _euclidean_distances(points: Float[Array, "n d"]) -> tuple[Float[Array, "n n"], Float[Array, "n n"]]:
    """Squared distances, and distances."""
    gram = jnp.matmul(points, points.T, precision=lax.Precision.HIGHEST)
    norms = jnp.diagonal(gram)
    norms = norms[:, None] + norms[None, :]
    squared = norms - (gram + gram.T)
    rounding = ROUNDINGS * jnp.finfo(points.dtype).eps * norms
    squared = jnp.where(jnp.eye(points.shape[0], dtype=bool) | (squared <= rounding), 0, squared)
    return squared, jnp.sqrt(squared)


def _cosine_distances(units: Float[Array, "n d"]) -> tuple[Float[Array, "n n"], Float[Array, "n n"]]:
    """Squared distances, and cosine distances: half of them."""
    distances = embedding_distances(units, jnp.ones(units.shape[1], units.dtype))
    return 2 * distances, distances
