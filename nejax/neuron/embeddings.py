"""Neuron embeddings and the distances between them (Foote 2024, arXiv 2411.08166)."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


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
    """
    return x * w[None, :]


@jax.jit
def embedding_distances(x: Float[Array, "n d"], w: Float[Array, " d"]) -> Float[Array, "n n"]:
    """Cosine distances between the embeddings of a neuron's examples: `d_ij = 1 - cos(x_i * w, x_j * w)`.

    Between 0 and 2, exactly symmetric, exactly zero on the diagonal. The embeddings may be of any size, their
    squares need not be representable. A zero embedding has no direction: its distance is 1 to every other
    example and 0 to itself, and its gradient is zero. A non-finite embedding gives NaN.
    Source: Foote 2024, arXiv 2411.08166.

    Args:
        x: `[n, d_model]` the input of the neuron's layer at the peak of each example.
        w: `[d_model]` the neuron's input weights, a column of `W_in`.

    Returns:
        `[n, n]`, at least float32.
    """
    units = unit_embeddings(x, w)
    cosines = jnp.matmul(units, units.T, precision=lax.Precision.HIGHEST)
    cosines = (cosines + cosines.T) / 2  # a matrix product need not round both halves alike
    n = x.shape[0]
    return jnp.where(jnp.eye(n, dtype=bool), 0, jnp.clip(1 - cosines, 0, 2))


def unit_embeddings(x: Float[Array, "n d"], w: Float[Array, " d"]) -> Float[Array, "n d"]:
    """The embeddings `x_i * w` at length 1, `[n, d_model]`, at least float32; a zero embedding stays zero."""
    dtype = jnp.promote_types(jnp.result_type(x, w), jnp.float32)
    return unit_rows(x.astype(dtype) * w.astype(dtype)[None, :])


def unit_rows(rows: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """Rows divided by their length, safe from overflow and underflow of the squares; zero rows stay zero.

    Gradients are finite everywhere, and zero at a zero row.
    """
    # The result does not depend on the scale, so neither does its gradient.
    scale = lax.stop_gradient(jnp.max(jnp.abs(rows), axis=1, keepdims=True))
    # Subnormal numbers count as zero: many devices flush them. A NaN is not "tiny" and goes through.
    tiny = scale < jnp.finfo(rows.dtype).tiny
    scaled = jnp.where(tiny, 0, rows) / jnp.where(tiny, 1, scale)
    squares = jnp.sum(scaled * scaled, axis=1, keepdims=True)
    return scaled / jnp.sqrt(jnp.where(tiny, 1, squares))
