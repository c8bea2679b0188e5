"""Neuron embeddings and the distances between them (Foote 2024, arXiv 2411.08166)."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from nejax.neuron._kernels.one_kernel import each_row, least, small_call, total
from nejax.neuron.array_function import array_function
from nejax.neuron.precision import at_least_float32

ROUNDINGS = 16
"""The error, in units of the last place of 1, that the cosine of two vectors of one direction may have. Up to 13 were
seen for 1 to 8,192 dimensions; a neuron with a single weight that is not zero has all its embeddings on one line."""


@array_function
@jax.jit
def neuron_embeddings(x: Float[Array, "n d"], w: Float[Array, " d"]) -> Float[Array, "n d"]:
    """The embeddings of a neuron's examples: `e_i = x_i * w`, element by element.

    The entries of `e_i` sum to the neuron's pre-activation minus its bias.
    Source: Foote 2024, arXiv 2411.08166, the neuron embedding.

    Args:
        x: `[n, d_model]` the input of the neuron's layer at the peak of each example.
        w: `[d_model]` the neuron's input weights, a column of `W_in`.

    Returns:
        `[n, d_model]`, one row an example.

    Raises:
        UserError: the shapes do not fit.

    Example:
        >>> x, w = np.eye(4)[[0, 0, 1, 1, 1, 2]], np.arange(4)
        >>> print(nejax.neuron_embeddings(x, w)[-1])
        [0. 0. 2. 0.]
    """
    return x * w[None, :]


@array_function
@jax.jit
def embedding_distances(x: Float[Array, "n d"], w: Float[Array, " d"]) -> Float[Array, "n n"]:
    """Cosine distances between the embeddings of a neuron's examples: `d_ij = 1 - cos(x_i * w, x_j * w)`.

    Between 0 and 2, exactly symmetric, exactly zero on the diagonal, and zero below `ROUNDINGS` roundings: nearer
    embeddings are indistinguishable from ones of the same direction. The embeddings may be of any size, their squares
    need not be representable. A zero embedding has no direction: its distance is 1 to every other example and 0 to
    itself, and its gradient is zero. A non-finite embedding gives NaN. Source: Foote 2024, arXiv 2411.08166.

    Args:
        x: `[n, d_model]` the input of the neuron's layer at the peak of each example.
        w: `[d_model]` the neuron's input weights, a column of `W_in`.

    Returns:
        `[n, n]`, at least float32.

    Raises:
        UserError: the shapes do not fit.

    Example:
        >>> x, w = np.eye(4)[[0, 0, 1, 1, 1, 2]], np.ones(4)
        >>> print(nejax.embedding_distances(x, w)[0])
        [0. 0. 1. 1. 1. 1.]
    """
    rows = _scaled_embeddings(x, w)
    return _cosine_distances(jnp.matmul(rows, rows.T, precision=lax.Precision.HIGHEST))


@small_call
def _scaled_embeddings(x: Float[Array, "n d"], w: Float[Array, " d"]) -> Float[Array, "n d"]:
    """The embeddings, at least float32, each brought near length 1 by a power of two."""
    return each_row(_near_one, _embeddings(x, w))


@small_call
def _cosine_distances(products: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """Cosine distances from scalar products; only those above the diagonal and on it are read.

    A matrix product need not round both halves alike, so the distances take one half for both.
    """
    rows, floor = jnp.arange(len(products)), ROUNDINGS * float(jnp.finfo(products.dtype).eps)
    squares = jnp.diagonal(products)
    inverse = jnp.where(squares == 0, 0, lax.rsqrt(jnp.where(squares == 0, 1, squares)))

    def distances(row: Int[Array, ""], above: Float[Array, " n"], below: Float[Array, " n"]) -> Float[Array, " n"]:
        cosines = jnp.where(row < rows, above, below) * (inverse[row] * inverse)
        found = jnp.minimum(1 - cosines, 2)
        return jnp.where((row == rows) | (found < floor), 0, found)

    return each_row(distances, rows, products, products.T)


@small_call
def unit_embeddings(x: Float[Array, "n d"], w: Float[Array, " d"]) -> Float[Array, "n d"]:
    """The embeddings `x_i * w` at length 1, `[n, d_model]`, at least float32; a zero embedding stays zero."""
    return each_row(_unit, _embeddings(x, w))


@small_call
def unit_rows(rows: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """Rows divided by their length, safe from overflow and underflow of the squares; zero rows stay zero.

    Gradients are finite everywhere, and zero at a zero row.
    """
    return each_row(_unit, rows)


def _unit(row: Float[Array, " d"]) -> Float[Array, " d"]:
    scaled = _near_one(row)
    square = total(scaled * scaled)
    return scaled * jnp.where(square == 0, 0, lax.rsqrt(jnp.where(square == 0, 1, square)))


def _near_one(row: Float[Array, " d"]) -> Float[Array, " d"]:
    """The row times a power of two that brings its largest entry near 1: its square neither over- nor underflows.

    Subnormal rows count as zero: many devices flush them. A NaN goes through.
    """
    # Positive numbers are in the order of their bits, and integers are compared without a thought of NaN.
    bits = lax.bitcast_convert_type(jnp.abs(row), jnp.dtype(f"int{8 * row.dtype.itemsize}"))
    top = -least(jnp.pad(-bits, (0, -bits.size % 64)), lanes=64)
    top = lax.stop_gradient(lax.bitcast_convert_type(top, row.dtype))  # the direction does not depend on the scale
    info = jnp.finfo(row.dtype)
    exponent = jnp.clip(jnp.frexp(top)[1], info.minexp, -info.minexp)  # its negative too is that of a normal number
    return jnp.where(top < info.tiny, 0, row * jnp.ldexp(jnp.ones((), row.dtype), -exponent))


def _embeddings(x: Float[Array, "n d"], w: Float[Array, " d"]) -> Float[Array, "n d"]:
    dtype = at_least_float32(x, w)
    return x.astype(dtype) * w.astype(dtype)[None, :]
