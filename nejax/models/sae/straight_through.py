"""Steps whose threshold learns, by gradients that go straight through them."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def jump_relu(h: Float[Array, "*b n"], threshold: Float[Array, " n"], bandwidth: float) -> Float[Array, "*b n"]:
    """`relu(h) * (h > threshold)`, with a straight-through gradient for the threshold.

    `d / d threshold = -(threshold / bandwidth) K((h - threshold) / bandwidth)`, `K` being 1 within a half of 0 and 0
    elsewhere (Rajamanoharan et al. 2024, arXiv 2407.14435, equation 11).
    """
    return _jump_relu(*_alike(h, threshold), bandwidth)


def step(h: Float[Array, "*b n"], threshold: Float[Array, " n"], bandwidth: float) -> Float[Array, "*b n"]:
    """1 where `h > threshold`, else 0, with a straight-through gradient for the threshold alone.

    `d / d threshold = -(1 / bandwidth) K((h - threshold) / bandwidth)`, see `jump_relu`; equation 12 there.
    """
    return _step(*_alike(h, threshold), bandwidth)


def _alike(h: Float[Array, "*b n"], threshold: Float[Array, " n"]) -> tuple[Array, Array]:
    """Both with a value for each entry of `h`, and under `shard_map` with one for each device.

    So gradients are element by element, and JAX adds those of one threshold, over rows and over devices.
    """
    of_each = jnp.broadcast_to(threshold, h.shape)
    is_above = h > of_each
    return jnp.where(is_above, h, h), jnp.where(is_above, of_each, of_each)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _jump_relu(h: Float[Array, "*b n"], threshold: Float[Array, "*b n"], bandwidth: float) -> Float[Array, "*b n"]:
    return jnp.where(h > threshold, jax.nn.relu(h), 0.0)


def _jump_relu_backward(bandwidth: float, saved: tuple[Array, Array], of_output: Array) -> tuple[Array, Array]:
    h, threshold = saved
    through = -(threshold / bandwidth) * _near(h, threshold, bandwidth)
    return jnp.where((h > threshold) & (h > 0), of_output, 0.0), through * of_output


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _step(h: Float[Array, "*b n"], threshold: Float[Array, "*b n"], bandwidth: float) -> Float[Array, "*b n"]:
    return (h > threshold).astype(h.dtype)


def _step_backward(bandwidth: float, saved: tuple[Array, Array], of_output: Array) -> tuple[Array, Array]:
    h, threshold = saved
    return jnp.zeros_like(h), -_near(h, threshold, bandwidth) / bandwidth * of_output


def _near(h: Array, threshold: Array, bandwidth: float) -> Array:
    return (jnp.abs(h - threshold) < bandwidth / 2).astype(h.dtype)


def _saving(function: Callable) -> Callable:
    return lambda h, threshold, bandwidth: (function(h, threshold, bandwidth), (h, threshold))


_jump_relu.defvjp(_saving(_jump_relu), _jump_relu_backward)
_step.defvjp(_saving(_step), _step_backward)
