"""The summary of a batch's activations: each neuron's peak in every sequence, how often it fires, its moments.

On CPU it is one kernel that takes a slice of neurons through a sequence while both fit the nearest cache; elsewhere,
XLA fuses the reductions.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from nejax.neuron._kernels.one_kernel import loops_are_kernels, small_call
from nejax.neuron.streaming.moments import Moments, merge_moments, moments_of

_SLICE = 256
"""Neurons at a time: 128 tokens of so many take 128 KiB."""


class ActivationSummary(NamedTuple):
    """The summary of one layer's activations in a batch."""

    peak: Float[Array, "batch n_neurons"]
    """The highest activation of a neuron in a sequence; -inf where nothing can be a peak."""
    position: Int[Array, "batch n_neurons"]
    """int32: where it is, the first place of equal ones; -1 where nothing can be a peak."""
    n_fired: Int[Array, " n_neurons"]
    """int32: at how many tokens the activation is above 0."""
    moments: Moments
    """Of each neuron's activation over all tokens that can be a peak."""


def summarize_activations(
    activation: Float[Array, "batch seq n_neurons"], can_peak: Bool[Array, "batch seq"]
) -> ActivationSummary:
    """Peaks, firing counts and moments of one layer's activations.

    Args:
        activation: of all neurons at all tokens.
        can_peak: the tokens that count.

    Returns:
        The summary. An activation that is NaN makes the moments of its neuron NaN.
    """
    if loops_are_kernels():
        return ActivationSummary(*small_call(_slice_by_slice)(activation, can_peak))
    return _all_at_once(activation, can_peak)


def _all_at_once(activation: Array, can_peak: Array) -> ActivationSummary:
    counted = jnp.where(can_peak[:, :, None], activation, -jnp.inf)
    position = jnp.where(can_peak.any(axis=1)[:, None], counted.argmax(axis=1), -1)
    return ActivationSummary(
        peak=counted.max(axis=1),
        position=position.astype(jnp.int32),
        n_fired=(counted > 0).sum(axis=(0, 1), dtype=jnp.int32),
        moments=moments_of(activation.reshape(-1, activation.shape[-1]), can_peak.reshape(-1)),
    )


def _slice_by_slice(activation: Array, can_peak: Array) -> tuple:
    batch, seq, n_neurons = activation.shape
    width = min(_SLICE, n_neurons)
    # Loops must start as they go on: under `shard_map`, varying over devices as the arguments do.
    zero = (activation[0, 0, 0] > jnp.inf) & can_peak[0, 0]
    start_int, start_float = zero.astype(jnp.int32), zero.astype(jnp.float32)

    def one_slice(i: Array, outs: tuple) -> tuple:
        # The last slice may overlap the one before it, and says the same again where it does.
        first = jnp.minimum(i * width, n_neurons - width)

        def one_sequence(row: Array, state: tuple) -> tuple:
            peaks, positions, n_fired, moments = state

            def token(t: Array) -> Array:
                return lax.dynamic_slice(activation, (row, t, first), (1, 1, width))[0, 0]

            origin = token(jnp.argmax(can_peak[row]))

            def look(t: Array, seen: tuple) -> tuple:
                peak, position, n_fired, total = seen
                value, counts = token(t), can_peak[row, t]
                higher = counts & (value > peak)
                return (
                    jnp.where(higher, value, peak),
                    jnp.where(higher, t, position),
                    n_fired + (counts & (value > 0)),
                    total + jnp.where(counts, value - origin, 0.0),
                )

            none = jnp.full(width, start_float - jnp.inf), jnp.full(width, start_int - 1)
            peak, position, n_fired, total = lax.fori_loop(0, seq, look, (*none, n_fired, jnp.full(width, start_float)))
            count = can_peak[row].sum().astype(jnp.float32)
            mean = origin + total / jnp.maximum(count, 1.0)

            def add_powers(t: Array, sums: tuple) -> tuple:
                deviation = jnp.where(can_peak[row, t], token(t) - mean, 0.0)
                square = deviation * deviation
                return sums[0] + square, sums[1] + square * deviation, sums[2] + square * square

            sums = lax.fori_loop(0, seq, add_powers, (jnp.full(width, start_float),) * 3)
            here = Moments(jnp.full(width, count), jnp.where(count > 0, mean, 0.0), *sums)
            return (
                lax.dynamic_update_slice(peaks, peak[None], (row, first)),
                lax.dynamic_update_slice(positions, position[None], (row, first)),
                n_fired,
                merge_moments(moments, here),
            )

        peaks, positions, n_fired, moments = outs
        none = jnp.full(width, start_int), Moments(*(jnp.full(width, start_float) for _ in Moments._fields))
        peaks, positions, fired, found = lax.fori_loop(0, batch, one_sequence, (peaks, positions, *none))
        n_fired = lax.dynamic_update_slice(n_fired, fired, (first,))
        moments = Moments(
            *(lax.dynamic_update_slice(all_, own, (first,)) for all_, own in zip(moments, found, strict=True))
        )
        return peaks, positions, n_fired, moments

    empty = (
        jnp.full((batch, n_neurons), start_float),
        jnp.full((batch, n_neurons), start_int),
        jnp.full(n_neurons, start_int),
        Moments(*(jnp.full(n_neurons, start_float) for _ in Moments._fields)),
    )
    return lax.fori_loop(0, -(-n_neurons // width), one_slice, empty)
