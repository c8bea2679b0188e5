"""From a first labeling down to a local minimum of the inertia of k-means, on squared distances alone."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from nejax.neuron.clustering.labels import members

_MARGIN = 16
"""A gain of fewer units of rounding counts as none: ties stay as they are, and no two steps undo each other for
ever."""


class Clusters(NamedTuple):
    """The clusters of a labeling, relative to every row."""

    member: Bool[Array, "k n"]
    """`[k, n]` whether row `i` is in cluster `c`."""
    size: Float[Array, " k"]
    """`[k]` number of rows."""
    mean: Float[Array, "k n"]
    """`[k, n]` mean squared distance of row `i` to the rows of cluster `c`, itself among them; 0 if it is empty."""
    spread: Float[Array, " k"]
    """`[k]` mean squared distance of the rows of a cluster to their mean; 0 if it is empty."""
    radius: Float[Array, " k"]
    """`[k]` what the mean's length is divided by to have the centroid: 1, or on the sphere that length itself."""
    cost: Float[Array, "k n"]
    """`[k, n]` squared distance of row `i` to the centroid of cluster `c`; 0 if it is empty."""


def clusters_of(
    squared: Float[Array, "n n"], labels: Int[Array, " n"], *, max_clusters: int, spherical: bool
) -> Clusters:
    """The clusters of a labeling, from squared distances alone.

    Let `m_ic` be the mean squared distance of row `i` to the rows of `c`, and `s_c` half the mean of `m_ic` over the
    rows of `c`. Then `s_c` is the variance of `c`, and `|x_i - mu_c|^2 = m_ic - s_c` for its mean `mu_c`. If all rows
    have length 1, `mu_c` has the length `r_c = sqrt(1 - s_c)`, and the squared distance to `mu_c / r_c` is
    `(m_ic - 2 s_c / (1 + r_c)) / r_c`. A mean of zero has no direction; it counts as at a right angle to every row.

    Args:
        squared: `[n, n]` squared distances, symmetric; zero in masked rows and columns.
        labels: `[n]` clusters 0..max_clusters-1; -1 where masked.
        max_clusters: the most clusters there can be.
        spherical: the rows have length 1, and so have centroids.
    """
    member = members(labels, max_clusters)
    weights = member.astype(squared.dtype)
    size = jnp.sum(weights, axis=1)
    divisor = jnp.maximum(size, 1)
    mean = jnp.matmul(weights, squared, precision=lax.Precision.HIGHEST) / divisor[:, None]
    spread = jnp.sum(weights * mean, axis=1) / (2 * divisor)
    if not spherical:
        return Clusters(member, size, mean, spread, jnp.ones_like(spread), mean - spread[:, None])
    cancels = 1 - spread < _MARGIN * jnp.finfo(squared.dtype).eps
    radius = jnp.sqrt(jnp.where(cancels, 1, 1 - spread))
    cost = (mean - (2 * spread / (1 + radius))[:, None]) / radius[:, None]
    return Clusters(member, size, mean, spread, jnp.where(cancels, 0, radius), jnp.where(cancels[:, None], 2, cost))


def inertia_of(clusters: Clusters) -> Float[Array, ""]:
    """Sum over the rows of the squared distance to their centroid: `2 n_c s_c / (1 + r_c)`, summed over clusters."""
    return jnp.sum(clusters.size * clusters.spread * 2 / (1 + clusters.radius))


def reassign(clusters: Clusters, labels: Int[Array, " n"]) -> Int[Array, " n"]:
    """Assign every row to the cluster with the nearest centroid (a Lloyd step); empty clusters stay empty."""
    margin = _MARGIN * jnp.finfo(clusters.cost.dtype).eps
    cost = clusters.cost - jnp.where(clusters.member, margin * clusters.mean, 0)
    cost = jnp.where((clusters.size > 0)[:, None], cost, jnp.inf)
    return jnp.where(labels >= 0, jnp.argmin(cost, axis=0).astype(labels.dtype), labels)


def best_move(
    clusters: Clusters, labels: Int[Array, " n"], n_clusters: Int[Array, ""], *, spherical: bool
) -> Int[Array, " n"]:
    """Move the one row whose move to another cluster lowers the inertia most, if any lowers it.

    This can lower the inertia where no Lloyd step does, since both centroids follow the row. With `n` rows in a cluster
    and the row at squared distance `d` from its centroid, the inertia grows by `d n / (n + 1)` if the row joins and
    falls by `d n / (n - 1)` if it leaves. On the sphere, with the sum of the rows of a cluster of length `l` before the
    move and `l'` after it, it grows by `2 l d / (l + 1 + l')` and falls by `2 l d / (l - 1 + l')`. An empty cluster
    costs nothing to join: that is how it is filled. Source: Hartigan & Wong 1979, "Algorithm AS 136".

    Args:
        clusters: those of `labels`.
        labels: `[n]` cluster of each row; -1 where masked.
        n_clusters: clusters from this number on stay empty.
        spherical: as in `clusters_of`.

    Returns:
        `[n]` the new labels: as they were, but for one row at most.
    """
    k, n = clusters.cost.shape
    size, cost = clusters.size[:, None], clusters.cost
    if spherical:
        length = size * clusters.radius[:, None]
        joined = jnp.sqrt(jnp.maximum((length + 1) ** 2 - length * cost, 0))
        left = jnp.sqrt(jnp.maximum((length - 1) ** 2 + length * cost, 0))
        long = length > 1  # the fraction below is 0 / 0 for one row alone
        grows = 2 * length * cost / (length + 1 + joined)
        falls = jnp.where(long, 2 * length * cost / jnp.where(long, length - 1 + left, 1), 2 * (1 - length + left))
    else:
        grows = cost * (size / (size + 1))
        falls = cost * (size / jnp.maximum(size - 1, 1))
    fall, mean = (jnp.sum(jnp.where(clusters.member, values, 0), axis=0) for values in (falls, clusters.mean))
    margin = _MARGIN * jnp.finfo(cost.dtype).eps * (mean[None, :] + clusters.mean)
    ids = jnp.arange(k, dtype=labels.dtype)[:, None]
    possible = ~clusters.member & (ids < n_clusters) & (labels >= 0)[None, :]
    gain = jnp.where(possible, fall[None, :] - grows - margin, 0)
    best = jnp.argmax(gain).astype(labels.dtype)
    moved = (jnp.arange(n, dtype=labels.dtype) == best % n) & (jnp.max(gain) > 0)
    return jnp.where(moved, best // n, labels)


def until_unchanged(
    step: Callable[[Int[Array, " n"]], Int[Array, " n"]], labels: Int[Array, " n"], max_steps: int
) -> tuple[Int[Array, " n"], Bool[Array, ""]]:
    """Repeat a step until it changes no label, at most `max_steps` times.

    Returns:
        The labels, and whether the last step changed none.
    """

    def body(state: tuple) -> tuple:
        t, _, labels = state
        return t + 1, labels, step(labels)

    def goes_on(state: tuple) -> Bool[Array, ""]:
        t, before, labels = state
        return (t < max_steps) & jnp.any(labels != before)

    _, before, labels = lax.while_loop(goes_on, body, (jnp.zeros_like(labels[0]), labels - 1, labels))
    return labels, jnp.all(labels == before)
