"""The devices that work is spread over."""

import contextlib
import os

import jax
import scipy.linalg  # noqa: F401  JAX's LAPACK, whose threads are limited below, comes with it
from jax.sharding import AxisType, Mesh
from threadpoolctl import threadpool_limits


def use_all_cores() -> None:
    """Make every CPU core a device of its own, unless another number of them was asked for.

    XLA runs the loops of one program on one core; so the neurons of a layer are spread over devices. LAPACK is left
    with one thread for each of them: more would only wait for each other. Call it before JAX is first used; later the
    number of devices stays as it is.
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


def mesh_of_all(axis: str) -> Mesh:
    """All devices of the default backend, along one axis."""
    return jax.make_mesh((jax.device_count(),), (axis,), axis_types=(AxisType.Auto,))
