"""The gap statistic: Tibshirani, Walther & Hastie 2001."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

import nejax

MAX_CLUSTERS, N_REFERENCES = 10, 5


def gap_labels(distances: Array, mask: Array) -> Array:
    """k-means with the smallest k whose gap is at least the next one's, less its standard error.

    The gap is how far the logarithm of the inertia lies below that of uniform points in the box of the principal axes.

    Args:
        distances: [n, n] cosine distances of unit vectors.
        mask: [n]

    Returns:
        [n] labels.
    """
    key = jax.random.key(0)
    points = principal_axes(distances, mask)
    low = jnp.where(mask[:, None], points, jnp.inf).min(axis=0)
    high = jnp.where(mask[:, None], points, -jnp.inf).max(axis=0)
    shape = (N_REFERENCES, *points.shape)
    samples = jnp.concatenate([points[None], jax.random.uniform(key, shape, minval=low, maxval=high)])
    numbers = jnp.arange(1, MAX_CLUSTERS + 1, dtype=jnp.int32)

    def fits(points: Array) -> tuple[Array, Array]:
        apart = _half_squared_distances(points)

        def fit(k: Array) -> tuple[Array, Array]:
            settings = {"key": key, "mask": mask, "max_clusters": MAX_CLUSTERS, "n_restarts": 1}
            found = nejax.kmeans_from_distances(apart, jnp.minimum(k, mask.sum()), **settings)
            return found.inertia, found.labels

        return lax.map(fit, numbers)

    inertia, labels = lax.map(fits, samples)
    logs = jnp.log(jnp.maximum(inertia, 1e-12))
    gap = logs[1:].mean(axis=0) - logs[0]
    error = logs[1:].std(axis=0) * jnp.sqrt(1 + 1 / N_REFERENCES)
    enough = jnp.append(gap[:-1] >= gap[1:] - error[1:], True)
    return labels[0, jnp.argmax(enough)]


def principal_axes(distances: Array, mask: Array) -> Array:
    """[n, n] unit vectors of these cosine distances, centred, on their principal axes; zeros where masked."""
    there = mask.astype(distances.dtype)
    centring = jnp.diag(there) - jnp.outer(there, there) / there.sum()
    centred = centring @ (1 - distances) @ centring
    values, vectors = jnp.linalg.eigh(centred)
    return vectors * jnp.sqrt(jnp.maximum(values, 0)) * there[:, None]


def _half_squared_distances(points: Array) -> Array:
    squares = jnp.sum(points**2, axis=1)
    return jnp.maximum((squares[:, None] + squares) / 2 - points @ points.T, 0)
