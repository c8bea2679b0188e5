"""What finds similar features: nejax's search, PyNNDescent, and the products alone; each in a process of its own.

The inputs are generated: unit vectors, each a direction that 50 features share on average plus noise of 0.3 to 1.2
times its length, so that two features of one direction have a cosine between 0.4 and 0.9 and others one near 0; nearest
neighbours mean something, as in a model.
"""

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

EXACT, APPROXIMATE, PRODUCTS, PEER = "nejax, exact", "nejax, approximate", "the products alone", "PyNNDescent"
A_DIRECTION = 50
"""Features that share one."""


class Task(NamedTuple):
    """What every contender does."""

    n: int
    d: int
    k: int
    n_queries: int
    recall: float

    def inputs(self) -> np.ndarray:
        """[n, d] float32: see the head of this file."""
        rng = np.random.default_rng(0)
        centres = rng.normal(size=(max(1, self.n // A_DIRECTION), self.d)).astype(np.float32)
        x = rng.standard_normal((self.n, self.d), np.float32)
        for some in np.array_split(np.arange(self.n), 100):
            x[some] *= rng.uniform(0.3, 1.2, (len(some), 1)).astype(np.float32)
            x[some] += centres[rng.integers(0, len(centres), len(some))]
            x[some] /= np.linalg.norm(x[some], axis=1, keepdims=True)
        return x

    def queries(self) -> np.ndarray:
        """[n_queries] ids."""
        return np.random.default_rng(1).permutation(self.n)[: self.n_queries]


def nejax_search(task: Task, recall: float) -> Callable[[], np.ndarray]:
    """The features most like each query, every feature a neuron of its own."""
    from nejax.pipeline.passes.similar import similar_features

    inputs, queries = task.inputs(), task.queries()
    options: dict[str, Any] = {"k": task.k, "threshold": -1.0, "recall": recall}
    return lambda: similar_features(inputs, np.arange(task.n), queries=queries, **options).feature


def products(task: Task) -> Callable[[], np.ndarray]:
    """The cosines of the queries to all, in blocks of the same size, their sums kept."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import PartitionSpec

    from nejax.pipeline.passes.similar import N_COLUMNS, N_ROWS
    from nejax.pipeline.run.devices import AXIS, mesh_of, place, up_to_devices

    inputs, queries = task.inputs(), task.queries()
    over, mesh = PartitionSpec(AXIS), mesh_of()

    def product(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST)

    run = jax.jit(jax.shard_map(product, mesh=mesh, in_specs=(over, PartitionSpec()), out_specs=over))
    size = up_to_devices(min(N_ROWS, task.n_queries), mesh)

    def all_blocks() -> np.ndarray:
        for first in range(0, task.n, N_COLUMNS):
            others = place(inputs[first : first + N_COLUMNS], mesh)
            for start in range(0, task.n_queries, size):
                rows = np.resize(queries[start : start + size], size)
                run(place(inputs[rows], mesh, AXIS), others).block_until_ready()
        return queries

    return all_blocks


def peer(task: Task) -> Callable[[], np.ndarray]:
    """PyNNDescent's graph of all features; what numba compiles is compiled before."""
    descent = importlib.import_module("pynndescent").NNDescent  # not everyone has it
    inputs, queries = task.inputs(), task.queries()

    def graph(x: np.ndarray) -> np.ndarray:
        index = descent(x, metric="cosine", n_neighbors=task.k + 1, random_state=0)  # each is its own neighbour
        assert index.neighbor_graph
        return index.neighbor_graph[0]

    graph(inputs[:5000])
    return lambda: graph(inputs)[queries]


CONTENDERS: dict[str, Callable[[Task], Callable[[], np.ndarray]]] = {
    EXACT: lambda task: nejax_search(task, 1.0),
    APPROXIMATE: lambda task: nejax_search(task, task.recall),
    PRODUCTS: products,
    PEER: peer,
}


def _serve(by: str, task: Task, found: Path) -> None:
    """A round for every line read; seconds are written, and what was found to a file."""
    from nejax.pipeline.run.devices import use_all_cores

    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    if by != PEER:
        use_all_cores()
    run = CONTENDERS[by](task)
    if by != PEER:
        run()
    print("ready", file=answers)
    for _ in sys.stdin:
        start = time.perf_counter()
        result = run()
        seconds = time.perf_counter() - start
        np.save(found, result)
        print(seconds, file=answers)


if __name__ == "__main__":
    _serve(sys.argv[1], Task(*json.loads(sys.argv[2])), Path(sys.argv[3]))
