"""The windows of some examples: the tokens around their peaks, with their texts, activations and importance."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from nejax.atlas.token_texts import Stretches


class Window(NamedTuple):
    """One example's."""

    start: int
    """Position of its first token in the sequence."""
    tokens: np.ndarray
    """[n_tokens] int32 ids."""
    pieces: list[str]
    """[n_tokens] what each shows as."""
    activations: np.ndarray
    """[n_tokens] float16."""
    importance: np.ndarray | None
    """[n_tokens] float16, NaN where it is not known; None where the atlas has none."""


class Windows(NamedTuple):
    """Those of some examples, the tokens of all one after the other."""

    start: np.ndarray
    """[n_examples] position of each one's first token in its sequence."""
    texts: Stretches
    """Which tokens, and where each window's end."""
    activations: np.ndarray
    """[n_tokens] float16."""
    importance: np.ndarray | None
    """[n_tokens] float16, NaN where it is not known; None where the atlas has none."""

    def each(self) -> Iterator[Window]:
        """One by one."""
        pairs, begin = self.texts.tokens, 0
        ids = np.array([token for token, _ in pairs], np.int32)[self.texts.numbers]
        for start, end in zip(self.start.tolist(), self.texts.ends.tolist(), strict=True):
            own = slice(begin, end)
            pieces = [pairs[number][1] for number in self.texts.numbers[own].tolist()]
            importance = None if self.importance is None else self.importance[own]
            yield Window(start, ids[own], pieces, self.activations[own], importance)
            begin = end


def inside(position: np.ndarray, length: np.ndarray, before: int, after: int) -> np.ndarray:
    """[n, before + 1 + after] which tokens around a position are in its sequence.

    Args:
        position: [n] in the sequence.
        length: [n] of the sequence.
        before: tokens before the position.
        after: tokens after it.
    """
    place = position[:, None] + np.arange(-before, after + 1)
    return (place >= 0) & (place < length[:, None])


def up_to_peak(importance: np.ndarray, before: int, after: int) -> np.ndarray:
    """[n, before + 1 + after] the importance of the tokens of windows, NaN where it is not known.

    Args:
        importance: [n, up to the peak] of those before the peak and, last, of its own.
        before: tokens of a window before the peak.
        after: tokens after it.

    Raises:
        ValueError: some are not between 0 and 1.
    """
    known = importance[:, max(importance.shape[1] - before - 1, 0) :]
    if ((known < 0) | (known > 1)).any():
        raise ValueError("importance.npy has values that are not between 0 and 1")
    return np.pad(known, ((0, 0), (before + 1 - known.shape[1], after)), constant_values=np.nan)
