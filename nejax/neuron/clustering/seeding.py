"""The seeds of k-means: greedy k-means++ on squared distances."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

_CANDIDATES = 5
"""Rows drawn for each seed after the first, of which the best is kept. The usual 2 + log k is no more up to k = 54; as
this does not depend on k, the seeds of few clusters are the first ones of many."""

NEAR_TIE = 1e-6
"""Candidates within this of the best count as equally good, and the first of them is taken, so that rounding, which
differs between shapes of arrays, does not decide."""


def seed_labels(
    squared: Float[Array, "n n"],
    mask: Bool[Array, " n"],
    *,
    key: PRNGKeyArray,
    max_clusters: int,
    n_restarts: int,
) -> Int[Array, "max_clusters n_restarts n"]:
    """Each row's nearest seed, for every number of seeds from 1 to `max_clusters`, in several restarts.

    The first seed is any row. For each further one a few rows are drawn, with chances proportional to their squared
    distance to the nearest seed so far, and the one that would leave the least sum of these distances is kept. A draw
    is one uniform number looked up among the cumulative distances: masked rows change nothing.
    Source: Arthur & Vassilvitskii 2007, "k-means++: the advantages of careful seeding", with the greedy variant of
    its section 7.

    Args:
        squared: `[n, n]` squared distances, finite; zero in masked rows and columns.
        mask: `[n]` false where a row does not count.
        key: random key. The seeds of a restart depend neither on `max_clusters` nor on `n_restarts`.
        max_clusters: the most seeds.
        n_restarts: how often.

    Returns:
        `[max_clusters, n_restarts, n]` int32: entry `(c, r, i)` is the number of the seed nearest to row `i` among the
        first `c + 1` of restart `r`, the lowest on a tie; -1 where masked. Once every row coincides with a seed there
        are no further ones.
    """
    n = squared.shape[0]
    rows = jnp.arange(n, dtype=jnp.int32)
    up_to = (rows[:, None] <= rows[None, :]).astype(squared.dtype)

    def add(state: tuple[Array, Array], seed: Int[Array, ""]) -> tuple[tuple[Array, Array], Array]:
        labels, nearest = state
        # The same numbers for the first restarts, however many there are, and in every precision.
        chance = jax.random.uniform(jax.random.fold_in(key, seed), (n_restarts, _CANDIDATES), jnp.float32)
        chance = chance.astype(squared.dtype)
        weights = jnp.where(seed == 0, mask[None, :].astype(squared.dtype), nearest)
        cumulative = jnp.matmul(weights, up_to, precision=lax.Precision.HIGHEST)
        # A row without weight is not drawn, however the sums round.
        reached = (weights > 0)[:, None, :] & (cumulative[:, None, :] > (chance * cumulative[:, -1:])[:, :, None])
        to_candidate = squared[jnp.min(jnp.where(reached, rows[None, None, :], n - 1), axis=2)]
        potential = jnp.sum(jnp.minimum(nearest[:, None, :], to_candidate), axis=2)
        # Two rows may leave the very same sum, each the nearest to the other: then rounding is not to choose.
        good = potential <= jnp.min(potential, axis=1, keepdims=True) * (1 + NEAR_TIE)
        best = jnp.where(seed == 0, 0, jnp.argmax(good, axis=1))
        to_seed = jnp.take_along_axis(to_candidate, best[:, None, None], axis=1)[:, 0]
        labels = jnp.where(to_seed < nearest, seed, labels)
        return (labels, jnp.minimum(nearest, to_seed)), labels

    # Any number of seeds is nearer than none.
    none = jnp.where(mask, jnp.full_like(squared[0], jnp.inf), 0)
    nearest = jnp.broadcast_to(none[None, :], (n_restarts, n))
    labels = jnp.where(nearest > 0, -1, jnp.full_like(nearest, -1, jnp.int32))
    return lax.scan(add, (labels, nearest), jnp.arange(max_clusters, dtype=jnp.int32))[1]
