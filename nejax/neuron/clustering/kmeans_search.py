"""The search of k-means: restarts, the best of them, and the number of clusters where it is not given."""

import operator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, ScalarLike

from nejax.errors import UserError
from nejax.neuron.clustering.descent import best_move, clusters_of, inertia_of, reassign, until_unchanged
from nejax.neuron.clustering.labels import relabel
from nejax.neuron.clustering.quality import silhouette
from nejax.neuron.clustering.seeding import NEAR_TIE, seed_labels
from nejax.neuron.defaults import MAX_CLUSTERS


class Settings(NamedTuple):
    """What is static under `jit`."""

    max_clusters: int
    """The most clusters there can be: the size of arrays."""
    choose: bool
    """Whether the number of clusters is to be chosen."""
    n_restarts: int
    max_steps: int
    spherical: bool


class Partition(NamedTuple):
    """The result of the search; the fields are those of `KMeans`."""

    labels: Int[Array, " n"]
    n_clusters: Int[Array, ""]
    silhouettes: Float[Array, " max_clusters"] | None
    converged: Bool[Array, ""]


def settled(
    n_clusters: int | np.integer | Array | None,
    max_clusters: int | None,
    n_restarts: int,
    max_steps: int,
    spherical: bool,
    min_silhouette: ScalarLike,
    n: int,
) -> tuple[Int[Array, ""], Settings]:
    """Check what the user gave for `n` rows.

    Returns:
        The number of clusters to look for (0 if it is an array out of range, 1 if the number is to be chosen), and the
        settings.

    Raises:
        UserError: a number is out of range, or `max_clusters` is missing.
    """
    for name, value in (("max_clusters", max_clusters), ("n_restarts", n_restarts), ("max_steps", max_steps)):
        if value is not None and value < 1:
            raise UserError(f"{name} is {value}; expected at least 1")
    if isinstance(min_silhouette, (int, float)) and not -1 <= min_silhouette <= 1:
        raise UserError(f"min_silhouette is {min_silhouette}; expected -1 to 1, the range of silhouettes")

    def settings(most: int) -> Settings:
        return Settings(operator.index(most), n_clusters is None, n_restarts, max_steps, bool(spherical))

    if n_clusters is None:
        most = MAX_CLUSTERS if max_clusters is None else max_clusters
        return jnp.int32(1), settings(max(min(most, n - 1), 1))  # as many clusters as rows have no silhouette
    if isinstance(n_clusters, jax.Array):
        if max_clusters is None:
            raise UserError("n_clusters is an array; expected max_clusters=... with it, an int that it never exceeds")
        in_range = (n_clusters >= 1) & (n_clusters <= max_clusters)
        number = jnp.where(in_range, jnp.minimum(n_clusters, n), 0)
        return number.astype(jnp.int32), settings(min(max_clusters, n))
    number = operator.index(n_clusters)
    if not 1 <= number <= n:
        raise UserError(f"n_clusters is {number}; expected 1 to {n}, the number of rows, or None to have it chosen")
    if max_clusters is not None and number > max_clusters:
        raise UserError(f"n_clusters is {number}; expected at most max_clusters, which is {max_clusters}: raise it")
    return jnp.int32(number), settings(number if max_clusters is None else min(max_clusters, n))


def search(
    squared: Float[Array, "n n"],
    distances: Float[Array, "n n"],
    mask: Bool[Array, " n"],
    n_clusters: Int[Array, ""],
    min_silhouette: ScalarLike,
    *,
    key: PRNGKeyArray,
    settings: Settings,
) -> Partition:
    """Cluster rows of which the squared distances are known.

    Args:
        squared: `[n, n]` squared distances, finite and symmetric; zero on the diagonal and where masked.
        distances: `[n, n]` what silhouettes are computed from.
        mask: `[n]` false where a row does not count.
        n_clusters: `[]` the number of clusters; 0 for an answer of -1 everywhere.
        min_silhouette: `[]` see `kmeans`.
        key: random key; that of a restart depends on it and on the number of the restart alone.
        settings: see there.
    """
    size = {"max_clusters": settings.max_clusters, "n_restarts": settings.n_restarts}
    starts = seed_labels(squared, mask, key=key, **size)
    valid = n_clusters > 0
    if settings.choose:
        n_clusters, labels, converged, silhouettes = _choose(squared, distances, starts, min_silhouette, settings)
    else:
        labels, converged = _descend(squared, starts[n_clusters - 1], n_clusters, settings)
        silhouettes = None
    labels = relabel(labels, mask & valid)
    return Partition(labels, jnp.max(labels) + 1, silhouettes, converged & valid)


def _choose(
    squared: Float[Array, "n n"],
    distances: Float[Array, "n n"],
    starts: Int[Array, "max_clusters n_restarts n"],
    min_silhouette: ScalarLike,
    settings: Settings,
) -> tuple[Int[Array, ""], Int[Array, " n"], Bool[Array, ""], Float[Array, " max_clusters"]]:
    """Try every number of clusters; the labels with the highest mean silhouette, or else one cluster."""

    def attempt(given: tuple[Array, Array]) -> tuple[Array, Array, Array]:
        n_clusters, starts = given
        labels, converged = _descend(squared, starts, n_clusters, settings)
        return labels, converged, silhouette(distances, labels, max_clusters=settings.max_clusters).mean

    numbers = jnp.arange(1, settings.max_clusters + 1, dtype=jnp.int32)
    labels, converged, silhouettes = lax.map(attempt, (numbers, starts))
    scores = jnp.where(jnp.isnan(silhouettes), -jnp.inf, silhouettes)
    highest = jnp.max(scores)
    best = jnp.where(highest > min_silhouette, jnp.argmax(scores >= highest - NEAR_TIE), 0)
    return (best + 1).astype(jnp.int32), labels[best], converged[best], silhouettes


def _descend(
    squared: Float[Array, "n n"], starts: Int[Array, "n_restarts n"], n_clusters: Int[Array, ""], settings: Settings
) -> tuple[Int[Array, " n"], Bool[Array, ""]]:
    """Lloyd's steps from every start, then single moves from the best end; and whether these came to an end."""
    see = partial(clusters_of, squared, max_clusters=settings.max_clusters, spherical=settings.spherical)

    def lloyd(start: Int[Array, " n"]) -> tuple[Int[Array, " n"], Float[Array, ""]]:
        labels, _ = until_unchanged(lambda labels: reassign(see(labels), labels), start, settings.max_steps)
        return labels, inertia_of(see(labels))

    labels, inertia = jax.vmap(lloyd)(starts)
    best = labels[jnp.argmax(inertia <= jnp.min(inertia) * (1 + NEAR_TIE))]

    def move(labels: Int[Array, " n"]) -> Int[Array, " n"]:
        return best_move(see(labels), labels, n_clusters, spherical=settings.spherical)

    # Moving from every end would cost several times as much; a few more restarts gain the same.
    return until_unchanged(move, best, settings.max_steps)
