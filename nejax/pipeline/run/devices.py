"""The devices that work is spread over."""

import contextlib
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import scipy.linalg  # noqa: F401  JAX's LAPACK, whose threads are limited below, comes with it
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from threadpoolctl import threadpool_limits

from nejax.errors import UserError


def use_all_cores() -> None:
    """Make every CPU core a device of its own, unless another number of them was asked for.

    XLA runs the loops of one program on one core; so the neurons of a layer are spread over devices. LAPACK gets one
    thread for each of them: more would only wait for each other. Call it before JAX is first used; later calls do not
    change the number of devices.
    """
    by_setting = jax.config.jax_num_cpu_devices != -1  # pyright: ignore[reportAttributeAccessIssue]
    by_flag = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if not by_setting and not by_flag:
        with contextlib.suppress(RuntimeError):  # JAX has counted its devices already
            jax.config.update("jax_num_cpu_devices", n_cores())
    threadpool_limits(1, user_api="blas")


def n_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


AXIS = "devices"
"""The one axis of the mesh: sequences are spread over it in passes of the model, neurons where each is on its own."""


def mesh_of(devices: Sequence[Any] | None = None) -> Mesh:
    """Devices along one axis; by default all of the default backend, of all processes."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def mesh_or_all(mesh: Mesh | None) -> Mesh:
    """A mesh that a caller gave, or all devices.

    Raises:
        UserError: it is not one of `mesh_of`, or has no device of this process.
    """
    if mesh is None:
        return mesh_of()
    if mesh.axis_names != (AXIS,):
        raise UserError(f"a mesh with the axes {mesh.axis_names}: expected one of `nejax.pipeline.run.devices.mesh_of`")
    if not mesh.local_devices:
        raise UserError("a mesh without a device of this process: expected one that has devices of every process")
    return mesh


def place(values: Any, mesh: Mesh, *spec: str | None) -> Any:
    """Put arrays on the devices.

    Args:
        values: a tree of arrays that every process holds whole.
        mesh: the devices.
        spec: the axis of the mesh that each axis of the arrays is spread over; the rest, or all if there is none, is
            the same on every device. A spread axis must be a multiple of the number of devices.

    Returns:
        The tree, as arrays of all devices.
    """
    sharding = NamedSharding(mesh, PartitionSpec(*spec))
    if jax.process_count() == 1:
        return jax.device_put(values, sharding)

    def spread(array: Any) -> Array:
        whole = np.asarray(array)
        mine = sharding.addressable_devices_indices_map(whole.shape).items()
        parts = [jax.device_put(whole[index], device) for device, index in mine]
        return jax.make_array_from_single_device_arrays(whole.shape, sharding, parts)

    return jax.tree.map(spread, values)


def fetch(values: Any) -> Any:
    """The whole of a tree of arrays as NumPy arrays, in every process. The arrays are of one mesh."""
    if jax.process_count() > 1:
        values = _whole_on(jax.tree.leaves(values)[0].sharding.mesh)(values)
    return jax.device_get(values)  # said to be a transfer: what a transfer guard lets through


@functools.cache
def _whole_on(mesh: Mesh) -> Callable[[Any], Any]:
    return jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh, PartitionSpec()))


def fill_up(rows: np.ndarray, n: int, value: Any = 0, axis: int = 0) -> np.ndarray:
    """Append rows of a value up to `n` of them: devices get equally many, and compile one shape."""
    missing = [(0, 0)] * rows.ndim
    missing[axis] = (0, n - rows.shape[axis])
    return np.pad(rows, missing, constant_values=value)


def up_to_devices(n: int, mesh: Mesh) -> int:
    """The least number from `n` on that the devices can share."""
    return -(-n // mesh.size) * mesh.size
