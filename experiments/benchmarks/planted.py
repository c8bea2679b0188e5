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
from nejax.pipeline.devices import mesh_of_all

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
    over = PartitionSpec("neurons")
    mesh = mesh_of_all("neurons")
    return jax.jit(jax.shard_map(share, mesh=mesh, in_specs=over, out_specs=over, check_vma=False))


def everything(n: int, n_neurons: int) -> Figures:
    """Distances and dendrograms of all neurons of a model, from inputs and weights, a chunk at a time."""
    some = Neurons(n, CHUNK)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rng = np.random.default_rng(1)
    over = PartitionSpec("neurons")
    mesh = mesh_of_all("neurons")
    inputs = jax.device_put(some.inputs, NamedSharding(mesh, PartitionSpec()))

    def dendrograms(inputs: jax.Array, rows: jax.Array, w: jax.Array) -> jax.Array:
        def neuron(each: tuple[jax.Array, jax.Array]) -> jax.Array:
            return nejax.average_linkage(nejax.embedding_distances(inputs[each[0]], each[1])).merges

        side_by_side = None if jax.default_backend() == "cpu" else len(rows)
        return lax.map(neuron, (rows, w), batch_size=side_by_side)

    run = jax.jit(
        jax.shard_map(dendrograms, mesh=mesh, in_specs=(PartitionSpec(), over, over), out_specs=over, check_vma=False)
    )
    size = CHUNK - CHUNK % mesh.size
    jax.block_until_ready(run(inputs, some.rows[:size], some.w[:size]))
    weights = rng.normal(size=(n_neurons, D)).astype(np.float32)
    start = time.perf_counter()
    merges = []
    for first in range(0, n_neurons, size):
        w = weights[first : first + size]
        rows = some.rows[rng.permutation(CHUNK)[: len(w)]]
        merges.append(np.asarray(run(inputs, rows, w)))
    seconds = time.perf_counter() - start
    assert np.isfinite(np.concatenate(merges)).all()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    each = seconds / n_neurons * 1e6
    peaks = f"peak memory {peak / 1024:,.0f} MiB, {(peak - before) / 1024:,.0f} above the start"
    note = f"{seconds:.2f} s in all, {size} at a time; {peaks}"
    return Figures("distances and dendrograms of all", n, "nejax", n_neurons, each, each, each, note)
