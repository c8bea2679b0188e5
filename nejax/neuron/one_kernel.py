"""Loops over small arrays, in the form that each backend runs fastest."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jax.experimental.xla_metadata import set_xla_metadata
from jaxtyping import Array, Bool, Float, Int, Shaped

LANES = 16
"""Numbers that one vector register of a CPU holds."""


def small_call(function: Callable) -> Callable:
    """A function of arrays with a loop in it, compiled as one kernel on CPU.

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
        out = compiled(*args)
        if not on_cpu() or len(args[0]) == 1:
            return out
        return set_xla_metadata(out, xla_cpu_small_call="true", inlineable="false")

    return call


def one_kernel(function: Callable) -> Callable:
    """A function of arrays with a loop in it, made one kernel on CPU, where `vmap` is a loop over its calls.

    See `small_call`. A batched index turns updates of a slice into a scatter, which such a kernel cannot hold: hence
    the loop. Other backends run all neurons side by side, as `vmap` always does.

    Args:
        function: as for `small_call`, without gradients: put `lax.stop_gradient` before its arguments.

    Returns:
        The same function.
    """
    compiled = small_call(function)

    @custom_vmap
    def call(*args: Array) -> Any:
        return compiled(*args)

    @call.def_vmap
    def layer(axis_size: int, in_batched: list[bool], *args: Array) -> tuple[Any, Any]:
        each = [arg for arg, batched in zip(args, in_batched, strict=True) if batched]

        def neuron(each: list[Array]) -> Any:
            rest = iter(each)
            return call(*(next(rest) if batched else arg for arg, batched in zip(args, in_batched, strict=True)))

        out = lax.map(neuron, each) if on_cpu() else jax.vmap(compiled, [0 if b else None for b in in_batched])(*args)
        return out, jax.tree.map(lambda _: True, out)

    return wraps(function)(call)


def one_kernel_in_place(function: Callable) -> Callable:
    """A function that brings one neuron's state up to date, made one kernel on CPU for all neurons of a `vmap`.

    The kernel loops over the neurons and overwrites their states where they are, if the caller donates them: a step
    costs what it changes. See `small_call`.

    Args:
        function: `(state, *arrays) -> state`, the state a tuple of arrays, without gradients.

    Returns:
        The same function.
    """

    @custom_vmap
    def call(state: tuple[Array, ...], *args: Array) -> tuple[Array, ...]:
        return small_call(lambda *leaves: function(leaves[: len(state)], *leaves[len(state) :]))(*state, *args)

    @call.def_vmap
    def layer(axis_size: int, in_batched: list[Any], state: tuple[Array, ...], *args: Array) -> tuple[Any, Any]:
        of_state, *of_args = in_batched
        state = tuple(
            x if batched else jnp.broadcast_to(x, (axis_size, *x.shape))
            for x, batched in zip(state, of_state, strict=True)
        )

        def all_neurons(*leaves: Array) -> tuple[Array, ...]:
            args = leaves[len(state) :]

            def neuron(i: Int[Array, ""], states: tuple[Array, ...]) -> tuple[Array, ...]:
                own = (x[i] if batched else x for x, batched in zip(args, of_args, strict=True))
                new = function(tuple(x[i] for x in states), *own)
                return tuple(lax.dynamic_update_index_in_dim(x, v, i, 0) for x, v in zip(states, new, strict=True))

            return lax.fori_loop(0, axis_size, neuron, leaves[: len(state)])

        if on_cpu():
            out = small_call(all_neurons)(*state, *args)
        else:
            out = jax.vmap(function, [0, *(0 if batched else None for batched in of_args)])(state, *args)
        return out, (True,) * len(state)

    return call


def on_cpu() -> bool:
    """Whether JAX runs on the host's processor by default."""
    return jax.default_backend() == "cpu"


def each_row(function: Callable, *arrays: Array) -> Any:
    """`function` of every row: in a loop on CPU, where a row stays in the nearest cache; side by side elsewhere."""
    return lax.map(lambda row: function(*row), arrays) if on_cpu() else jax.vmap(function)(*arrays)


def zero_of(distances: Float[Array, "n n"], mask: Bool[Array, " n"]) -> Int[Array, ""]:
    """An int32 zero that `shard_map` takes to vary over devices as the arguments do: loops must start as they go on."""
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
