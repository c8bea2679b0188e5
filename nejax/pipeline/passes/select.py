"""Choose a neuron's examples from the best that were kept.

Foote 2024 (arXiv 2411.08166) keeps, for GPT-2, the examples above a fraction of the neuron's maximum. Text has many
repeats, so of examples whose peaks end the same tokens only a few are kept, under every rule.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from nejax.neuron.streaming.top_examples import TopExamples
from nejax.pipeline.corpus.sequences import rows_by_piece
from nejax.pipeline.corpus.windows import Sequences
from nejax.pipeline.run.constants import CONTEXT
from nejax.pipeline.run.settings import Selection


class Chosen(NamedTuple):
    """Every neuron's examples, strongest first; the last entries of a row may be empty."""

    sequence: np.ndarray
    """[n_layers, d_mlp, n_examples] int32, -1 where empty."""
    position: np.ndarray
    """[n_layers, d_mlp, n_examples] int32, the peak's position; 0 where empty."""
    activation: np.ndarray
    """[n_layers, d_mlp, n_examples] float32, at the peak; NaN where empty."""


def choose_examples(
    best: TopExamples,
    sequences: Iterable[Sequences],
    *,
    selection: Selection,
    n_examples: int,
    min_fraction: float,
    max_repeats: int,
) -> tuple[Chosen, np.ndarray, dict[str, int]]:
    """Choose every neuron's examples from its best K.

    Args:
        best: of all neurons, leading axes `n_layers`, `d_mlp`, strongest first, as NumPy arrays.
        sequences: all, in order, in pieces of any size.
        selection: `"fraction"`: the strongest among those above `min_fraction` x the neuron's maximum;
            `"top"`: the strongest; `"quantiles"`: evenly over the ranks of the K, strongest and weakest included.
            Examples with activation 0 or below never count: a neuron that never fires is dead and has none.
        n_examples: at most so many a neuron.
        min_fraction: in [0, 1), for `"fraction"`.
        max_repeats: at most so many examples with the same `CONTEXT` tokens up to the peak.

    Returns:
        The examples; how many of its kept ones each neuron lost as repeats, [n_layers, d_mlp] int32; and counts for the
        manifest: `examples`, `repeats_left_out`, `dead_neurons`.
    """
    contexts = _contexts(sequences, np.asarray(best.sequence), np.asarray(best.position))
    layers, repeats = [], []
    for layer in range(best.sequence.shape[0]):
        activation, sequence, position = (np.asarray(field[layer]) for field in best)
        fires = (sequence >= 0) & (activation > 0)
        if selection == "fraction":
            fires &= activation > min_fraction * np.maximum(activation[:, :1], 0)
        candidate = fires & (_rank_among_repeats(contexts[layer], fires) < max_repeats)
        repeats.append((fires & ~candidate).sum(axis=1, dtype=np.int32))
        order, there = _spread(candidate, n_examples) if selection == "quantiles" else _first(candidate, n_examples)
        layers.append(
            Chosen(
                np.where(there, np.take_along_axis(sequence, order, 1), -1).astype(np.int32),
                np.where(there, np.take_along_axis(position, order, 1), 0).astype(np.int32),
                np.where(there, np.take_along_axis(activation, order, 1), np.nan).astype(np.float32),
            )
        )
    chosen = Chosen(*(np.stack(field) for field in zip(*layers, strict=True)))
    there = chosen.sequence >= 0
    counts = {
        "examples": int(there.sum()),
        "repeats_left_out": int(np.sum(repeats)),
        "dead_neurons": int((~there.any(axis=2)).sum()),
    }
    return chosen, np.stack(repeats), counts


def _contexts(sequences: Iterable[Sequences], sequence: np.ndarray, position: np.ndarray) -> np.ndarray:
    """A 64-bit digest of the `CONTEXT` tokens that end at each peak; positions before the sequence count as -1.

    Where there is no example, 0.
    """
    contexts = np.zeros(sequence.shape, np.uint64)
    for piece, examples, rows in rows_by_piece(sequences, sequence):
        peak, mixed = position.ravel()[examples], np.zeros(len(rows), np.uint64)
        for back in range(CONTEXT):
            at = peak - back
            token = np.where(at >= 0, piece.tokens[rows, np.maximum(at, 0)], -1)
            mixed = (mixed ^ (token + 2).astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
            mixed ^= mixed >> np.uint64(29)
        contexts.reshape(-1)[examples] = mixed
    return contexts


def _rank_among_repeats(context: np.ndarray, there: np.ndarray) -> np.ndarray:
    """How many entries before this one, in its row, are there and have the same context. [n, k] -> [n, k]"""
    rows, columns = np.nonzero(there)
    order = np.lexsort((columns, context[rows, columns], rows))
    rows, columns = rows[order], columns[order]
    key = context[rows, columns]
    is_first = np.ones(len(rows), bool)
    is_first[1:] = (rows[1:] != rows[:-1]) | (key[1:] != key[:-1])
    place = np.arange(len(rows))
    start = np.maximum.accumulate(np.where(is_first, place, 0))
    rank = np.zeros(context.shape, np.int64)
    rank[rows, columns] = place - start
    return rank


def _first(candidate: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The first n candidates of each row: their columns [rows, n], and which of these are real."""
    columns = np.argsort(~candidate, axis=1, kind="stable")[:, :n]
    columns = np.pad(columns, ((0, 0), (0, n - columns.shape[1])))
    return columns, np.arange(n) < candidate.sum(axis=1, keepdims=True)


def _spread(candidate: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """n candidates of each row, evenly over their ranks; all of them where there are no more than n."""
    columns = np.argsort(~candidate, axis=1, kind="stable")
    n_there = candidate.sum(axis=1, keepdims=True)
    steps = np.arange(n)
    even = np.floor(steps * np.maximum(n_there - 1, 0) / max(n - 1, 1) + 0.5).astype(int)
    ranks = np.where(n_there > n, even, np.minimum(steps, columns.shape[1] - 1))
    return np.take_along_axis(columns, ranks, 1), steps < n_there
