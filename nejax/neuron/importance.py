"""How important each token before a peak is for the activation there."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nejax.neuron.array_function import array_function

ROUNDING = 1e-6
"""A change of an activation by less than this part of it is rounding."""


@array_function
@jax.jit
def token_importance(
    activation: Float[Array, "*peaks"], without: Float[Array, "*peaks n_offsets"]
) -> Float[Array, "*peaks n_offsets"]:
    """How much of the activation at a peak is lost without each token, relative to the loss without the peak's own
    token.

    `importance_o = clip((a - a_o) / (a - a_0), 0, 1)`, where `a` is the activation at the peak and `a_o` what is
    left there when the token `o` positions before it is ablated; `a_0` when the peak's own token is. A token
    whose loss raises the activation has importance 0.
    Source: Foote 2024, arXiv 2411.08166, token importance.

    Args:
        activation: `[...]` at the peaks, of any number of axes.
        without: `[..., n_offsets]` what is left of it without the token at the peak, one before it, two before it, ...;
            NaN where there is no such token.

    Returns:
        `[..., n_offsets]` between 0 and 1. NaN where there is no such token, and everywhere for a peak whose activation
        does not fall by more than rounding without its own token: there is nothing to divide by.

    Raises:
        UserError: the two are not of the same peaks.

    Example:
        >>> print(nejax.token_importance(4.0, [2.0, 3.0, 4.5]))
        [1.  0.5 0. ]
    """
    lost = activation[..., None] - without
    own = lost[..., :1]
    falls = own > ROUNDING * jnp.abs(activation[..., None])
    return jnp.where(falls, jnp.clip(lost / jnp.where(falls, own, 1), 0, 1), jnp.nan)
