"""Loops over small arrays, in the form that each backend runs fastest."""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.xla_metadata import set_xla_metadata
from jaxtyping import Array, Bool, Float, Int, Shaped

LANES = 16
"""Numbers that one vector register of a CPU holds."""

Args = ParamSpec("Args")
Result = TypeVar("Result")

_in_layer_program = jax.make_user_context(False)
"""Whether a layer program is being traced. JAX keeps what it traced with and without apart."""


def layer_program(function: Callable[Args, Result]) -> Callable[Args, Result]:
    """Mark the body of a program that fixes its own shapes and maps its own neurons, and that is not transformed
    further.

    On CPU each loop in it becomes one kernel, see `small_call`. This uses an undocumented attribute of XLA that only
    some programs may have: the neurons in a `lax.map` or a loop, several devices in a `shard_map`, no gradient through
    it, no constant of another program. Everywhere else the same functions are plain JAX.

    Args:
        function: traced by `jit`, or a part of what is.

    Returns:
        The same function.
    """

    @wraps(function)
    def traced(*args: Args.args, **kwargs: Args.kwargs) -> Result:
        with _in_layer_program(True):
            return function(*args, **kwargs)

    return traced


def loops_are_kernels() -> bool:
    """Whether loops become kernels here: in a layer program, on CPU."""
    return bool(_in_layer_program.value) and on_cpu()


def small_call(function: Callable) -> Callable:
    """A function of arrays with a loop in it, which is one kernel in a layer program on CPU, and itself elsewhere.

    XLA on CPU starts every operation in a loop's body as a kernel of its own, which costs more than the arithmetic
    on a hundred numbers. Marked as a small call, a whole function becomes one kernel, whose loops LLVM sees and
    vectorises. It runs on one core, and holds no matrix product, sort or scatter.

    Args:
        function: of arrays only, by position, to arrays. There must be a loop in it: a large element-wise operation
            alone would be split among threads, which such a kernel cannot be. A first argument of one row has no loop
            left after XLA's simplifications, and is compiled as usual.

    Returns:
        The same function.
    """

    compiled = jax.jit(function)

    @wraps(function)
    def call(*args: Array) -> Any:
        if not loops_are_kernels() or len(args[0]) == 1:
            return function(*args)
        return set_xla_metadata(compiled(*args), xla_cpu_small_call="true", inlineable="false")

    return call


def on_cpu() -> bool:
    """Whether JAX runs on the host's processor by default."""
    return jax.default_backend() == "cpu"


def each_row(function: Callable, *arrays: Array) -> Any:
    """`function` of every row: in a loop where loops are kernels, so that a row stays in the nearest cache; vectorised
    elsewhere."""
    return lax.map(lambda row: function(*row), arrays) if loops_are_kernels() else jax.vmap(function)(*arrays)


def zero_of(distances: Float[Array, "n n"], mask: Bool[Array, " n"]) -> Int[Array, ""]:
    """An int32 zero that varies over devices as the arguments do, for `shard_map`: loops must start with the type that
    they carry on."""
    return ((distances[0, 0] > jnp.inf) & mask[0]).astype(jnp.int32)


def padded_to_lanes(n: int) -> int:
    """The least multiple of `LANES` that holds `n` numbers."""
    return -(-n // LANES) * LANES


def least(values: Shaped[Array, " n"], lanes: int = LANES) -> Shaped[Array, ""]:
    """The minimum of `n` numbers, a multiple of `lanes`: register by register, then by halves.

    A plain `jnp.min` over the last axis is a loop of dependent comparisons on CPU, six times slower.
    """
    return _by_halves(jnp.minimum, jnp.min(values.reshape(-1, lanes), axis=0))


def total(values: Shaped[Array, " n"]) -> Shaped[Array, ""]:
    """The sum of `n` numbers in the same way, for any `n`; the order keeps the rounding small too."""
    return _by_halves(jnp.add, jnp.sum(jnp.pad(values, (0, -values.size % LANES)).reshape(-1, LANES), axis=0))


def _by_halves(combine: Callable, values: Shaped[Array, " n"]) -> Shaped[Array, ""]:
    while values.size > 1:
        values = combine(values[: values.size // 2], values[values.size // 2 :])
    return values[0]
