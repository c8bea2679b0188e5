"""A neuron's examples on a plane: the two directions in which their embeddings vary most."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from nejax.neuron.array_function import array_function
from nejax.neuron.clustering.pairs import masked_distances

_SQUARINGS = 16
"""The matrix is raised to the power 2^16: of two variances that differ by a thousandth, the smaller one vanishes."""

_ROUNDING = 4
"""Units of rounding at 1 that a distance is off by: identical examples are that far apart."""

_TIED = 0.999
"""Entries whose magnitudes differ by less count as equally large."""


class PrincipalCoordinates(NamedTuple):
    """The places of a neuron's examples on the plane of their largest variance.

    Example:
        >>> found = nejax.principal_coordinates(1 - np.eye(6))
        >>> found.coordinates.shape
        (6, 2)
    """

    coordinates: Float[Array, "n 2"]
    """`[n, 2]` coordinates of each unit embedding from their mean, in the unit of its length; NaN where masked."""
    share: Float[Array, ""]
    """`[]` the part of the unit embeddings' variance that the plane shows, in [0, 1]; NaN where there is none."""


@array_function
@jax.jit
def principal_coordinates(
    distances: Float[Array, "n n"], mask: Bool[Array, " n"] | None = None
) -> PrincipalCoordinates:
    """Coordinates of a neuron's examples on the two principal axes of their unit embeddings.

    With `u_i` the embeddings at length 1, `|u_i - u_j|^2 = 2 d_ij` for cosine distances `d`, so that their centred
    Gram matrix is `B = -J d J` with `J = I - 1/n`. Of its two largest eigenvalues `l_a` and their eigenvectors `v_a`
    example `i` has the coordinates `sqrt(l_a) v_ai`, and the share is `(l_1 + l_2) / trace B`. These are the scores of
    a principal component analysis of the `u_i`, and no other plane keeps the distances better.

    The first example among those farthest out on an axis is on its positive side. An axis whose eigenvalue is within
    rounding of zero has all its coordinates 0. Where two eigenvalues are equal, any axes between theirs may be found.
    Eigenvectors come from repeated squaring, in which nothing but matrix products takes time on any backend.

    A zero embedding, which is at distance 1 from all others, counts as a direction of its own.
    Source: Torgerson 1952, Multidimensional scaling I; Gower 1966, Some distance properties of latent root and vector
    methods, section 2.

    Args:
        distances: `[n, n]` cosine distances, finite between unmasked rows; only those above the diagonal are read.
        mask: `[n]` false where a row does not count; all rows count if None.

    Returns:
        A `PrincipalCoordinates`, all NaN if a distance between unmasked rows is not finite, or if the variance on an
        axis would be negative, as it never is for cosine distances. Fewer than two examples, or identical ones, are
        all at 0 with a share of NaN. It has no gradient.

    Raises:
        UserError: the distances are not square, or the mask has another length.

    Example:
        >>> x, w = np.eye(4)[[0, 0, 1, 1, 1, 2]], np.ones(4)
        >>> print(nejax.principal_coordinates(nejax.embedding_distances(x, w)).share)
        1.0
    """
    distances, mask, pairs = masked_distances(lax.stop_gradient(distances), mask)
    distances = jnp.where(pairs, distances, 0)
    finite = jnp.all(jnp.isfinite(distances))
    rounding = _ROUNDING * jnp.finfo(distances.dtype).eps
    distances = jnp.where(finite & (distances > rounding), distances, 0)

    n = jnp.maximum(jnp.sum(mask), 1)
    to_mean = jnp.sum(distances, axis=1) / n.astype(distances.dtype)
    variance = jnp.sum(to_mean)  # the trace
    products = to_mean[:, None] + to_mean[None, :] - distances - variance / n.astype(distances.dtype)
    products = jnp.where(mask[:, None] & mask[None, :], products, 0)

    first, on_first = _largest_eigenpair(products)
    second, on_second = _largest_eigenpair(products - first * (on_first[:, None] * on_first[None, :]))
    values, vectors = jnp.stack([first, second]), jnp.stack([_signed(on_first), _signed(on_second)], axis=1)
    zero = rounding * n.astype(distances.dtype)
    valid = finite & jnp.all(values >= -zero)
    values = jnp.where(values > zero, values, 0)
    share = jnp.where(variance > zero, jnp.minimum(jnp.sum(values) / variance, 1), jnp.nan)
    coordinates = jnp.where(valid & mask[:, None], jnp.sqrt(values)[None, :] * vectors, jnp.nan)
    return PrincipalCoordinates(coordinates, jnp.where(valid, share, jnp.nan))


def _largest_eigenpair(matrix: Float[Array, "n n"]) -> tuple[Float[Array, ""], Float[Array, " n"]]:
    """The eigenvalue largest in magnitude and its eigenvector, of length 1; zeros for a matrix of zeros."""

    def scaled(power: Float[Array, "n n"]) -> Float[Array, "n n"]:
        return power / jnp.maximum(jnp.max(jnp.abs(power)), jnp.finfo(power.dtype).tiny)

    def square(_: Int[Array, ""], power: Float[Array, "n n"]) -> Float[Array, "n n"]:
        return scaled(jnp.matmul(power, power, precision=lax.Precision.HIGHEST))

    # Every column of the power is the eigenvector times one of its entries; the diagonal has their squares.
    power = lax.fori_loop(0, _SQUARINGS, square, scaled(matrix))
    column = power[:, jnp.argmax(jnp.diagonal(power))]
    vector = column / jnp.maximum(jnp.linalg.norm(column), jnp.finfo(column.dtype).tiny)
    image = jnp.matmul(matrix, vector, precision=lax.Precision.HIGHEST)
    return jnp.sum(vector * image), vector


def _signed(vector: Float[Array, " n"]) -> Float[Array, " n"]:
    """The vector or its opposite: its first entry of the largest magnitude, or nearly so, is positive.

    The entries of two examples, say, have equal magnitudes but for rounding, which must not decide.
    """
    magnitude = jnp.abs(vector)
    return jnp.where(vector[jnp.argmax(magnitude >= _TIED * jnp.max(magnitude))] < 0, -vector, vector)
