"""Training the MLP, and sparse autoencoders on what its hidden neurons say: many steps a call."""

from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from mnist.images import Images
from mnist.mlp import MLP, cross_entropy
from mnist.side_by_side import OnSteps
from nejax.errors import UserError
from nejax.models.sae.architectures import ARCHITECTURES, SAE, fold_scale, make_sae_loss
from nejax.training.language_model import Loss, TrainState, init_train_state, train_step

STEPS_A_CALL = 50
"""Between two looks at the progress."""


class Recipe(NamedTuple):
    """How an SAE is trained, but for its seed."""

    architecture: str
    """One of `nejax.models.sae.architectures.ARCHITECTURES`."""
    d_sae: int
    """Latents."""
    arguments: tuple[tuple[str, Any], ...]
    """Of the architecture, by name: `k`, say."""
    weights: tuple[tuple[str, float], ...]
    """Of the losses beside the reconstruction, by name (see `nejax.models.sae.architectures.SAE.losses`), for inputs
    whose variance is 1 in the mean over dimensions: the reconstruction's loss is then the share of the variance that is
    lost."""
    learning_rate: float
    """The highest: it rises over the first twentieth of the steps and falls along a cosine."""
    n_steps: int
    batch_size: int
    """Inputs a step."""


class MLPRecipe(NamedTuple):
    """How an MLP is trained, but for its seed."""

    d_hidden: int
    n_steps: int
    batch_size: int = 256
    learning_rate: float = 2e-3
    """As of a `Recipe`."""
    weight_decay: float = 0.3
    """Decoupled. It takes the noise of their first values from the weights of pixels that never have ink."""


def train_mlp(images: Images, recipe: MLPRecipe, *, seed: int, on_steps: OnSteps) -> MLP:
    """Train the classifier on the training images."""
    mlp = MLP(images.x.shape[1], recipe.d_hidden, images.n_classes, rngs=nnx.Rngs(seed))
    graph, params = nnx.split(mlp)
    optimizer = _optimizer(recipe.learning_rate, recipe.n_steps, recipe.weight_decay)
    state = init_train_state(params, optimizer)
    state = _fit(state, (images.x, images.labels), recipe, seed, on_steps, loss=_mlp_loss(graph), optimizer=optimizer)
    return nnx.merge(graph, state.params)


def accuracy(mlp: MLP, x: Float[np.ndarray, "n d_in"], labels: np.ndarray) -> float:
    """The share of images whose class has the highest score."""
    return float(np.mean(np.argmax(_logits(mlp, x), axis=-1) == labels))


def hidden_layer(mlp: MLP, x: Float[np.ndarray, "n d_in"]) -> Float[np.ndarray, "n d_hidden"]:
    """The hidden neurons' activations at each image, on the host."""
    return np.asarray(_activation(mlp, x))


_logits = nnx.jit(lambda mlp, x: mlp(x))
_activation = nnx.jit(lambda mlp, x: mlp.activation(x))


def train_sae(x: Float[np.ndarray, "n d_in"], recipe: Recipe, *, seed: int, on_steps: OnSteps) -> SAE:
    """Train an SAE on inputs; what it learns on a common scale is folded back to that of the inputs.

    Args:
        x: the inputs, on the host.
        recipe: how.
        seed: of its first weights and of the batches.
        on_steps: for a progress bar.

    Raises:
        UserError: the training diverged.
    """
    scale = 1 / float(np.sqrt(np.mean(np.var(x, axis=0, dtype=np.float64))))
    sae = ARCHITECTURES[recipe.architecture](x.shape[1], recipe.d_sae, rngs=nnx.Rngs(seed), **dict(recipe.arguments))
    sae.b_dec[...] = jnp.asarray(scale * x.mean(axis=0))
    graph, params = nnx.split(sae)
    weights = {name: float(weight) for name, weight in recipe.weights}  # an int would be compiled for apart
    loss = _sae_loss(graph, tuple(weights))
    optimizer = _optimizer(recipe.learning_rate, recipe.n_steps)
    state = init_train_state(params, optimizer, memory=jnp.zeros(recipe.d_sae, jnp.int32))
    state = _fit(state, (scale * x,), recipe, seed, on_steps, constants=weights, loss=loss, optimizer=optimizer)
    if not all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(state.params)):
        raise UserError(
            f"an SAE of architecture {recipe.architecture} diverged with a learning rate of {recipe.learning_rate:g}; "
            f"lower --{recipe.architecture}_learning_rate"
        )
    return fold_scale(nnx.merge(graph, state.params), scale)


def _fit(
    state: TrainState,
    data: tuple[np.ndarray, ...],
    recipe: Recipe | MLPRecipe,
    seed: int,
    on_steps: OnSteps,
    *,
    constants: Any = None,
    loss: Loss,
    optimizer: optax.GradientTransformation,
) -> TrainState:
    on_device = jax.tree.map(jnp.asarray, data)
    key = jax.random.key(seed)
    for stop in [*range(STEPS_A_CALL, recipe.n_steps, STEPS_A_CALL), recipe.n_steps]:
        before = int(state.step)
        state = _steps(
            state, on_device, constants, key, stop, loss=loss, optimizer=optimizer, batch_size=recipe.batch_size
        )
        on_steps(int(state.step) - before)
    return state


@partial(jax.jit, static_argnames=("loss", "optimizer", "batch_size"), donate_argnames="state")
def _steps(
    state: TrainState,
    data: tuple[Array, ...],
    constants: Any,
    key: Array,
    stop: int,
    *,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    batch_size: int,
) -> TrainState:
    """Go on to step `stop`. A batch is drawn anew from all data, with replacement; `constants` comes last in it."""

    def one(state: TrainState) -> TrainState:
        rows = jax.random.randint(jax.random.fold_in(key, state.step), (batch_size,), 0, len(data[0]))
        return train_step(loss, optimizer, state, (*(values[rows] for values in data), constants))[0]

    return lax.while_loop(lambda state: state.step < stop, one, state)


@cache
def _optimizer(learning_rate: float, n_steps: int, weight_decay: float = 0.0) -> optax.GradientTransformation:
    """One for all runs of the same settings, which therefore share what is compiled."""
    schedule = optax.warmup_cosine_decay_schedule(0, learning_rate, n_steps // 20, n_steps)
    return optax.adamw(schedule, weight_decay=weight_decay)


@cache
def _mlp_loss(graph: nnx.GraphDef) -> Loss:
    def loss(params: Any, batch: Any, memory: None):
        x, labels, _ = batch
        return cross_entropy(nnx.merge(graph, params), x, labels), ({}, memory)

    return loss


@cache
def _sae_loss(graph: nnx.GraphDef, names: tuple[str, ...]) -> Loss:
    """Of an SAE; the weights come with the batch, so that one compilation serves any of them."""
    by_name = make_sae_loss(graph, dict.fromkeys(names, 1.0), silent_after=2**30, embedding_fraction=1.0)

    def loss(params: Any, batch: Any, silence: Array):
        x, weights = batch
        _, (found, silence) = by_name(params, x, silence)
        return found["reconstruction"] + sum(weights[name] * found[name] for name in names), (found, silence)

    return loss
