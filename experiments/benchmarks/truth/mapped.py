"""A function of one neuron for many of them, compiled once whatever their number."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax import lax

from nejax.pipeline.run.devices import n_cores

CHUNK = 16


def mapped(of_one: Callable[..., Any]) -> Callable[..., Any]:
    """`of_one`, whose arguments get a leading axis.

    Args:
        of_one: arrays of one neuron -> an array, or a tuple of them.

    Returns:
        Arrays with a leading axis -> NumPy arrays with one.
    """
    many = jax.jit(lambda *arrays: lax.map(lambda each: of_one(*each), arrays))

    def of_all(*arrays: np.ndarray) -> Any:
        n = len(arrays[0])

        def of_chunk(first: int) -> Any:
            rows = np.minimum(np.arange(first, first + CHUNK), n - 1)
            return jax.tree.map(np.asarray, many(*(array[rows] for array in arrays)))

        with ThreadPoolExecutor(n_cores()) as threads:
            parts = list(threads.map(of_chunk, range(0, n, CHUNK)))
        return jax.tree.map(lambda *parts: np.concatenate(parts)[:n], *parts)

    return of_all
