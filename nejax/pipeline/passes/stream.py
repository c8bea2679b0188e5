"""Sequences streamed over devices in batches of one shape, from anywhere in the corpus on."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from nejax.errors import UserError
from nejax.pipeline.corpus.windows import Sequences
from nejax.pipeline.run.devices import AXIS, fill_up, place

Batch = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Tokens, lengths and numbers of some sequences, see `batches`."""

Pieces = Callable[[int], Iterable[Sequences]]
"""From a sequence's number to the sequences from it on, in order, in pieces of any size."""

LOOK_EVERY = 16
"""Batches between looks at whether everything was finite, and whether a checkpoint is due: a look waits for devices."""


def batches(pieces: Iterable[Sequences], batch_size: int, start: int = 0) -> Iterator[Batch]:
    """Cut pieces of a corpus into batches.

    Args:
        pieces: sequences in order, the first of them number `start`.
        batch_size: rows of every batch; in the last one, missing rows have length 0.
        start: the number of the first sequence.

    Yields:
        Tokens [batch_size, seq_len], lengths [batch_size] and numbers [batch_size] of sequences, all int32.
    """
    waiting: list[tuple[np.ndarray, np.ndarray]] = []
    n_waiting = 0

    def full(rows: list[tuple[np.ndarray, np.ndarray]]) -> Batch:
        tokens, length = (np.concatenate(column).astype(np.int32) for column in zip(*rows, strict=True))
        numbers = np.arange(start, start + batch_size, dtype=np.int32)
        return fill_up(tokens, batch_size), fill_up(length, batch_size), numbers

    for piece in pieces:
        first = 0
        while first < len(piece.length):
            last = first + batch_size - n_waiting
            waiting.append((piece.tokens[first:last], piece.length[first:last]))
            n_waiting += len(waiting[-1][1])
            first = last
            if n_waiting == batch_size:
                yield full(waiting)
                waiting, n_waiting, start = [], 0, start + batch_size
    if waiting:
        yield full(waiting)


class Step(NamedTuple):
    """A batch in a stream."""

    batch: Any
    """Tokens, lengths and numbers, see `batches`, spread over the devices."""
    done: int
    """The number of the first sequence after it."""
    is_look: bool
    """Whether it is time for a look, see `LOOK_EVERY`."""


def stream(
    sequences: Pieces, start: int, *, batch_size: int, mesh: Mesh, progress: Callable[[int], object]
) -> Iterator[Step]:
    """The batches of a corpus on devices.

    Args:
        sequences: the corpus from a given sequence number on, in pieces of any size. Called once.
        start: the number.
        batch_size: sequences a batch, on all devices together; a multiple of their number.
        mesh: the devices.
        progress: called with the number of tokens of each batch, when the next one is asked for.
    """
    done = start
    for i, batch in enumerate(batches(sequences(start), batch_size, start), start=1):
        length = batch[1]
        done += int((length > 0).sum())
        yield Step(place(batch, mesh, AXIS), done, i % LOOK_EVERY == 0)
        progress(int(length.sum()))


def refuse_non_finite(finite: np.ndarray) -> None:
    """Stop where activations are not finite.

    Args:
        finite: [n_layers] bool, which layers' activations are.

    Raises:
        UserError: names the other layers.
    """
    if not finite.all():
        layers = ", ".join(map(str, np.flatnonzero(~finite)))
        raise UserError(
            f"activations that are not finite (NaN or infinite) in layer(s) {layers}",
            "check the model's weights, or use {precision}=float32",
        )
