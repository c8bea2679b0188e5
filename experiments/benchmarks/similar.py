"""Similar features of a model of GPT-2 small's size: nejax's search beside PyNNDescent and the machine's own limit.

Every contender works in a process of its own, in turns; what they do, and on which inputs, stands in
`similar_contenders`.
"""

import contextlib
import importlib.util
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.load import memory
from benchmarks.similar_contenders import A_DIRECTION, CONTENDERS, EXACT, PEER, PRODUCTS, Task
from benchmarks.subject_flags import FLAGS
from nejax.errors import UserError


class Figures(NamedTuple):
    """What one contender took."""

    by: str
    n_features: int
    n_queries: int
    """Of the features, those that it sought the neighbours of."""
    seconds: float
    """The median of the rounds."""
    fastest: float
    slowest: float
    seconds_for_all: float
    """Scaled from the queries to all features, or measured where all were sought."""
    scaled: bool
    recall: float | None
    """The share of the exact neighbours of the queries that it found."""
    gflops: float | None
    """Products of inputs: billions of operations a second."""
    peak_mib: float
    """Memory of the process, inputs included."""


def measure(repeats: int) -> Iterator[list[Figures]]:
    """All contenders at every size; the peer works once at each, as it takes minutes."""
    for size in FLAGS.similar_sizes:
        if not size.isdecimal() or int(size) < 2 * A_DIRECTION:
            raise UserError(f"--similar_sizes={size}: expected numbers of at least {2 * A_DIRECTION} features")
    sizes = [int(size) for size in FLAGS.similar_sizes]
    if not 0 < FLAGS.similar_recall < 1:
        raise UserError(f"--similar_recall={FLAGS.similar_recall:g}: expected a share above 0, less than 1")
    if min(sizes) <= FLAGS.similar_peer_most and importlib.util.find_spec("pynndescent") is None:
        raise UserError(
            "PyNNDescent is not installed; it comes with: pip install -e '.[benchmark]'; or --similar_peer_most=0"
        )
    for n in sizes:
        n_queries = min(n, FLAGS.similar_queries)
        task = Task(n, FLAGS.similar_dimensions, FLAGS.similar_k, n_queries, FLAGS.similar_recall)
        yield race(task, repeats, Path(FLAGS.run))


def race(task: Task, repeats: int, folder: Path) -> list[Figures]:
    """The figures of all contenders."""
    names = [by for by in CONTENDERS if by != PEER or task.n <= FLAGS.similar_peer_most]
    found = {by: (folder / f"found-{place}.npy").resolve() for place, by in enumerate(names)}
    taken: dict[str, list[float]] = {by: [] for by in names}
    peaks: dict[str, float] = {}
    for together in (names[:3], names[3:]):  # the peer alone: what it holds would be in the way of the others
        with contextlib.ExitStack() as stack:
            processes = {by: stack.enter_context(_started(by, task, found[by])) for by in together}
            for _ in range(repeats if PEER not in together else 1):
                for by, process in processes.items():
                    taken[by].append(_round(process))
            peaks |= {by: memory(process.pid).get("VmHWM", math.nan) for by, process in processes.items()}
    exact, figures = np.load(found[EXACT]), []
    for by, times in taken.items():
        median, n_queries = statistics.median(times), task.n if by == PEER else task.n_queries
        recall = None if by == PRODUCTS else share_found(np.load(found[by]), exact)
        gflops = None if by == PEER else 2 * n_queries * task.n * task.d / median / 1e9
        for_all = median * task.n / n_queries
        spread = median, min(times), max(times)
        figures.append(Figures(by, task.n, n_queries, *spread, for_all, n_queries < task.n, recall, gflops, peaks[by]))
    for path in found.values():
        path.unlink()
    return figures


@contextlib.contextmanager
def _started(by: str, task: Task, found: Path) -> Iterator[subprocess.Popen[str]]:
    """A contender in its own process, which has worked once untimed, or compiled."""
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "benchmarks.similar_contenders", by, json.dumps(task), str(found)]
    environment = {**os.environ, "PYTHONPATH": path, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as process:
        try:
            _line(process)
            yield process
        except BaseException:
            process.kill()
            raise


def _round(process: subprocess.Popen[str]) -> float:
    """Seconds of one."""
    assert process.stdin
    print(file=process.stdin, flush=True)
    return float(_line(process))


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"{process.args} stopped, status {process.wait()}; its error stands above")
    return line


def share_found(found: np.ndarray, exact: np.ndarray) -> float:
    """The share of the exact neighbours, [n_queries, k] with -1 for none, that are in the same row of the others."""
    return float(np.mean([np.isin(e[e >= 0], f).mean() for e, f in zip(exact, found, strict=True)]))


def table(group: list[Figures]) -> list[str]:
    """All pairs: measured by the peer, scaled from the queries by the others."""
    f = group[0]
    lines = [f"{f.n_features:,} features; of nejax and the products {f.n_queries:,} rows of pairs, scaled to all"]
    lines += [f"{'':<24}{'s':>9}{'fastest':>9}{'slowest':>9}{'s for all':>11}{'recall':>9}{'GFLOP/s':>9}{'MiB':>8}"]
    for f in group:
        recall = "" if f.recall is None else f"{f.recall:.4f}"
        rate = "" if f.gflops is None else f"{f.gflops:.0f}"
        times = f"{f.seconds:>9.2f}{f.fastest:>9.2f}{f.slowest:>9.2f}{f.seconds_for_all:>11,.0f}"
        lines.append(f"  {f.by:<22}{times}{recall:>9}{rate:>9}{f.peak_mib:>8,.0f}{' scaled' if f.scaled else ''}")
    return lines
