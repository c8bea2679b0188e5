"""The plain way to take a token away: a whole forward pass for each."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from nejax.models.reading import LayerView
from nejax.pipeline.run.devices import AXIS, fetch, fill_up, mesh_of_all, place, up_to_devices

BATCH = 16
"""Sequences a whole pass."""


def whole_passes(
    model: Any, all_tokens: np.ndarray, padding: int, places: np.ndarray
) -> Float[np.ndarray, "n_layers n_passes d_mlp"]:
    """All activations at a position of a sequence, one whole pass for each (sequence, position, replaced token).

    Args:
        model: see `nejax.models.reading`.
        all_tokens: [n_sequences, seq_len].
        padding: id of the token that replaces another.
        places: [n_passes, 3] int.
    """
    graph, state = nnx.split(model)
    state, batch, found = place(state), up_to_devices(BATCH), []
    for first in range(0, len(places), batch):
        sequence, position, replaced = places[first : first + batch].T
        tokens = all_tokens[sequence].astype(np.int32)
        tokens[np.arange(len(tokens)), replaced] = padding
        rows = fill_up(tokens, batch), fill_up(position.astype(np.int32), batch)
        found.append(fetch(_activations_at(state, *place(rows, AXIS), graph=graph))[:, : len(tokens)])
    return np.concatenate(found, axis=1)


@partial(jax.jit, static_argnames="graph")
def _activations_at(
    state: Any, tokens: Int[Array, "batch seq"], position: Int[Array, " batch"], *, graph: Any
) -> Float[Array, "n_layers batch d_mlp"]:
    def on_device(state: Any, tokens: Array, position: Array) -> Array:
        def read(view: LayerView) -> Array:
            return view.activation[jnp.arange(len(tokens)), position]

        return nnx.merge(graph, state)(tokens, reader=read)[1]

    everywhere, spread = PartitionSpec(), PartitionSpec(AXIS)
    run = jax.shard_map(
        on_device, mesh=mesh_of_all(), in_specs=(everywhere, spread, spread), out_specs=PartitionSpec(None, AXIS)
    )
    return run(state, tokens, position)
