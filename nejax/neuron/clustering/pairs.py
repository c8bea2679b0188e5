"""Which pairs of examples count in a distance matrix."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from nejax.neuron.precision import at_least_float32


def pairs_of(mask: Bool[Array, " n"]) -> Bool[Array, "n n"]:
    """Which entries are of two different unmasked rows."""
    rows = jnp.arange(len(mask))
    return mask[:, None] & mask[None, :] & (rows[:, None] != rows[None, :])


def masked_distances(
    distances: Float[Array, "n n"], mask: Bool[Array, " n"] | None
) -> tuple[Float[Array, "n n"], Bool[Array, " n"], Bool[Array, "n n"]]:
    """Symmetric distances with +inf wherever there is no pair (the diagonal, masked rows).

    Only the entries above the diagonal are read, as SciPy does.

    Returns:
        The distances `[n, n]` (at least float32), the mask `[n]` (all true if none was given), and
        which entries are pairs, `[n, n]`.
    """
    n = distances.shape[0]
    mask = jnp.ones(n, bool) if mask is None else mask
    rows, pairs = jnp.arange(n), pairs_of(mask)
    distances = distances.astype(at_least_float32(distances))
    symmetric = jnp.where(rows[:, None] < rows[None, :], distances, distances.T)
    return jnp.where(pairs, symmetric, jnp.inf), mask, pairs
