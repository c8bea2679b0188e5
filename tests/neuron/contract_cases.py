"""Every way in which other people's JAX code may call an exported function of arrays, see `public_functions`.

Run as a script it prints one line before a case and one after, so that a case that ends the process is known by name:

    python tests/neuron/contract_cases.py compositions 64 48 32
    python tests/neuron/contract_cases.py layer 3072 64 768
    python tests/neuron/contract_cases.py meshes 16 24 16
"""

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from public_functions import CASES, LAYOUT, Arrays, Case, a_layer


def arguments(case: Case, arrays: Arrays) -> tuple[Any, ...]:
    return tuple(getattr(arrays, name) for name in case.arguments)


def neuron(tree: Any, i: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[i], tree)


def expected(case: Case, arrays: Arrays, some: list[int]) -> Any:
    """What the function says of some neurons, one eager call each; of a layer, what it says of all."""
    args = arguments(case, arrays)
    if case.of_layer:
        return case.call(*args)
    each = [case.call(*neuron(args, i)) for i in some]
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *each)


def same(got: Any, wanted: Any, tolerance: float = 2e-6) -> None:
    got, wanted = jax.tree.leaves(got), jax.tree.leaves(wanted)
    assert len(got) == len(wanted)
    for a, b in zip(got, wanted, strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert a.shape == b.shape, (a.shape, b.shape)
        if a.dtype.kind in "ib":
            np.testing.assert_array_equal(a, b)
        else:
            a, b = a.astype(np.float64), b.astype(np.float64)
            scale = np.max(np.abs(b), where=np.isfinite(b), initial=1)
            np.testing.assert_allclose(a, b, rtol=tolerance * 50, atol=tolerance * scale)


def run(name: str, check: Callable[[], Any]) -> None:
    """One case: its name before it begins, how it went after it."""
    print(f"begin {name}", flush=True)
    try:
        check()
    except Exception as error:
        traceback.print_exc()
        print(f"FAILED {name}: {type(error).__name__} {str(error).splitlines()[0] if str(error) else ''}", flush=True)
    else:
        print(f"ok {name}", flush=True)


def of_layer(case: Case) -> Callable[..., Any]:
    return case.call if case.of_layer else jax.vmap(case.call)


def total(tree: Any) -> Any:
    """One number of a result, to be differentiated; what is not defined counts nothing."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return sum(jnp.sum(jnp.where(jnp.isfinite(leaf), leaf, 0)) for leaf in leaves)


# --- every composition ---


def compositions(case: Case, arrays: Arrays) -> Iterator[tuple[str, Callable[[], None]]]:
    """The ways, each a check of its own, from the plainest on."""
    args = arguments(case, arrays)
    n_neurons = len(arrays.w)
    all_ = list(range(n_neurons))
    layer = of_layer(case)
    wanted = expected(case, arrays, all_)

    yield "jit of vmap, arguments donated", lambda: donated(layer, args, wanted)
    yield "closed-over constants", lambda: closed_over(case, args, wanted)
    if case.of_layer:
        yield "vmap", lambda: same(jax.vmap(case.call)(*(a[None] for a in args)), add_axis(wanted))
    else:
        yield "jit", lambda: same(jax.jit(case.call)(*neuron(args, 1)), neuron(wanted, 1))
        yield "vmap of vmap", lambda: same(jax.jit(jax.vmap(layer))(*add_axis(args)), add_axis(wanted))
        yield (
            "map in batches",
            lambda: same(jax.jit(lambda *a: lax.map(lambda each: case.call(*each), a, batch_size=5))(*args), wanted),
        )
        yield (
            "scan",
            lambda: same(
                jax.jit(lambda *a: lax.scan(lambda n, each: (n + 1, case.call(*each)), 0, a)[1])(*args), wanted
            ),
        )
    yield "checkpoint", lambda: same(jax.jit(jax.checkpoint(layer))(*args), wanted)
    yield "export", lambda: exported(layer, args, wanted)
    if case.gradient:
        yield "grad", lambda: gradients(case, args)


def add_axis(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[None], tree)


def closed_over(case: Case, args: tuple[Any, ...], wanted: Any) -> None:
    """All arguments but the last are constants of the program; the last one is mapped over."""
    if case.of_layer:
        constant = jax.jit(lambda last: case.call(*args[:-1], last))
        return same(constant(args[-1]), wanted)
    first = neuron(args, 0)
    constant = jax.jit(jax.vmap(lambda last: case.call(*first[:-1], last)))
    one = jax.tree.map(lambda leaf: jnp.stack([leaf[0]] * 3), args[-1])
    return same(constant(one), jax.tree.map(lambda leaf: np.stack([leaf[0]] * 3), wanted))


def exported(layer: Callable[..., Any], args: tuple[Any, ...], wanted: Any) -> None:
    """Flat, with key data for keys."""
    leaves, tree = jax.tree.flatten(args)
    is_key = [jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in leaves]
    plain = [jax.random.key_data(leaf) if key else leaf for leaf, key in zip(leaves, is_key, strict=True)]

    def flat(*plain: Any) -> list[Any]:
        leaves = [jax.random.wrap_key_data(leaf) if key else leaf for leaf, key in zip(plain, is_key, strict=True)]
        return jax.tree.leaves(layer(*jax.tree.unflatten(tree, leaves)))

    program = jax.export.export(jax.jit(flat))(*plain)
    same(program.call(*plain), jax.tree.leaves(wanted))


def donated(layer: Callable[..., Any], args: tuple[Any, ...], wanted: Any) -> None:
    """A program that owns its arguments."""
    copies = jax.tree.map(jnp.copy, args)
    same(jax.jit(layer, donate_argnums=tuple(range(len(args))))(*copies), wanted)


def gradients(case: Case, args: tuple[Any, ...]) -> None:
    """Of a layer at once, with and without `checkpoint`, beside that of one neuron, and beside a difference."""
    layer = of_layer(case)
    loss = lambda first, *rest: total(layer(first, *rest))  # noqa: E731
    gradient = jax.jit(jax.grad(loss))(*args)
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0
    same(jax.jit(jax.grad(jax.checkpoint(loss)))(*args), gradient)
    if not case.of_layer:
        same(jax.grad(lambda first, *rest: total(case.call(first, *rest)))(*neuron(args, 1)), gradient[1], 1e-5)


# --- meshes ---


def meshes(case: Case, arrays: Arrays) -> Iterator[tuple[str, Callable[[], None]]]:
    """Each axis of each argument spread over all devices, on meshes with auto and with explicit axes."""
    args = arguments(case, arrays)
    layer = of_layer(case)
    wanted = expected(case, arrays, list(range(len(arrays.w))))
    leaves, tree = jax.tree.flatten(args)
    n_axes = max(leaf.ndim for leaf in leaves)
    for kind in (AxisType.Auto, AxisType.Explicit):
        for axis in range(n_axes):
            yield f"{kind.name} mesh, axis {axis}", partial(sharded, layer, leaves, tree, wanted, kind, axis)
    yield "shard_map", partial(spread, case, args, wanted)


def sharded(layer: Any, leaves: list[Any], tree: Any, wanted: Any, kind: AxisType, axis: int) -> None:
    """All arguments that have the axis, and whose axis the devices divide, are spread along it."""
    n = len(jax.devices())
    mesh = jax.make_mesh((n,), ("devices",), axis_types=(kind,))
    with jax.set_mesh(mesh):
        placed = []
        for leaf in leaves:
            spread = leaf.ndim > axis and leaf.shape[axis] % n == 0
            spec = PartitionSpec(*("devices" if spread and i == axis else None for i in range(leaf.ndim)))
            placed.append(jax.device_put(leaf, NamedSharding(mesh, spec)))
        same(jax.device_get(jax.jit(layer)(*jax.tree.unflatten(tree, placed))), wanted)


def spread(case: Case, args: tuple[Any, ...], wanted: Any) -> None:
    """Neurons over devices, by `shard_map` with its check of what varies."""
    mesh = jax.make_mesh((len(jax.devices()),), ("devices",), axis_types=(AxisType.Auto,))
    over = PartitionSpec("devices")
    if case.of_layer:
        axis = jax.tree.leaves(wanted)[0].ndim - 1  # of neurons, the last one, in what comes out
        scalar = axis < 0

        def run(*args: Any) -> Any:
            out = case.call(*args)
            return lax.pmean(out, "devices") if scalar else out

        specs = tuple(PartitionSpec(*(of and "devices" for of in LAYOUT.get(name, ()))) for name in case.arguments)
        out = PartitionSpec() if scalar else PartitionSpec(*[None] * axis, "devices")
        got = jax.jit(jax.shard_map(run, mesh=mesh, in_specs=specs, out_specs=out))
        return same(got(*args), wanted, 1e-3 if scalar else 2e-6)
    got = jax.jit(jax.shard_map(jax.vmap(case.call), mesh=mesh, in_specs=over, out_specs=over))
    return same(got(*args), wanted)


# --- settings of JAX ---


def settings(case: Case, arrays: Arrays) -> Iterator[tuple[str, Callable[[], None]]]:
    args = arguments(case, arrays)
    one = args if case.of_layer else neuron(args, 1)
    wanted = case.call(*one)
    yield "strict promotion", lambda: under(jax.numpy_dtype_promotion("strict"), case, one, wanted)
    yield "no rank promotion", lambda: under(jax.numpy_rank_promotion("raise"), case, one, wanted)
    if not case.has_nan:
        yield "debug_nans", lambda: under(jax.debug_nans(True), case, one, wanted)
    yield "leaks", lambda: under(jax.checking_leaks(), case, one, wanted)
    yield "x64", lambda: wide(case, one, wanted)
    yield "bfloat16", lambda: narrow(case, one)
    yield "lists", lambda: lists(case, one, wanted)
    yield "NumPy", lambda: same(case.call(*jax.tree.map(as_numpy, one)), wanted)


def as_numpy(leaf: Any) -> Any:
    return leaf if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else np.asarray(leaf)


def under(context: Any, case: Case, args: tuple[Any, ...], wanted: Any) -> None:
    with context:
        same(jax.jit(lambda *args: case.call(*args))(*args), wanted)


def wide(case: Case, args: tuple[Any, ...], wanted: Any) -> None:
    """In float64, where results agree with those in float32 to its rounding; and float32 arrays in a float64 world."""
    with jax.enable_x64(True):
        cast = lambda leaf: leaf.astype(jnp.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf  # noqa: E731
        for given in (args, jax.tree.map(cast, args)):
            with jax.numpy_dtype_promotion("strict"):
                same(jax.jit(lambda *args: case.call(*args))(*given), wanted, 1e-4)


def narrow(case: Case, args: tuple[Any, ...]) -> None:
    """In bfloat16: what float32 makes of the same numbers, to the rounding of what comes out."""
    to = lambda leaf, dtype: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf  # noqa: E731
    short = jax.tree.map(lambda leaf: to(leaf, jnp.bfloat16), args)
    long = jax.tree.map(lambda leaf: to(leaf, jnp.float32), short)
    got, wanted = case.call(*short), case.call(*long)
    coarse = any(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(got))
    same(got, wanted, 1e-2 if coarse else 2e-6)


def lists(case: Case, args: tuple[Any, ...], wanted: Any) -> None:
    """Lists for arrays, of small problems at least."""
    keys = lambda leaf: jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)  # noqa: E731
    plain = [
        arg if not hasattr(arg, "tolist") or keys(arg) else np.asarray(arg).tolist() for arg in args
    ]  # a linkage stays one
    same(case.call(*plain), wanted)


# --- the size of a layer ---


def layers(case: Case, arrays: Arrays) -> Iterator[tuple[str, Callable[[], None]]]:
    """All neurons of a wide layer in one program, three of them beside a call of their own."""
    args = arguments(case, arrays)
    some = [0, 1, len(arrays.w) - 1]

    def check() -> None:
        got = jax.jit(of_layer(case))(*args)
        wanted = expected(case, arrays, some)
        same(got if case.of_layer else jax.tree.map(lambda leaf: leaf[np.array(some)], got), wanted)

    yield "jit of vmap", check


def constants(case: Case, arrays: Arrays) -> Iterator[tuple[str, Callable[[], None]]]:
    """The shortest look: a layer, and a layer over one neuron's constants."""
    args = arguments(case, arrays)
    some = [0, len(arrays.w) - 1]
    wanted = expected(case, arrays, some)
    picked = lambda got: jax.tree.map(lambda leaf: leaf[np.array(some)], got)  # noqa: E731
    yield "jit of vmap", lambda: same(picked(jax.jit(jax.vmap(case.call))(*args)), wanted)
    yield "closed-over constants", lambda: closed_over(case, args, wanted)


GROUPS = {"constants": constants, "compositions": compositions, "meshes": meshes, "settings": settings, "layer": layers}


def main(group: str, n_neurons: str, n: str, d: str, *names: str) -> None:
    arrays = a_layer(int(n_neurons), int(n), int(d))
    for name in names or CASES:
        try:
            for way, check in GROUPS[group](CASES[name], arrays):
                run(f"{name}, {way}", check)
        except Exception:
            traceback.print_exc()
            print(f"FAILED {name}: no expected value", flush=True)
    print("end", flush=True)


if __name__ == "__main__":
    assert "XLA_FLAGS" in os.environ or sys.argv[1] != "meshes" or jax.default_backend() != "cpu"
    main(*sys.argv[1:])
