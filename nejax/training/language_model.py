"""One optimisation step, used by every script that trains, and the loss of a language model."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

Loss = Callable[[Any, Any, Any], tuple[Float[Array, ""], tuple[dict[str, Array], Any]]]
"""`(parameters, batch, memory) -> (scalar, (metrics, memory))`. See `TrainState.memory`."""


def plain_loss(loss: Callable[[Any, Any], Float[Array, ""]]) -> Loss:
    """The `Loss` of a function `(parameters, batch) -> scalar`, which has no metrics and keeps nothing."""
    return lambda params, batch, memory: (loss(params, batch), ({}, memory))


class TrainState(NamedTuple):
    """Everything that a step changes; a training resumes exactly from it."""

    step: Int[Array, ""]
    """How many steps were taken."""
    params: Any
    """The parameters, a pytree."""
    opt_state: Any
    """The optimizer's own state."""
    memory: Any = None
    """State of the loss, without gradients: how long latents have been silent, for example."""


def init_train_state(params: Any, optimizer: optax.GradientTransformation, memory: Any = None) -> TrainState:
    """The state before the first step."""
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), memory)


def train_step(loss: Loss, optimizer: optax.GradientTransformation, state: TrainState, batch: Any):
    """One update: `(state, metrics)`, with the state after it, and metrics of the parameters before it.

    Args:
        loss: differentiated with respect to its first argument.
        optimizer: turns gradients into updates.
        state: before the update.
        batch: for the loss.

    Returns:
        The state, and the loss's own metrics with `loss` and `grad_norm`, the Euclidean norm over all parameters before
        any clipping.
    """
    (value, (metrics, memory)), gradients = jax.value_and_grad(loss, has_aux=True)(state.params, batch, state.memory)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = metrics | {"loss": value, "grad_norm": optax.tree.norm(gradients)}
    return TrainState(state.step + 1, params, opt_state, memory), metrics


def make_train_step(
    loss: Loss, optimizer: optax.GradientTransformation
) -> Callable[[TrainState, Any], tuple[TrainState, dict[str, Float[Array, ""]]]]:
    """`train_step` of a loss and an optimizer, jitted; the given state's buffers are donated."""
    return jax.jit(partial(train_step, loss, optimizer), donate_argnums=0)


def warmup_cosine(peak: float, n_steps: int, n_warmup: int) -> optax.Schedule:
    """Linear warm-up from 0 to `peak` over `n_warmup` steps, then a cosine down to a hundredth of it at `n_steps`."""
    return optax.warmup_cosine_decay_schedule(0.0, peak, n_warmup, n_steps, end_value=0.01 * peak)


def warmup_linear_decay(peak: float, n_steps: int, n_warmup: int, n_decay: int) -> optax.Schedule:
    """Linear warm-up from 0 to `peak` over `n_warmup` steps, constant, then linear to 0 over the last `n_decay`."""
    up, down = optax.linear_schedule(0.0, peak, n_warmup), optax.linear_schedule(peak, 0.0, n_decay)
    return optax.join_schedules([up, down], [max(n_warmup, n_steps - n_decay)])


def next_token_losses(
    logits: Float[Array, "batch seq vocab"], tokens: Int[Array, "batch seq"], length: Int[Array, " batch"]
) -> Float[Array, "batch seq-1"]:
    """Cross-entropy in nats of each token given those before it: entry `[b, t]` is that of `tokens[b, t + 1]`.

    Args:
        logits: entry `[b, t]` scores the token at `t + 1`.
        tokens: token ids, padded on the right.
        length: how many of a row's tokens are real.

    Returns:
        The losses; 0 where the token is padding.
    """
    losses = optax.softmax_cross_entropy_with_integer_labels(logits[:, :-1], tokens[:, 1:])
    return jnp.where(jnp.arange(1, tokens.shape[1]) < length[:, None], losses, 0.0)


def language_model_loss(
    logits: Float[Array, "batch seq vocab"], tokens: Int[Array, "batch seq"], length: Int[Array, " batch"]
) -> Float[Array, ""]:
    """Mean of `next_token_losses` over the real tokens, in nats a token."""
    n_predicted = jnp.maximum(length - 1, 0).sum()
    return next_token_losses(logits, tokens, length).sum() / n_predicted
