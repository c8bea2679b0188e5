"""How far the numbers of a run are from a float32 reference, measured on its own sequences."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array

from nejax.models.reading import LayerView
from nejax.pipeline.corpus.windows import Sequences
from nejax.pipeline.run.devices import AXIS, fetch, mesh_or_all, place, up_to_devices
from nejax.pipeline.run.spread import ReplicatedModel

N_SEQUENCES = 4
"""How many sequences are compared."""


class LayerPassport(NamedTuple):
    """The differences in one layer, over all real tokens of the sample. Each is a largest absolute value."""

    mlp_input_difference: float
    """Between the MLP's input in this run and in the reference."""
    mlp_input: float
    """Of the reference's MLP input: the scale of the difference."""
    activation_difference: float
    activation: float


def numerical_passport(
    model: Any,
    reference: Any,
    sample: Sequences,
    *,
    batch_size: int,
    precision: Callable[[], Any],
    mesh: Mesh | None = None,
) -> list[LayerPassport]:
    """Compare a run's pass of the model with a reference pass.

    The run's pass is as in collection: its weights, its batches, its devices. The reference has float32 weights,
    one sequence at a time, one device, and the backend's most exact products.

    Args:
        model: as the run reads it.
        reference: the same model with weights in float32.
        sample: sequences to compare.
        batch_size: of the run.
        precision: makes the context of the run's matrix products.
        mesh: the run's devices, see `nejax.pipeline.run.devices.mesh_of`; all of them, if None.

    Returns:
        What was found in each layer.
    """
    mesh = mesh_or_all(mesh)
    n_devices, batch_size = mesh.size, up_to_devices(batch_size, mesh)
    n_rows, seq_len = len(sample.tokens), sample.tokens.shape[1]
    of_device = batch_size // n_devices
    n_read = min(-(-n_rows // n_devices), of_device)  # the first rows of every device are read
    at = np.array([device * of_device + row for row in range(n_read) for device in range(n_devices)][:n_rows])
    tokens = np.zeros((batch_size, seq_len), np.int32)
    tokens[at] = sample.tokens[: len(at)]
    with precision():
        of_run = fetch(_spread_pass(ReplicatedModel.on(mesh, model), place(tokens, mesh, AXIS), n=n_read))
    rows = (at // of_device) * n_read + at % of_device
    graph, state = nnx.split(reference)
    state = jax.device_put(state, mesh.local_devices[0])
    found: list[list[np.ndarray]] = []
    with jax.default_matmul_precision("highest"):
        for row, n_real in zip(rows, sample.length, strict=False):
            exact = _pass(state, sample.tokens[len(found)][None], graph=graph)
            here = [(np.asarray(x)[:, 0, :n_real], y[:, row, :n_real]) for x, y in zip(exact, of_run, strict=True)]
            found.append([value for x, y in here for value in (np.abs(y - x).max((1, 2)), np.abs(x).max((1, 2)))])
    return [LayerPassport(*map(float, layer)) for layer in np.max(np.array(found), axis=0).T]


def _read(view: LayerView) -> tuple[Array, Array]:
    return view.mlp_input.astype(jnp.float32), view.activation.astype(jnp.float32)


@partial(jax.jit, static_argnames="graph")
def _pass(state: Any, tokens: Array, *, graph: Any) -> tuple[Array, Array]:
    return nnx.merge(graph, state)(tokens, reader=_read)[1]


@partial(jax.jit, static_argnames="n")
def _spread_pass(model: ReplicatedModel, tokens: Array, *, n: int) -> tuple[Array, Array]:
    """MLP inputs and activations of the first `n` rows of every device: [n_layers, n_devices * n, seq, ...]."""

    def of_rows(model: Any, tokens: Array) -> tuple[Array, Array]:
        return model(tokens, reader=lambda view: jax.tree.map(lambda x: x[:n], _read(view)))[1]

    return model.over_rows(of_rows, tokens, out=PartitionSpec(None, AXIS))
