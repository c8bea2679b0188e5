"""The plain way to take a token away: a whole forward pass for each."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from nejax.models.reading import LayerView
from nejax.pipeline.run.devices import AXIS, fetch, mesh_of, up_to_devices
from nejax.pipeline.run.spread import ReplicatedModel, place_rows, slices

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
    mesh, found = mesh_of(), []
    replicated, size = ReplicatedModel.on(mesh, model), up_to_devices(BATCH, mesh)
    for rows in slices(len(places), size):
        sequence, position, replaced = places[rows].T
        tokens = all_tokens[sequence].astype(np.int32)
        tokens[np.arange(len(tokens)), replaced] = padding
        batch = place_rows((tokens, position.astype(np.int32)), size, mesh)
        found.append(fetch(_activations_at(replicated, batch))[:, : len(tokens)])
    return np.concatenate(found, axis=1)


@jax.jit
def _activations_at(model: ReplicatedModel, batch: list[Array]) -> Float[Array, "n_layers batch d_mlp"]:
    """At a position [batch] of tokens [batch, seq]."""

    def of_rows(model: Any, rows: list[Array]) -> Array:
        tokens, position = rows

        def read(view: LayerView) -> Array:
            return view.activation[jnp.arange(len(tokens)), position]

        return model(tokens, reader=read)[1]

    return model.over_rows(of_rows, batch, out=PartitionSpec(None, AXIS))
