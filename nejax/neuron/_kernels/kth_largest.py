"""The k-th largest number of each row, without sorting."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from nejax.neuron._kernels.one_kernel import each_row, on_cpu, padded_to_lanes, small_call, total


@partial(jax.jit, static_argnames="k")
def kth_largest(rows: Float[Array, "b n"], k: int) -> Float[Array, " b"]:
    """The k-th largest entry of each row, exactly; equal entries count one by one.

    XLA sorts for this on CPU, row by row. Here the bits of the answer are found one after the other, from the highest:
    a bit is 1 if at least `k` entries are at least as large as the answer with it. That is 32 counts of a row, all in
    registers.

    Args:
        rows: `[b, n]` float32, no NaN.
        k: from 1 to `n`, a number that is known when the function is traced.

    Returns:
        `[b]`. No gradient goes through it.
    """
    rows = lax.stop_gradient(rows)
    if not on_cpu():
        return lax.top_k(rows, k)[0][:, -1]
    missing = padded_to_lanes(rows.shape[1]) - rows.shape[1]
    padded = jnp.pad(rows, ((0, 0), (0, missing)), constant_values=-jnp.inf)
    return small_call(lambda rows: each_row(lambda row: _by_bits(row, k), rows))(padded)


def _by_bits(row: Float[Array, " n"], k: int) -> Float[Array, ""]:
    bits = lax.bitcast_convert_type(row, jnp.uint32)
    # In the order of the numbers: negative ones have all bits turned, the others their sign.
    ordered = jnp.where(bits >> 31, ~bits, bits | jnp.uint32(1 << 31))

    def next_bit(i: Int[Array, ""], found: Array) -> Array:
        candidate = found | (jnp.uint32(1 << 31) >> i.astype(jnp.uint32))
        enough = total((ordered >= candidate).astype(jnp.int32)) >= k
        return jnp.where(enough, candidate, found)

    found = lax.fori_loop(0, 32, next_bit, jnp.uint32(0))
    return lax.bitcast_convert_type(jnp.where(found >> 31, found & jnp.uint32((1 << 31) - 1), ~found), row.dtype)
