"""Which pairs of examples count: what every function of a distance matrix asks first."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from nejax.errors import UserError


def require_square(distances: Float[Array, "..."], name: str, rows: Array | None) -> None:
    """Refuse distances that are not `[n, n]` with n >= 1, or a mask or labels (`name`) not of length n."""
    shape = distances.shape
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] == 0:
        raise UserError(f"distances have shape {shape}; expected [n, n] with n >= 1: pass one neuron, or use jax.vmap")
    if rows is not None and rows.shape != shape[:1]:
        raise UserError(f"{name} has shape {rows.shape}; expected {shape[:1]}, one entry for each row of distances")


def masked_distances(
    distances: Float[Array, "n n"], mask: Bool[Array, " n"] | None
) -> tuple[Float[Array, "n n"], Bool[Array, " n"], Bool[Array, "n n"]]:
    """Symmetric distances with +inf wherever there is no pair (the diagonal, masked rows).

    Only the entries above the diagonal are read, as SciPy does.

    Returns:
        The distances `[n, n]` (at least float32), the mask `[n]` (all true if none was given), and
        which entries are pairs, `[n, n]`.
    """
    require_square(distances, "mask", mask)
    n = distances.shape[0]
    mask = jnp.ones(n, bool) if mask is None else mask
    rows = jnp.arange(n)
    pairs = mask[:, None] & mask[None, :] & (rows[:, None] != rows[None, :])
    distances = distances.astype(jnp.promote_types(distances.dtype, jnp.float32))
    symmetric = jnp.where(rows[:, None] < rows[None, :], distances, distances.T)
    return jnp.where(pairs, symmetric, jnp.inf), mask, pairs
