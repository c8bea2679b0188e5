"""The explorer on a synthetic atlas: how soon it opens, how fast it answers many clients, its static site."""

import math
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import numpy as np

from benchmarks.load import EXPLORE, Answers, Server, ask, memory
from benchmarks.sizes import GPT2_SMALL
from benchmarks.subject_flags import FLAGS
from benchmarks.synthetic_atlas import synthetic_atlas
from nejax.atlas.atlas import open_atlas
from nejax.atlas.explorer.shards import BLOCK
from nejax.atlas.terms import words


class Figure(NamedTuple):
    """One thing that was measured."""

    what: str
    value: float
    unit: str
    aim: float | None = None
    """What it should stay below."""
    note: str = ""


def measure(repeats: int) -> Iterator[list[Figure]]:
    """Generate the atlas (or take the one that is there), serve it, ask it, export it."""
    folder = Path(FLAGS.run) / "explorer"
    yield _atlas(folder)
    yield _opening(folder, repeats)
    yield from _answers(folder)
    yield _site(folder)


def table(group: list[Figure]) -> list[str]:
    """A line a figure."""
    return [
        f"{f.what:<58}{f.value:>12,.{0 if f.value >= 1000 or f.value == int(f.value) else 2}f} {f.unit:<11}"
        f"{'' if f.aim is None else f'aim: below {f.aim:,g}  '}{f.note}".rstrip()
        for f in group
    ]


def _atlas(folder: Path) -> list[Figure]:
    start = time.perf_counter()
    sizes = GPT2_SMALL._replace(
        **{name: FLAGS[name].value for name in ("n_layers", "d_mlp", "d_model", "n_sequences", "vocab_size")}
    )
    path = synthetic_atlas(folder, sizes)
    seconds = time.perf_counter() - start
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    atlas = open_atlas(path)
    what = f"atlas of {atlas.n_layers} x {atlas.d_mlp:,} neurons, {sizes.n_examples} examples each"
    atlas.close()
    return [
        Figure(f"{what}: size", size / 1e6, "MB"),
        Figure("  to generate it (or to find it there)", seconds, "s"),
    ]


def _opening(folder: Path, repeats: int) -> list[Figure]:
    taken = []
    for _ in range(repeats):
        with Server(folder) as server:
            taken.append(server.seconds_to_open)
    note = f"{min(taken):.2f} to {max(taken):.2f} s in {repeats} starts"
    return [Figure("start of the process to index.html and atlas.json", statistics.median(taken), "s", 2, note)]


def _answers(folder: Path) -> Iterator[list[Figure]]:
    """All from one server."""
    rng = np.random.default_rng(0)
    n, n_few, clients = FLAGS.n_requests, FLAGS.n_requests // 10, FLAGS.n_clients
    with Server(folder) as server:

        def timed(what: str, addresses: list[str], clients: int) -> list[Figure]:
            return _latency(what, [ask(server.port, addresses, clients)], clients)

        answers, after = [], {}
        neurons = _random_neurons(rng, n)
        for start, stop in pairwise([0, n_few, n // 2, n]):
            answers.append(ask(server.port, neurons[start:stop], clients))
            after[stop] = memory(server.process.pid)
        yield _latency("neurons", answers, clients, 100, 300)
        yield [
            Figure(
                f"memory of the server after {requests:,} requests",
                found.get("RssAnon", math.nan),
                "MiB",
                note=f"and {found.get('RssFile', math.nan):,.0f} MiB of mapped files",
            )
            for requests, found in after.items()
        ]
        yield timed("neurons", _random_neurons(rng, n_few), 1)
        blocks = rng.integers(0, -(-FLAGS.n_sequences // BLOCK), n_few)
        yield timed("sequences", [f"/data/v1/sequences/{block}.json" for block in blocks], clients)
        queries = [f"/data/v1/search?q={quote(query)}" for query in _queries(folder, rng, n_few)]
        yield timed("search", queries, clients)
        yield timed("search", queries[: n_few // 2], 1)


def _latency(what: str, answers: list[Answers], clients: int, *aims: float) -> list[Figure]:
    """How long clients waited, over all these answers."""
    ms = np.concatenate([found.ms for found in answers])
    seconds, n_bytes = (sum(values) for values in zip(*(found[1:] for found in answers), strict=True))
    note = f"{len(ms):,} requests, {n_bytes / len(ms) / 1e3:,.1f} kB each"
    for_median, for_last = aims or (None, None)
    return [
        Figure(f"{what}, {clients} client{'s' * (clients > 1)}: median", float(np.median(ms)), "ms", for_median, note),
        Figure("  99th percentile", float(np.quantile(ms, 0.99)), "ms", for_last),
        Figure("  rate", len(ms) / seconds, "requests/s"),
    ]


def _random_neurons(rng: np.random.Generator, n: int) -> list[str]:
    places = zip(rng.integers(0, FLAGS.n_layers, n), rng.integers(0, FLAGS.d_mlp, n), strict=True)
    return [f"/data/v1/neurons/{layer}/{neuron}.json" for layer, neuron in places]


def _queries(folder: Path, rng: np.random.Generator, n: int) -> list[str]:
    """One to three words that follow each other somewhere; of a third of them the last is only a beginning."""
    atlas = open_atlas(folder)
    found: list[str] = []
    while len(found) < n:
        own = words(atlas.text(int(rng.integers(atlas.n_sequences))))
        first, length = int(rng.integers(max(len(own), 1))), int(rng.integers(1, 4))
        query = " ".join(own[first : first + length])[:150]
        if len(query) > 1:
            found.append(f"{query[:-1]}*" if len(found) % 3 == 0 and query[-3:].isalnum() else query)
    atlas.close()
    return found


def _site(folder: Path) -> list[Figure]:
    site = folder / "site"
    shutil.rmtree(site, ignore_errors=True)
    command = [sys.executable, str(EXPLORE), f"--atlas={folder}", f"--export={site}", f"--max_mb={FLAGS.max_mb}"]
    start = time.perf_counter()
    peak = math.nan
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = memory(process.pid).get("VmHWM", peak)
            time.sleep(0.05)
    seconds = time.perf_counter() - start
    if process.returncode:
        raise RuntimeError("the export failed")
    sizes = [file.stat().st_size for file in site.rglob("*") if file.is_file()]
    shutil.rmtree(site)
    return [
        Figure("static site: size", sum(sizes) / 1e6, "MB", FLAGS.max_mb, f"{len(sizes):,} files"),
        Figure("  to write it", seconds, "s", note=f"peak memory {peak:,.0f} MiB"),
    ]
