"""The evaluation of a sparse autoencoder: sparsity, reconstruction, dead latents, monosemanticity."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float
from numpy.typing import ArrayLike

from nejax.errors import UserError
from nejax.models.sae.architectures import SAE
from nejax.neuron.streaming.unit_measures import UnitMeasures, measure_units


class SAEReport(NamedTuple):
    """The numbers of one SAE on some inputs.

    Example:
        >>> from flax import nnx
        >>> sae = nejax.TopKSAE(d_in=4, d_sae=8, rngs=nnx.Rngs(0), k=2)
        >>> report = nejax.evaluate_sae(sae, np.eye(4, dtype=np.float32)[[0, 0, 1, 1, 1, 2]], n_examples=3)
        >>> sorted(report.numbers())[:3]
        ['dead', 'explained', 'l0']
    """

    n_inputs: int
    """Inputs it was evaluated on."""
    l0: float
    """Latents that fire at an input, on average."""
    squared_error: float
    """`(x - reconstruction)^2`, a mean over inputs and dimensions."""
    unexplained: float
    """The share of the variance that is lost: `sum |x - reconstruction|^2 / sum |x - mean of x|^2`."""
    dead: int
    """Latents that never fire."""
    mean_distance: float
    """Mean over latents of the mean distance between the first inputs at which each fires."""
    streaming_mean_distance: float
    """The same over all inputs at which it fires."""
    n_clusters: float
    """Mean number of clusters of these first inputs, over latents that fire."""
    latents: UnitMeasures
    """Each latent's own numbers."""

    def numbers(self) -> dict[str, Any]:
        """All but `latents`, and `explained`, for JSON."""
        return {**{k: v for k, v in self._asdict().items() if k != "latents"}, "explained": 1 - self.unexplained}


def evaluate_sae(
    sae: SAE,
    x: ArrayLike,
    *,
    n_examples: int = 100,
    height: float = 0.05,
    batch_size: int = 4096,
) -> SAEReport:
    """Evaluate an SAE on inputs in memory.

    Args:
        sae: any of the four.
        x: `[n_inputs, d_in]` as the model has them, on the host.
        n_examples, height: of the latents' polysemanticity, see `nejax.neuron.streaming.unit_measures.measure_units`.
        batch_size: inputs a pass.

    Returns:
        The report. Where every input is the same there is no variance to explain, and `unexplained` is NaN.

    Raises:
        UserError: inputs of another shape, or none, or what are no numbers, or a number below 1.

    Example:
        >>> from flax import nnx
        >>> sae = nejax.TopKSAE(d_in=4, d_sae=8, rngs=nnx.Rngs(0), k=2)
        >>> report = nejax.evaluate_sae(sae, np.eye(4, dtype=np.float32)[[0, 0, 1, 1, 1, 2]], n_examples=3)
        >>> report.n_inputs, report.l0 <= 2
        (6, True)
    """
    x = np.asarray(x)
    if x.ndim != 2 or x.shape[1] != sae.d_in or not len(x):
        raise UserError(f"x has shape {x.shape}; expected [n_inputs, d_in] with d_in = {sae.d_in} and n_inputs >= 1")
    if x.dtype.kind in "biu":
        x = x.astype(np.float32)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise UserError(f"x has dtype {x.dtype}; expected numbers")
    for name, value in (("n_examples", n_examples), ("batch_size", batch_size)):
        if value < 1:
            raise UserError(f"{name} is {value}; expected at least 1")
    graph, state = nnx.split(sae)
    starts = range(0, len(x), batch_size)
    error, n_fired = 0.0, 0
    for start in starts:
        squares, fired = _look(state, x[start : start + batch_size], graph=graph)
        error += float(np.asarray(squares).sum(dtype=np.float64))
        n_fired += int(np.asarray(fired).sum())
    mean = x.mean(axis=0, dtype=np.float64)
    variance = sum(float(np.square(x[start : start + batch_size] - mean).sum()) for start in starts)
    latents = measure_units(
        read_by_encoder(sae, x, batch_size),
        sae.W_enc[...],
        _which_fire(graph),
        state,
        n_examples=n_examples,
        height=height,
        batch_size=batch_size,
    )
    return SAEReport(
        n_inputs=len(x),
        l0=n_fired / len(x),
        squared_error=error / x.size,
        unexplained=error / variance if variance > 0 else float("nan"),
        dead=latents.n_dead,
        mean_distance=latents.mean(latents.measures.mean_distance),
        streaming_mean_distance=latents.mean(latents.streaming_mean_distance),
        n_clusters=latents.mean(np.where(latents.n_fired > 0, latents.measures.n_clusters, np.nan)),
        latents=latents,
    )


def read_by_encoder(sae: SAE, x: Float[np.ndarray, "n d"], batch_size: int = 4096) -> Float[np.ndarray, "n d"]:
    """Inputs as an SAE's encoder reads them, see `SAE.read`."""
    if sae.normalize == "none":
        return x
    return np.concatenate(
        [np.asarray(sae.read(jnp.asarray(x[i : i + batch_size]))[0]) for i in range(0, len(x), batch_size)]
    )


@partial(jax.jit, static_argnames="graph")
def _look(state: Any, x: Float[Array, "b d_in"], *, graph: nnx.GraphDef) -> tuple[Array, Array]:
    """Squared error and firing latents of each input."""
    sae = nnx.merge(graph, state)
    read, undo = sae.read(x)
    latents = sae.activate(sae.pre_activation(read))
    return jnp.sum((x - undo(sae.decode(latents))) ** 2, axis=-1), jnp.sum(latents > 0, axis=-1)


@cache
def _which_fire(graph: nnx.GraphDef) -> Callable[[Any, Array], Array]:
    """Which latents fire at inputs as the encoder reads them; one function for all SAEs of one shape."""

    def fires(state: Any, read: Float[Array, "b d_in"]) -> Bool[Array, "b d_sae"]:
        sae = nnx.merge(graph, state)
        return sae.activate(sae.pre_activation(read)) > 0

    return fires
