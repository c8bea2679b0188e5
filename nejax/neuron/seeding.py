"""Where k-means starts: greedy k-means++ on squared distances."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

_CANDIDATES = 5
"""Rows drawn for each seed after the first, of which the best is kept. The usual 2 + log k is no more up to k = 54; as
this does not depend on k, the seeds of few clusters are the first ones of many."""

NEAR_TIE = 1e-6
"""What is as good as the best but for this counts as just as good, and the first such is taken: rounding, which differs
from one shape of arrays to another, is not to choose."""


def seed_labels(
    squared: Float[Array, "n n"], mask: Bool[Array, " n"], *, key: PRNGKeyArray, max_clusters: int
) -> Int[Array, "max_clusters n"]:
    """Each row's nearest seed, for every number of seeds from 1 to `max_clusters`.

    The first seed is any row. For each further one a few rows are drawn, with chances proportional to their squared
    distance to the nearest seed so far, and the one that would leave the least sum of these distances is kept. A draw
    is one uniform number looked up among the cumulative distances: masked rows change nothing.
    Source: Arthur & Vassilvitskii 2007, "k-means++: the advantages of careful seeding", with the greedy variant of
    its section 7.

    Args:
        squared: `[n, n]` squared distances, finite; zero in masked rows and columns.
        mask: `[n]` false where a row does not count.
        key: random key. The seeds do not depend on `max_clusters`.
        max_clusters: the most seeds.

    Returns:
        `[max_clusters, n]` int32: entry `(c, i)` is the number of the seed nearest to row `i` among the first `c + 1`,
        the lowest on a tie; -1 where masked. Once every row coincides with a seed there are no further ones.
    """
    n = squared.shape[0]
    rows = jnp.arange(n, dtype=jnp.int32)
    up_to = (rows[:, None] <= rows[None, :]).astype(squared.dtype)

    def chances(seed: Int[Array, ""]) -> Float[Array, " candidates"]:
        return jax.random.uniform(jax.random.fold_in(key, seed), (_CANDIDATES,), squared.dtype)

    def draw(chance: Float[Array, " candidates"], weights: Float[Array, " n"]) -> Int[Array, " candidates"]:
        cumulative = jnp.matmul(weights, up_to, precision=lax.Precision.HIGHEST)
        # A row without weight is not drawn, however the sums round.
        reached = (weights > 0)[None, :] & (cumulative[None, :] > (chance * cumulative[-1])[:, None])
        return jnp.min(jnp.where(reached, rows[None, :], n - 1), axis=1)

    def add(state: tuple[Array, Array], of: tuple[Array, Array]) -> tuple[tuple[Array, Array], Array]:
        (labels, nearest), (seed, chance) = state, of
        to_candidate = squared[draw(chance, nearest)]
        potential = jnp.sum(jnp.minimum(nearest[None, :], to_candidate), axis=1)
        # Two rows may leave the very same sum, each the nearest to the other: then rounding is not to choose.
        best = jnp.argmax(potential <= jnp.min(potential) * (1 + NEAR_TIE))
        to_seed = to_candidate[best]
        labels = jnp.where(to_seed < nearest, seed, labels)
        return (labels, jnp.minimum(nearest, to_seed)), labels

    seeds = jnp.arange(max_clusters, dtype=jnp.int32)
    chance = jax.vmap(chances)(seeds)
    first = draw(chance[0], mask.astype(squared.dtype))[0]
    nearest = squared[first]
    labels = jnp.where(mask, jnp.zeros_like(nearest, jnp.int32), -1)
    _, more = lax.scan(add, (labels, nearest), (seeds[1:], chance[1:]))
    return jnp.concatenate([labels[None, :], more])
