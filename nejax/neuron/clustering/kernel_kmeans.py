"""k-means of examples of which only the cosine distances are known."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, ScalarLike

from nejax.neuron.array_function import array_function
from nejax.neuron.clustering.descent import clusters_of, inertia_of
from nejax.neuron.clustering.kmeans import KMeans
from nejax.neuron.clustering.kmeans_search import Settings, search, settled
from nejax.neuron.clustering.pairs import masked_distances
from nejax.neuron.defaults import MIN_SILHOUETTE, N_RESTARTS
from nejax.neuron.embeddings import ROUNDINGS


@array_function
def kmeans_from_distances(
    distances: Float[Array, "n n"] | Float[np.ndarray, "n n"],
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
    """The k-means clusters of unit vectors, from their cosine distances.

    Exactly what `kmeans` does with the unit vectors, which are never needed: `|u_i - u_j|^2 = 2 d_ij`, and the squared
    distance of `u_i` to the mean of a cluster `C` is `mean(2 d_ij, j in C) - mean(d_jl, j and l in C)`. The distances
    of a neuron's examples from `embedding_distances` so give the clusters of their embeddings, at a cost that does not
    grow with their dimensions. (Half the squared Euclidean distances of any points do as well, unless spherical.)
    Source: Schölkopf, Smola & Müller 1998, "Nonlinear component analysis as a kernel eigenvalue problem", section 5.

    Args:
        distances: `[n, n]` cosine distances; only those above the diagonal are read.
        n_clusters, key, mask, max_clusters, n_restarts, max_steps, spherical, min_silhouette: as in `kmeans`; here
            silhouettes are those of the cosine distances.

    Returns:
        A `KMeans` without centroids. `inertia` is differentiable in the distances, with the labels held fixed.

    Raises:
        UserError: the distances are not square, the mask has another length, a number is out of range, or `n_clusters`
            is an array and `max_clusters` is missing.

    Example:
        >>> x, w = np.eye(4)[[0, 0, 1, 1, 1, 2]], np.ones(4)
        >>> distances = nejax.embedding_distances(x, w)
        >>> print(nejax.kmeans_from_distances(distances, 3, key=jax.random.key(0)).labels)
        [0 0 1 1 1 2]
    """
    n_clusters, settings = settled(
        n_clusters, max_clusters, n_restarts, max_steps, spherical, min_silhouette, distances.shape[0]
    )
    return _kmeans_from_distances(distances, mask, n_clusters, min_silhouette, key, settings=settings)


@partial(jax.jit, static_argnames="settings")
def _kmeans_from_distances(
    distances: Array,
    mask: Array | None,
    n_clusters: Array,
    min_silhouette: ScalarLike,
    key: Array,
    *,
    settings: Settings,
) -> KMeans:
    distances, mask, pairs = masked_distances(distances, mask)
    rounding = ROUNDINGS * jnp.finfo(distances.dtype).eps
    valid = jnp.all(jnp.where(pairs, jnp.isfinite(distances) & (distances >= -rounding), True))
    distances = jnp.where(pairs & valid, distances, 0)
    known = lax.stop_gradient(jnp.where(distances > rounding, distances, 0))
    n_clusters = jnp.where(valid, n_clusters, 0)
    found = search(2 * known, known, mask, n_clusters, min_silhouette, key=key, settings=settings)
    size = {"max_clusters": settings.max_clusters, "spherical": settings.spherical}
    inertia = inertia_of(clusters_of(2 * distances, found.labels, **size))
    return KMeans(centroids=None, inertia=jnp.where(n_clusters > 0, inertia, jnp.nan), **found._asdict())
