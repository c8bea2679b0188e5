"""Measures of a labeling: its silhouette, and its agreement with another one."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from nejax.errors import UserError
from nejax.neuron.array_function import array_function
from nejax.neuron.clustering.labels import relabel
from nejax.neuron.clustering.pairs import masked_distances, pairs_of

_MOST_ROWS = 46_340
"""The square of more rows is no int32."""


class Silhouette(NamedTuple):
    """How much nearer the examples are to their own cluster than to the next one, between -1 and 1.

    Example:
        >>> x, w = np.eye(4)[[0, 0, 1, 1, 1, 2]], np.ones(4)
        >>> print(nejax.silhouette(nejax.embedding_distances(x, w), [0, 0, 1, 1, 1, 2]).samples)
        [1. 1. 1. 1. 1. 0.]
    """

    samples: Float[Array, " n"]
    """`[n]` the silhouette of each example; NaN where masked, and everywhere if it is not defined."""
    mean: Float[Array, ""]
    """`[]` the mean over the unmasked examples."""


@array_function
@partial(jax.jit, static_argnames="max_clusters")
def silhouette(
    distances: Float[Array, "n n"], labels: Int[Array, " n"], *, max_clusters: int | None = None
) -> Silhouette:
    """Compare each example's mean distance to its own cluster with that to the nearest other cluster.

    `s_i = (b_i - a_i) / max(a_i, b_i)`, where `a_i` is the mean distance to the other examples of the cluster
    of `i`, and `b_i` the least of the mean distances to the examples of another cluster. An example alone in
    its cluster has 0, and so has one with `a_i = b_i = 0`. Source: Rousseeuw 1987, Silhouettes, section 2.

    It is not defined, and all of it is NaN, where there are fewer than two clusters (there is no `b_i`), and
    where every example is a cluster of its own (there is no `a_i`).

    Args:
        distances: `[n, n]` distances; only those above the diagonal are read.
        labels: `[n]` the cluster of each example; -1 where masked. Any integers; 0..max_clusters-1 if
            `max_clusters` is given.
        max_clusters: most clusters there can be, to save work where they are few; `n` if None.

    Returns:
        A `Silhouette`. It is NaN for each end of a distance that is not finite, and everywhere if a label is
        `max_clusters` or more. Differentiable in the distances.

    Raises:
        UserError: the distances are not square, the labels have another length, or `max_clusters` is below 1.

    Example:
        >>> x, w = np.eye(4)[[0, 0, 1, 1, 1, 2]], np.ones(4)
        >>> print(nejax.silhouette(nejax.embedding_distances(x, w), [0, 0, 1, 1, 1, 2]).mean.round(4))
        0.8333
    """
    if max_clusters is not None and max_clusters < 1:
        raise UserError(f"max_clusters is {max_clusters}; expected at least 1, or None for as many as there are rows")
    mask = labels >= 0
    distances, _, pairs = masked_distances(distances, mask)
    if max_clusters is None:
        labels, max_clusters = relabel(labels, mask), distances.shape[0]
    dtype = distances.dtype

    member = labels[:, None] == jnp.arange(max_clusters, dtype=labels.dtype)[None, :]
    size = jnp.sum(member, axis=0, dtype=dtype)
    distances = jnp.where(pairs, distances, 0)
    total = jnp.matmul(distances, member.astype(dtype), precision=lax.Precision.HIGHEST)
    own = jnp.sum(jnp.where(member, total, 0), axis=1)
    others = jnp.sum(jnp.where(member, size[None, :] - 1, 0), axis=1)
    a = own / jnp.maximum(others, 1)
    elsewhere = ~member & (size > 0)[None, :]
    b = jnp.min(jnp.where(elsewhere, total / jnp.maximum(size, 1)[None, :], jnp.inf), axis=1)
    larger = jnp.maximum(a, b)
    samples = jnp.where((others > 0) & (larger != 0), (b - a) / jnp.where(larger == 0, 1, larger), 0)

    n_clusters, n_examples = jnp.sum(size > 0, dtype=dtype), jnp.sum(mask, dtype=dtype)
    defined = (n_clusters > 1) & (n_clusters < n_examples) & jnp.all(labels < max_clusters)
    samples = jnp.where(mask & defined & jnp.isfinite(jnp.sum(distances, axis=1)), samples, jnp.nan)
    mean = jnp.sum(jnp.where(mask, samples, 0)) / jnp.maximum(n_examples, 1)
    return Silhouette(samples, jnp.where(defined, mean, jnp.nan))


@array_function
@jax.jit
def adjusted_rand_index(a: Int[Array, " n"], b: Int[Array, " n"]) -> Float[Array, ""]:
    """How far two labelings agree: 1 for the same partition, about 0 for what chance alone would give.

    With the pairs of examples counted as together in both (`tp`), in neither (`tn`), only in `a` (`fp`), only
    in `b` (`fn`), it is `2 (tp tn - fp fn) / ((tp + fn)(fn + tn) + (tp + fp)(fp + tn))`, and 1 where
    `fp = fn = 0`. The counts are exact in int32, the quotient is float32.
    Source: Hubert & Arabie 1985, Comparing partitions.

    Args:
        a: `[n]` one labeling, any integers; -1 where masked. Rows masked in either labeling are left out.
        b: `[n]` the other.

    Returns:
        `[]` float32, at most 1; NaN where fewer than two rows are left, since there is no pair to count.

    Raises:
        UserError: the labelings differ in length, are of several neurons, or are longer than can be counted.

    Example:
        >>> print(nejax.adjusted_rand_index([0, 0, 1, 1, 1, 2], [5, 5, 3, 3, 3, 4]))
        1.0
    """
    if a.size > _MOST_ROWS:
        raise UserError(f"labelings have {a.size} rows; expected at most {_MOST_ROWS}: compare a sample of the rows")
    mask = (a >= 0) & (b >= 0)
    pairs = pairs_of(mask)
    same_a, same_b = a[:, None] == a[None, :], b[:, None] == b[None, :]

    def count(chosen: Array) -> Array:
        return jnp.sum(pairs & chosen, dtype=jnp.int32).astype(jnp.float32)

    tp, tn, fp, fn = count(same_a & same_b), count(~same_a & ~same_b), count(same_a & ~same_b), count(~same_a & same_b)
    # Each product is at most the divisor, so the difference loses nothing that the quotient would show.
    divisor = (tp + fn) * (fn + tn) + (tp + fp) * (fp + tn)
    index = jnp.where(fp + fn == 0, 1, 2 * (tp * tn - fp * fn) / jnp.where(divisor == 0, 1, divisor))
    return jnp.where(jnp.any(pairs), index, jnp.nan)
