"""Token importance of the examples of a real run: nejax's shared branches beside whole forward passes.

Whole passes all take the same time, so a sample of them is timed, and scaled to as many as all examples would need.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from benchmarks.importance_passes import whole_passes
from benchmarks.subject_flags import FLAGS
from nejax.errors import UserError
from nejax.pipeline.passes.ablation import Cost, Peaks, activations_without
from nejax.pipeline.run.settings import Settings
from nejax.pipeline.stages.features import FEATURES
from nejax.pipeline.stages.importance import most_central, padding_token
from nejax.pipeline.stages.inputs import INPUTS
from nejax.pipeline.stages.run import Run
from nejax.pipeline.stages.tokens import TOKENS

TOLERANCE = 1e-5
"""By how much what is found may differ, as a part of the activation at the peak, or of 1 where that is less."""

NAIVE, SHARED, NEJAX = "a pass an example and token", "a pass a peak's place and token", "nejax, branches"


class Figures(NamedTuple):
    """What one contender took."""

    by: str
    n_sequences: int
    """Of the corpus that the examples are the best of."""
    n_examples: int
    """In the sequences that are timed."""
    n_places: int
    """Where they peak."""
    n_pairs: int
    """Examples and tokens: what is to be found."""
    passes: int
    """Whole passes, or branches, that all of them need."""
    tokens: int
    """In these; of branches their own, without the sequences beside them and rows that fill up."""
    seconds: float
    """For all of them, the median of the rounds."""
    fastest: float
    slowest: float
    us_a_pair: float
    """Microseconds for an example and a token."""
    timed_passes: int
    """Of the passes, those that were timed; the seconds are scaled from them."""
    worst_difference: float
    """From nejax, over the pairs that both found, as a part of the activation at the peak, or of 1 where it is less."""


class _Examples(NamedTuple):
    """Of a run, those in the sequences that are timed."""

    model: Any
    tokens: np.ndarray
    peaks: Peaks
    activation: np.ndarray
    window: int
    padding: int

    def by_branches(self) -> tuple[np.ndarray, Cost]:
        """As nejax does it."""
        settings = {"n_layers": self.model.config.n_layers, "window": self.window, "padding": self.padding}
        return activations_without(self.model, self.peaks, self.tokens, ablation="padding", **settings)


def measure(repeats: int) -> Iterator[list[Figures]]:
    """All contenders on the examples of every corpus."""
    for n in FLAGS.importance_sequences:
        if not n.isdecimal() or int(n) < 1:
            raise UserError(f"--importance_sequences={n}: expected numbers of at least 1 sequence")
    for n in map(int, FLAGS.importance_sequences):
        with tempfile.TemporaryDirectory() as folder:
            run = Run(folder, Settings.of(max_sequences=n), quiet=True)
            with run.products():
                yield race(_examples_of(run), n, repeats)


def _examples_of(run: Run) -> _Examples:
    """Those that the importance stage would take of a run, in the sequences that are timed."""
    settings, chosen = run.settings.importance, INPUTS.of(run).chosen
    central = [most_central(f.label, f.cohesion, settings.n_examples) for f in FEATURES.of(run)]
    layer, neuron, rank = np.nonzero(np.stack(central))
    sequence = chosen.sequence[layer, neuron, rank]
    drawn = np.random.default_rng(0).permutation(np.unique(sequence))[: FLAGS.importance_timed]
    known = np.sort(drawn)
    here = np.flatnonzero(np.isin(sequence, known))
    here = here[np.argsort(sequence[here], kind="stable")]
    at = layer[here], neuron[here], rank[here]
    peaks = Peaks(*at[:2], np.searchsorted(known, sequence[here]), chosen.position[at])
    tokens = TOKENS.of(run).take(known).tokens
    activation = chosen.activation[at]
    return _Examples(run.loaded.model, tokens, peaks, activation, settings.window, padding_token(run))


def race(examples: _Examples, n_sequences: int, repeats: int) -> list[Figures]:
    """All once, untimed, then in turns. What they find is compared."""
    peaks, rng = examples.peaks, np.random.default_rng(1)
    taken = peaks.position[:, None] - np.arange(examples.window + 1)
    example, offset = np.nonzero(taken >= 1)
    place_of = np.stack([peaks.sequence[example], peaks.position[example], taken[example, offset]], axis=1)
    shared, pass_of = np.unique(place_of, axis=0, return_inverse=True)
    some_pairs = rng.choice(len(example), min(len(example), FLAGS.importance_passes), replace=False)
    some_passes = rng.choice(len(shared), min(len(shared), FLAGS.importance_passes), replace=False)
    whole = partial(whole_passes, examples.model, examples.tokens, examples.padding)
    contenders: dict[str, Callable[[], Any]] = {
        NAIVE: lambda: whole(place_of[some_pairs]),
        SHARED: lambda: whole(shared[some_passes]),
        NEJAX: examples.by_branches,
    }
    found = {by: run() for by, run in contenders.items()}
    without, cost = found[NEJAX]
    rank = np.full(len(shared), -1)
    rank[some_passes] = np.arange(len(some_passes))
    read = np.flatnonzero(rank[pass_of.ravel()] >= 0)  # pairs that the timed passes hold, of all neurons there
    differences = {NEJAX: 0.0}
    for by, pairs, row in (
        (NAIVE, some_pairs, np.arange(len(some_pairs))),
        (SHARED, read, rank[pass_of.ravel()[read]]),
    ):
        of = example[pairs]
        difference = found[by][peaks.layer[of], row, peaks.neuron[of]] - without[of, offset[pairs]]
        differences[by] = float((np.abs(difference) / np.maximum(np.abs(examples.activation[of]), 1)).max())
        if not differences[by] <= TOLERANCE:
            raise RuntimeError(f"{by} and nejax differ by {differences[by]:.1e} of an activation")

    times: dict[str, list[float]] = {by: [] for by in contenders}
    for _ in range(repeats):
        for by, run in contenders.items():
            start = time.perf_counter()
            run()
            times[by].append(time.perf_counter() - start)
    seq_len, n_pairs, figures = examples.tokens.shape[1], len(example), []
    size = n_sequences, len(taken), len(np.unique(place_of[:, :2], axis=0)), n_pairs
    for by, passes, timed, tokens in (
        (NAIVE, n_pairs, len(some_pairs), n_pairs * seq_len),
        (SHARED, len(shared), len(some_passes), len(shared) * seq_len),
        (NEJAX, cost.branches, cost.branches, cost.tokens),
    ):
        seconds = np.array(times[by]) * passes / timed
        median = statistics.median(seconds.tolist())
        spread = median, float(seconds.min()), float(seconds.max()), 1e6 * median / n_pairs
        figures.append(Figures(by, *size, passes, tokens, *spread, timed, differences[by]))
    return figures


def table(group: list[Figures]) -> list[str]:
    """What all examples take, and how many times as long as nejax."""
    f, best = group[0], group[-1].seconds
    lines = [
        f"{f.n_sequences:,} sequences of corpus; of some of them {f.n_examples:,} examples at {f.n_places:,} places, "
        f"{f.n_pairs:,} pairs of an example and a token"
    ]
    lines += [
        f"{'':<34}{'passes':>10}{'tokens':>13}{'s':>9}{'fastest':>9}{'slowest':>9}{'us a pair':>11}{'ratio':>8}"
        f"{'differ by':>11}"
    ]
    for f in group:
        times = f"{f.seconds:>9.1f}{f.fastest:>9.1f}{f.slowest:>9.1f}{f.us_a_pair:>11,.1f}{f.seconds / best:>8.1f}"
        differ = "" if f.by == NEJAX else f"{f.worst_difference:>11.0e}"
        scaled = f"  scaled from {f.timed_passes:,} passes" if f.timed_passes < f.passes else ""
        lines.append(f"  {f.by:<32}{f.passes:>10,}{f.tokens:>13,}{times}{differ}{scaled}")
    return lines
