"""Trainings that do not depend on each other, one on each device."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from queue import SimpleQueue
from threading import Event
from typing import Any, TypeVar

import jax
from tqdm import tqdm

OnSteps = Callable[[int], Any]
"""Called with the number of steps taken since the last call."""

T = TypeVar("T")
R = TypeVar("R")


def on_all_devices(work: Callable[[T, OnSteps], R], tasks: Iterable[T], bar: tqdm) -> Iterator[R]:
    """Do tasks that do not depend on each other, one on each device at a time.

    The loops of one program keep one CPU core busy, so that two trainings side by side take little longer than one.

    Args:
        work: does one; it is told where to count its steps.
        tasks: any number.
        bar: counts the steps of all.

    Yields:
        The results, in the order of the tasks.
    """
    free: SimpleQueue[Any] = SimpleQueue()
    for device in jax.devices():
        free.put(device)
    stopping = Event()

    def on_steps(n: int) -> None:
        if stopping.is_set():
            raise CancelledError
        bar.update(n)

    def on_a_device(task: T) -> R:
        device = free.get()
        try:
            with jax.default_device(device):
                return work(task, on_steps)
        finally:
            free.put(device)

    pool = ThreadPoolExecutor(jax.device_count())
    try:
        yield from pool.map(on_a_device, tasks)
    finally:  # after an error or Ctrl-C nothing more is begun, and what is under way ends at its next steps
        stopping.set()
        pool.shutdown(cancel_futures=True)
