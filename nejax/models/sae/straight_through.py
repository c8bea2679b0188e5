"""Steps whose threshold learns, by gradients that go straight through them."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def jump_relu(h: Float[Array, "*b n"], threshold: Float[Array, " n"], bandwidth: float) -> Float[Array, "*b n"]:
    """`relu(h) * (h > threshold)`, with a straight-through gradient for the threshold.

    `d / d threshold = -(threshold / bandwidth) K((h - threshold) / bandwidth)`, `K` being 1 within a half of 0 and 0
    elsewhere (Rajamanoharan et al. 2024, arXiv 2407.14435, equation 11).
    """
    return jnp.where(h > threshold, jax.nn.relu(h), 0.0)


def _jump_relu_backward(bandwidth: float, saved: tuple[Array, Array], of_output: Array) -> tuple[Array, Array]:
    h, threshold = saved
    through = -(threshold / bandwidth) * _near(h, threshold, bandwidth)
    return jnp.where((h > threshold) & (h > 0), of_output, 0.0), _over_batch(through * of_output)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def step(h: Float[Array, "*b n"], threshold: Float[Array, " n"], bandwidth: float) -> Float[Array, "*b n"]:
    """1 where `h > threshold`, else 0, with a straight-through gradient for the threshold alone.

    `d / d threshold = -(1 / bandwidth) K((h - threshold) / bandwidth)`, see `jump_relu`; equation 12 there.
    """
    return (h > threshold).astype(h.dtype)


def _step_backward(bandwidth: float, saved: tuple[Array, Array], of_output: Array) -> tuple[Array, Array]:
    h, threshold = saved
    return jnp.zeros_like(h), _over_batch(-_near(h, threshold, bandwidth) / bandwidth * of_output)


def _near(h: Array, threshold: Array, bandwidth: float) -> Array:
    return (jnp.abs(h - threshold) < bandwidth / 2).astype(h.dtype)


def _over_batch(of_each: Float[Array, "*b n"]) -> Float[Array, " n"]:
    return of_each.reshape(-1, of_each.shape[-1]).sum(axis=0)


def _saving(function: Callable) -> Callable:
    return lambda h, threshold, bandwidth: (function(h, threshold, bandwidth), (h, threshold))


jump_relu.defvjp(_saving(jump_relu), _jump_relu_backward)
step.defvjp(_saving(step), _step_backward)
