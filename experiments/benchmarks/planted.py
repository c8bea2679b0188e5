"""Planted neurons, what spreads a function over them, and the distances and dendrograms of a whole model."""

import resource
import time
from collections.abc import Callable

import jax
import numpy as np
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

import nejax
from benchmarks.timing import Figures
from nejax.pipeline.run.devices import AXIS, mesh_of

D, K, N_INPUTS, CHUNK = 768, 8, 8192, 1024


class Neurons:
    """Planted groups: each neuron's examples are inputs from eight of the centres that all neurons share."""

    def __init__(self, n_examples: int, n_neurons: int, seed: int = 0):
        rng = np.random.default_rng(seed)
        centres = rng.normal(size=(64, D))
        group = rng.integers(0, 64, N_INPUTS)
        self.inputs = (centres[group] + 1.5 * rng.normal(size=(N_INPUTS, D))).astype(np.float32)
        members = [np.flatnonzero(group == g) for g in range(64)]
        self.rows = np.stack([_rows(rng, members, n_examples) for _ in range(n_neurons)])
        self.w = rng.normal(size=(n_neurons, D)).astype(np.float32)


def _rows(rng: np.random.Generator, members: list[np.ndarray], n_examples: int) -> np.ndarray:
    """Different inputs from K of the groups."""
    groups, sizes = rng.permutation(len(members))[:K], rng.multinomial(n_examples, np.full(K, 1 / K))
    chosen = [rng.choice(members[g], size, replace=False) for g, size in zip(groups, sizes, strict=True)]
    return np.concatenate(chosen).astype(np.int32)


def spread(function: Callable, n_neurons: int) -> Callable:
    """`function` of one neuron for many: over all devices, in a loop on a CPU core, side by side on an accelerator."""

    def share(*args: jax.Array) -> jax.Array:
        if jax.default_backend() == "cpu":
            return lax.map(lambda each: function(*each), args)
        return jax.vmap(function)(*args)

    if n_neurons % jax.device_count():
        return jax.jit(share)
    over = PartitionSpec(AXIS)
    mesh = mesh_of()
    return jax.jit(jax.shard_map(share, mesh=mesh, in_specs=over, out_specs=over))


def everything(what: str, function: Callable, n: int, n_neurons: int) -> Figures:
    """All neurons of a model from inputs and weights, a chunk at a time.

    Args:
        what: `function` does.
        function: of the distances and a key of one neuron.
        n: examples a neuron.
        n_neurons: in all.
    """
    some = Neurons(n, CHUNK)
    before = _peak_mib()
    mesh = mesh_of()
    over = PartitionSpec(AXIS)
    inputs = jax.device_put(some.inputs, NamedSharding(mesh, PartitionSpec()))

    def of_chunk(inputs: jax.Array, rows: jax.Array, w: jax.Array, keys: jax.Array) -> jax.Array:
        def neuron(each: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
            rows, w, key = each
            return function(nejax.embedding_distances(inputs[rows], w), key)

        side_by_side = None if jax.default_backend() == "cpu" else len(rows)
        return lax.map(neuron, (rows, w, keys), batch_size=side_by_side)

    specs = (PartitionSpec(), over, over, over)
    run = jax.jit(jax.shard_map(of_chunk, mesh=mesh, in_specs=specs, out_specs=over))
    size = CHUNK - CHUNK % mesh.size
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(-(-n_neurons // size) * size, D)).astype(np.float32)
    keys = jax.random.split(jax.random.key(0), size)
    jax.block_until_ready(run(inputs, some.rows[:size], some.w[:size], keys))
    start = time.perf_counter()
    found = [
        np.asarray(run(inputs, some.rows[rng.permutation(CHUNK)[:size]], weights[first : first + size], keys))
        for first in range(0, n_neurons, size)
    ]
    seconds = time.perf_counter() - start
    assert np.isfinite(np.concatenate(found)).all()
    each = seconds / n_neurons * 1e6
    peaks = f"peak memory {_peak_mib():,.0f} MiB, {_peak_mib() - before:,.0f} above the start"
    note = f"{seconds:.2f} s in all, {size} at a time; {peaks}"
    return Figures(f"distances and {what} of all", n, "nejax", n_neurons, each, each, each, note)


def _peak_mib() -> float:
    """The most memory that the process had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
