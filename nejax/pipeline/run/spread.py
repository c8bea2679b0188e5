"""Functions of some rows, run on all devices: a model's, of sequences, and others, of neurons."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, PartitionSpec

from nejax.pipeline.run.devices import AXIS, fill_up, place

EVERYWHERE, ROWS = PartitionSpec(), PartitionSpec(AXIS)
"""How an array lies on the devices: the same on all of them, or its rows spread over them."""


def over_devices(function: Callable[[Any, Any], Any], mesh: Mesh, out: Any = ROWS) -> Callable[[Any, Any], Any]:
    """A function of one device's rows as a function of all rows.

    Args:
        function: of two trees of arrays: what is the same on all devices, and the rows that a device has.
        mesh: the devices. They share the rows equally, see `up_to_devices`.
        out: how results lie on the devices, a tree of specifications.

    Returns:
        The same function of all rows, to be traced by `jit`.
    """
    return jax.shard_map(function, mesh=mesh, in_specs=(EVERYWHERE, ROWS), out_specs=out)


def place_rows(arrays: Sequence[np.ndarray], n: int, mesh: Mesh, fill: Any = 0) -> list[Any]:
    """Spread rows over the devices; rows of a value fill them up to `n`."""
    return place([fill_up(rows, n, fill) for rows in arrays], mesh, AXIS)


def slices(n: int, size: int) -> Iterator[slice]:
    """Cut `n` rows into chunks of a size; the last may have fewer."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def in_chunks(arrays: Sequence[np.ndarray], size: int, mesh: Mesh, fill: Any = 0) -> Iterator[tuple[slice, list[Any]]]:
    """Rows of arrays, a chunk at a time: where it is, and its rows on the devices, all chunks filled up to one size."""
    for rows in slices(len(arrays[0]), size):
        yield rows, place_rows([array[rows] for array in arrays], size, mesh, fill)


def place_parts(parts: Sequence[Sequence[np.ndarray]], mesh: Mesh) -> list[Any]:
    """Give each device a part, arrays of one shape; a device for which there is none gets zeros.

    Returns:
        The arrays of all parts, stacked: [n_devices, ...] each.
    """
    return place_rows([np.stack(column) for column in zip(*parts, strict=True)], mesh.size, mesh)


@partial(jax.tree_util.register_dataclass, data_fields=["state"], meta_fields=["graph", "mesh"])
@dataclasses.dataclass(frozen=True)
class ReplicatedModel:
    """A model, the same on every device; an argument of jitted functions."""

    state: Any
    graph: Any
    mesh: Any

    @classmethod
    def on(cls, mesh: Mesh, model: Any) -> "ReplicatedModel":
        """Put a model on devices."""
        graph, state = nnx.split(model)
        return cls(place(state, mesh), graph, mesh)

    def over_rows(self, function: Callable[..., Any], rows: Any, *shared: Any, out: Any = ROWS) -> Any:
        """`function(model, rows, *shared)` of each device's rows, see `over_devices`."""

        def on_device(same: tuple[Any, Any], rows: Any) -> Any:
            return function(nnx.merge(self.graph, same[0]), rows, *same[1])

        return over_devices(on_device, self.mesh, out)((self.state, shared), rows)

    def over_parts(self, function: Callable[..., Any], parts: Any, *shared: Any) -> Any:
        """`function(model, part, *shared)` of each device's part, see `place_parts`; results are stacked."""

        def on_device(model: Any, parts: Any, *shared: Any) -> Any:
            found = function(model, jax.tree.map(lambda x: x[0], parts), *shared)
            return jax.tree.map(lambda x: x[None], found)

        return self.over_rows(on_device, parts, *shared)
