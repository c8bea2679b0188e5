"""The best examples of one neuron in a stream: a buffer of fixed size, always in order."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from nejax.errors import UserError

_CHUNK = 16
"""Arrivals ranked at once: on CPUs a chunk of 16 costs least an arrival."""


class TopExamples(NamedTuple):
    """The `k` best examples so far: by higher activation, then lower sequence, then lower position."""

    activation: Float[Array, " k"]
    """`[k]` the activation at the peak, descending; -inf where empty."""
    sequence: Int[Array, " k"]
    """`[k]` int32 the number of the sequence; -1 where empty."""
    position: Int[Array, " k"]
    """`[k]` int32 the position of the peak in its sequence; -1 where empty."""


def empty_top_examples(k: int) -> TopExamples:
    """An empty buffer for the `k` best examples of one neuron.

    Raises:
        UserError: `k` is less than 1.
    """
    if k < 1:
        raise UserError(f"k is {k}; expected at least 1 example to keep")
    return TopExamples(jnp.full(k, -jnp.inf, jnp.float32), jnp.full(k, -1, jnp.int32), jnp.full(k, -1, jnp.int32))


@jax.jit
def update_top_examples(
    top: TopExamples, activation: Float[Array, " b"], sequence: Int[Array, " b"], position: Int[Array, " b"]
) -> TopExamples:
    """Take new examples into the buffer and keep the `k` best of all.

    The order is total (activation, then sequence, then position), so the result depends neither on how a
    stream is split into batches nor on the order in which it arrives. No sort is needed: a new example's
    place is the number of examples before it.

    Args:
        top: the buffer.
        activation: `[b]` activations of the new examples; one that is -inf (masked) or NaN is never kept.
        sequence: `[b]` number of the sequence of each; an example that comes twice is kept twice.
        position: `[b]` position of the peak in its sequence.

    Returns:
        The new buffer, of the same size.
    """
    activation = jnp.where(activation > -jnp.inf, activation, -jnp.inf)  # NaN has no place in an order
    new = TopExamples(activation.astype(top.activation.dtype), sequence.astype(jnp.int32), position.astype(jnp.int32))
    # Scanning chunks keeps the cost linear in the number of arrivals.
    missing = -activation.shape[0] % _CHUNK
    fill = TopExamples(*(jnp.asarray(value) for value in (-jnp.inf, -1, -1)))
    chunks = jax.tree.map(
        lambda values, value: jnp.pad(values, (0, missing), constant_values=value).reshape(-1, _CHUNK),
        new,
        fill,
    )
    return lax.scan(lambda top, chunk: (_insert(top, chunk), None), top, chunks)[0]


@jax.jit
def merge_top_examples(a: TopExamples, b: TopExamples) -> TopExamples:
    """The best of two buffers (of two devices, say), as if one stream had filled `a`; of the size of `a`."""
    return update_top_examples(a, *b)


def _insert(top: TopExamples, new: TopExamples) -> TopExamples:
    """Put a few new examples, in any order, into their places."""
    k, b = top.activation.shape[0], new.activation.shape[0]
    arrivals, slots = jnp.arange(b), jnp.arange(k)
    column = jax.tree.map(lambda values: values[:, None], new)
    row = jax.tree.map(lambda values: values[None, :], new)
    # Equal examples stay as they came: those in the buffer first.
    after_old = ~_before(column, jax.tree.map(lambda values: values[None, :], top))
    after_new = _before(row, column) | (~_before(column, row) & (arrivals[None, :] < arrivals[:, None]))
    place = jnp.sum(after_old, axis=1) + jnp.sum(after_new, axis=1)
    place = jnp.where(new.activation > -jnp.inf, place, k)
    # A slot holds the arrival whose place it is, or an old example moved down by the arrivals above it.
    arrival = jnp.max(jnp.where(place[:, None] == slots[None, :], arrivals[:, None], -1), axis=0)
    above = jnp.sum(place[:, None] < slots[None, :], axis=0)
    source = jnp.where(arrival >= 0, k + arrival, slots - above)
    return jax.tree.map(lambda old, values: jnp.concatenate([old, values])[source], top, new)


def _before(a: TopExamples, b: TopExamples) -> Bool[Array, "rows columns"]:
    """Whether example `a` comes before example `b`."""
    lower = (a.sequence < b.sequence) | ((a.sequence == b.sequence) & (a.position < b.position))
    return (a.activation > b.activation) | ((a.activation == b.activation) & lower)
