"""Streaming moments of a neuron's activation: exact merging of batches, in one pass over the data."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


class Moments(NamedTuple):
    """Count, mean and sums of powers of the deviations from the mean, `m_p = sum_i (a_i - mean)^p`.

    Each field is a scalar for one neuron, or has one axis or more over neurons.
    """

    count: Float[Array, "*neurons"]
    """How many values, exact up to 2^24 and to a part in 10^7 beyond."""
    mean: Float[Array, "*neurons"]
    """Their mean; 0 where there are none."""
    m2: Float[Array, "*neurons"]
    m3: Float[Array, "*neurons"]
    m4: Float[Array, "*neurons"]


def moments_of(values: Float[Array, "n *neurons"], mask: Bool[Array, " n"]) -> Moments:
    """The moments of one batch of values, in two passes.

    Args:
        values: activations, of one neuron or of many side by side. (A `vmap` over neurons gives the same, but XLA
            then transposes the values: half the speed on CPU.)
        mask: which rows count.
    """
    there = mask.reshape(-1, *(1 for _ in values.shape[1:]))
    count = mask.sum().astype(jnp.float32)
    # Counted from one of the values, the sum loses no digit to their common size: equal values deviate by exactly 0.
    origin = jnp.where(mask.any(), values[mask.argmax()], 0.0)
    mean = origin + jnp.where(there, values - origin, 0.0).sum(axis=0) / jnp.maximum(count, 1.0)
    deviation = jnp.where(there, values - mean, 0.0)
    square = deviation * deviation
    sums = square.sum(axis=0), (square * deviation).sum(axis=0), (square * square).sum(axis=0)
    return Moments(jnp.broadcast_to(count, mean.shape), mean, *sums)


def no_moments(*neurons: int) -> Moments:
    """The moments of no values at all, neutral in `merge_moments`, for an array of neurons of the given shape."""
    return Moments(*(jnp.zeros(neurons, jnp.float32) for _ in Moments._fields))


def merge_moments(a: Moments, b: Moments) -> Moments:
    """The moments of two sets of values together (Pébay 2008, Sandia report SAND2008-6212, equations 2.1 to 3.1)."""
    n = a.count + b.count
    total = jnp.maximum(n, 1.0)
    share_a, share_b = a.count / total, b.count / total
    delta = b.mean - a.mean
    spread = delta * delta * share_a * b.count
    return Moments(
        count=n,
        mean=a.mean + delta * share_b,
        m2=a.m2 + b.m2 + spread,
        m3=a.m3 + b.m3 + spread * delta * (share_a - share_b) + 3 * delta * (share_a * b.m2 - share_b * a.m2),
        m4=a.m4
        + b.m4
        + spread * delta * delta * (share_a * share_a - share_a * share_b + share_b * share_b)
        + 6 * delta * delta * (share_a * share_a * b.m2 + share_b * share_b * a.m2)
        + 4 * delta * (share_a * b.m3 - share_b * a.m3),
    )


class Shape(NamedTuple):
    """Mean, variance, skewness and kurtosis. NaN where the values are too few, or all the same."""

    mean: Float[Array, "*neurons"]
    variance: Float[Array, "*neurons"]
    """`m2 / count`."""
    skewness: Float[Array, "*neurons"]
    """`(m3 / count) / variance^1.5`."""
    kurtosis: Float[Array, "*neurons"]
    """`(m4 / count) / variance^2`: 3 for a normal distribution."""


def shape_of(moments: Moments) -> Shape:
    """Mean, variance, skewness and kurtosis of the values behind the moments (biased, as `scipy.stats` by default)."""
    n = jnp.where(moments.count > 0, moments.count, jnp.nan)
    variance = moments.m2 / n
    spread = jnp.where(variance > 0, variance, jnp.nan)
    return Shape(moments.mean + 0 * n, variance, moments.m3 / n / spread**1.5, moments.m4 / n / spread**2)
