"""The texts of many stretches of tokens at once."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nejax.models.formats.tokens import decode_pieces


class Stretches(NamedTuple):
    """Stretches of sequences, each token named by its number in a list of what occurs."""

    tokens: list[tuple[int, str]]
    """The different pairs of token id and text."""
    numbers: np.ndarray
    """[n_tokens] which of them: all stretches' tokens one after the other."""
    ends: np.ndarray
    """[n_stretches] where in `numbers` each stretch ends."""

    def cut(self, flat: np.ndarray) -> list[list]:
        """Values of the tokens, [n_tokens], as one list a stretch."""
        values, ends = flat.tolist(), self.ends.tolist()
        return [values[start:end] for start, end in zip([0, *ends], ends, strict=False)]


class TokenTexts:
    """What tokens show as, see `nejax.models.formats.tokens.decode_pieces`: a character that straddles tokens belongs
    to its last.

    Args:
        table: the bytes of each token, from `nejax.models.formats.tokens.token_bytes`.
        tokens: [n_sequences, seq_len] ids.
        lengths: [n_sequences] how many of them are real.
    """

    def __init__(self, table: Sequence[bytes], tokens: np.ndarray, lengths: np.ndarray):
        self._table, self._tokens, self._lengths = table, tokens, lengths
        self._texts = [own.decode(errors="replace") for own in table]
        # Behind a whole token nothing is left of a character, so what follows does not depend on what came before it.
        self._is_part = np.array(
            [not own or text.encode() != own for own, text in zip(table, self._texts, strict=True)]
        )

    def stretches(self, sequence: np.ndarray, start: np.ndarray, stop: np.ndarray) -> Stretches:
        """Stretches of sequences.

        Args:
            sequence: [n] where each is.
            start: [n] its first position.
            stop: [n] the position after its last, at most the sequence's length.
        """
        width = int((stop - start).max(initial=0))
        # With the token before each: if that one ends within a character, the text of the first is not its own.
        position = start[:, None] + np.arange(-1, width)
        ids = self._tokens[sequence[:, None], np.clip(position, 0, self._tokens.shape[1] - 1)].astype(np.int64)
        inside = (position >= start[:, None]) & (position < stop[:, None])
        is_part = self._is_part[ids] & (position >= 0) & (position < stop[:, None])
        keys, others = ids, {}
        for row in np.flatnonzero(is_part.any(axis=1)).tolist():
            pieces = self._pieces(int(sequence[row]), int(start[row]), int(stop[row]))
            for column, piece in enumerate(pieces, 1):
                token = int(ids[row, column])
                if piece != self._texts[token]:
                    keys[row, column] = others.setdefault((token, piece), len(self._texts) + len(others))
        found, numbers = np.unique(keys[inside], return_inverse=True)
        others = list(others)
        n = len(self._texts)
        pairs = [(key, self._texts[key]) if key < n else others[key - n] for key in found.tolist()]
        return Stretches(pairs, numbers, np.cumsum(stop - start))

    def _pieces(self, sequence: int, start: int, stop: int) -> list[str]:
        """The texts of one stretch."""
        length = int(self._lengths[sequence])
        ids = self._tokens[sequence, : min(stop + 1, length)].tolist()  # one more: it may complete nothing of the last
        first = start
        while first > 0 and self._is_part[ids[first - 1]]:
            first -= 1
        return decode_pieces(ids[first:], self._table)[start - first : stop - first]
