"""Labels of examples, 0..k-1: in order of first appearance, or the largest cluster first. -1 where masked."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


def relabel(groups: Int[Array, " n"], mask: Bool[Array, " n"]) -> Int[Array, " n"]:
    """Number groups 0..k-1 in the order in which their first unmasked row appears.

    Args:
        groups: `[n]` any integers; rows with the same one are in the same group.
        mask: `[n]` false where a row does not count.

    Returns:
        `[n]` int32 labels; -1 where masked.
    """
    n = groups.shape[0]
    rows = jnp.arange(n, dtype=jnp.int32)
    same = (groups[:, None] == groups[None, :]) & mask[None, :]
    first = jnp.min(jnp.where(same, rows[None, :], n - 1), axis=1)  # the first row of each row's group
    order = jnp.cumsum((first == rows) & mask, dtype=jnp.int32) - 1
    return jnp.where(mask, order[first], -1)


def members(labels: Int[Array, " n"], n_clusters: int) -> Bool[Array, "n_clusters n"]:
    """Entry `(c, i)`: whether row `i` is in cluster `c`."""
    return jnp.arange(n_clusters, dtype=labels.dtype)[:, None] == labels[None, :]


def largest_first(labels: Int[Array, " n"]) -> Int[Array, " n"]:
    """Renumber clusters so that 0 is the largest; of equally large ones, the one that appears first."""
    n = labels.shape[0]
    size = jnp.zeros(n, jnp.int32).at[jnp.where(labels >= 0, labels, n)].add(1, mode="drop")
    order = jnp.argsort(-size, stable=True)
    rank = jnp.zeros(n, jnp.int32).at[order].set(jnp.arange(n, dtype=jnp.int32))
    return jnp.where(labels >= 0, rank[labels], -1)
