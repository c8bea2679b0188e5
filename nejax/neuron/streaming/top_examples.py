"""The best examples of one neuron in a stream: a buffer of fixed size, always in order."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from nejax.errors import UserError
from nejax.neuron._kernels.one_kernel import loops_are_kernels, small_call

_CHUNK = 16
"""Arrivals ranked at once."""


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
    if not len(activation):
        return top
    return TopExamples(*_insert_by_chunks(tuple(top), *_orderly(top, activation, sequence, position)))


def update_top_examples_of_layer(
    top: TopExamples,
    activation: Float[Array, "neurons b"],
    sequence: Int[Array, " b"],
    position: Int[Array, "neurons b"],
) -> TopExamples:
    """`update_top_examples` of many neurons over the same sequences: for layer programs.

    Where loops are kernels, one kernel updates the buffers of all neurons in place, if the caller donates them: a step
        costs what it changes.

    Args:
        top: the buffers, with a leading axis over neurons.
        activation: `[neurons, b]`, see `update_top_examples`.
        sequence: `[b]`.
        position: `[neurons, b]`.

    Returns:
        The new buffers.
    """
    if not loops_are_kernels() or not len(sequence):
        return jax.vmap(update_top_examples, (0, 0, None, 0))(top, activation, sequence, position)
    return TopExamples(*_take_in(*top, *_orderly(top, activation, sequence, position)))


def _orderly(top: TopExamples, activation: Array, sequence: Array, position: Array) -> tuple[Array, Array, Array]:
    activation = jnp.where(activation > -jnp.inf, activation, -jnp.inf)  # NaN has no place in an order
    return activation.astype(top.activation.dtype), sequence.astype(jnp.int32), position.astype(jnp.int32)


@small_call
def _take_in(
    strengths: Array, sequences: Array, positions: Array, activation: Array, sequence: Array, position: Array
) -> tuple[Array, ...]:
    """Every neuron's buffer after the new examples, one neuron after another."""

    def neuron(i: Int[Array, ""], buffers: tuple[Array, ...]) -> tuple[Array, ...]:
        own = _insert_each(tuple(x[i] for x in buffers), activation[i], sequence, position[i])
        return tuple(lax.dynamic_update_index_in_dim(x, v, i, 0) for x, v in zip(buffers, own, strict=True))

    return lax.fori_loop(0, len(strengths), neuron, (strengths, sequences, positions))


def _insert_each(top: tuple[Array, ...], *new: Array) -> tuple[Array, ...]:
    """Insert each new example, one after another. Most are too weak, and cost one comparison on a CPU."""
    k, n_new = len(top[0]), len(new[0])
    slots = jnp.arange(k)

    def arrive(i: Int[Array, ""], top: tuple[Array, ...]) -> tuple[Array, ...]:
        example = tuple(values[i] for values in new)

        def insert(state: tuple[Array, tuple[Array, ...]]) -> tuple[Array, tuple[Array, ...]]:
            again, top = state
            # equal examples stay as they came: those in the buffer first
            place = jnp.sum(~_before(example, top))
            moved = (jnp.concatenate([values[:1], values[:-1]]) for values in top)
            changed = tuple(
                jnp.where(slots < place, values, jnp.where(slots == place, value, down))
                for values, value, down in zip(top, example, moved, strict=True)
            )
            return again & False, changed

        is_better = (example[0] > -jnp.inf) & _before(example, tuple(values[k - 1] for values in top))
        # a loop of one step or none, which a kernel can hold, where a condition would compute both branches
        return lax.while_loop(lambda state: state[0], insert, (is_better, top))[1]

    return lax.fori_loop(0, n_new, arrive, top)


def _insert_by_chunks(top: tuple[Array, ...], *new: Array) -> tuple[Array, ...]:
    """Insert new examples, a chunk at a time: few large steps, for accelerators."""
    # Scanning chunks keeps the cost linear in the number of arrivals.
    missing = -len(new[0]) % _CHUNK
    chunks = tuple(
        jnp.pad(values, (0, missing), constant_values=value).reshape(-1, _CHUNK)
        for values, value in zip(new, (-jnp.inf, -1, -1), strict=True)
    )
    best, _ = lax.scan(lambda top, chunk: (_insert(top, chunk), None), TopExamples(*top), TopExamples(*chunks))
    return tuple(best)


def _insert(top: TopExamples, new: TopExamples) -> TopExamples:
    """Insert a few new examples, in any order."""
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


def _before(a: tuple[Array, ...], b: tuple[Array, ...]) -> Array:
    """Whether `a` comes before `b`, each an activation, a sequence and a position, or arrays of these."""
    (activation, sequence, position), (other_activation, other_sequence, other_position) = a, b
    lower = (sequence < other_sequence) | ((sequence == other_sequence) & (position < other_position))
    return (activation > other_activation) | ((activation == other_activation) & lower)
