"""The devices that work is spread over."""

import contextlib
import functools
import os
from typing import Any

import jax
import numpy as np
import scipy.linalg  # noqa: F401  JAX's LAPACK, whose threads are limited below, comes with it
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from threadpoolctl import threadpool_limits


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


@functools.cache
def mesh_of_all() -> Mesh:
    """All devices of the default backend, of all processes, along one axis."""
    return jax.make_mesh((jax.device_count(),), (AXIS,), axis_types=(AxisType.Auto,))


def place(values: Any, *spec: str | None) -> Any:
    """Put arrays on the devices.

    Args:
        values: a tree of arrays that every process holds whole.
        spec: the axis of the mesh that each axis of the arrays is spread over; the rest, or all if there is none, is
            the same on every device. A spread axis must be a multiple of the number of devices.

    Returns:
        The tree, as arrays of all devices.
    """
    sharding = NamedSharding(mesh_of_all(), PartitionSpec(*spec))
    if jax.process_count() == 1:
        return jax.device_put(values, sharding)

    def spread(array: Any) -> Array:
        whole = np.asarray(array)
        mine = sharding.addressable_devices_indices_map(whole.shape).items()
        parts = [jax.device_put(whole[index], device) for device, index in mine]
        return jax.make_array_from_single_device_arrays(whole.shape, sharding, parts)

    return jax.tree.map(spread, values)


def fetch(values: Any) -> Any:
    """The whole of a tree of arrays as NumPy arrays, in every process."""
    if jax.process_count() > 1:
        values = jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh_of_all(), PartitionSpec()))(values)
    return jax.device_get(values)  # said to be a transfer: what a transfer guard lets through


def fill_up(rows: np.ndarray, n: int, value: Any = 0, axis: int = 0) -> np.ndarray:
    """Append rows of a value up to `n` of them: devices get equally many, and compile one shape."""
    missing = [(0, 0)] * rows.ndim
    missing[axis] = (0, n - rows.shape[axis])
    return np.pad(rows, missing, constant_values=value)


def up_to_devices(n: int) -> int:
    """The least number from `n` on that the devices can share."""
    return -(-n // jax.device_count()) * jax.device_count()
