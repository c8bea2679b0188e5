"""The text at a token: its own, or the character that it is a part of."""

import re
from collections.abc import Sequence

import numpy as np


def text_at(tokens: Sequence[int] | np.ndarray, position: int, table: Sequence[bytes]) -> str:
    """All characters that a token has a byte of.

    Args:
        tokens: of the sequence.
        position: of the token.
        table: from `nejax.models.formats.tokens.token_bytes`.

    Returns:
        The token's own text; where it begins or ends within a character, that character is whole. Invalid bytes show as
        one U+FFFD.
    """
    own = table[tokens[position]]
    try:
        return own.decode()
    except UnicodeDecodeError:
        pass
    # A character has at most 4 bytes, so one that shares a byte with the token ends at most 3 bytes beyond it.
    before = b"".join(table[token] for token in tokens[max(position - 3, 0) : position])[-3:]
    after = b"".join(table[token] for token in tokens[position + 1 : position + 4])[:3]
    start, text = 0, ""
    for character in (before + own + after).decode(errors="surrogateescape"):
        end = start + len(character.encode(errors="surrogateescape"))
        if end > len(before) and start < len(before) + len(own):
            text += character
        start = end
    return re.sub("[\udc80-\udcff]+", "\ufffd", text)


class Texts:
    """The different texts at some tokens of a corpus, see `text_at`, by number.

    Args:
        table: from `nejax.models.formats.tokens.token_bytes`.
    """

    def __init__(self, table: Sequence[bytes]):
        self.texts = [own.decode(errors="replace") for own in table]
        """All texts so far: those of the vocabulary, by token, then characters that straddle tokens."""
        self._table = table
        is_whole = [text.encode() == own for text, own in zip(self.texts, table, strict=True)]
        self._known = {text: number for number, text in reversed(list(enumerate(self.texts))) if is_whole[number]}
        self._is_whole = np.array(is_whole)

    def numbers_at(self, tokens: np.ndarray, length: np.ndarray, row: np.ndarray, position: np.ndarray) -> np.ndarray:
        """The text at each of some positions.

        Args:
            tokens: [n_sequences, seq_len].
            length: [n_sequences] how many tokens are real.
            row: [n] which sequence; many may be the same.
            position: [n] where in the sequence, at real tokens.

        Returns:
            [n] int32 numbers of texts.
        """
        number = tokens[row, position].astype(np.int32)
        is_part = np.flatnonzero(~self._is_whole[number])
        places = np.stack([row[is_part], position[is_part]], axis=1)
        distinct, which = np.unique(places, axis=0, return_inverse=True)
        of_place = np.array([self._number_of(tokens[i, : length[i]], j) for i, j in distinct.tolist()], np.int32)
        number[is_part] = of_place[which]
        return number

    def _number_of(self, tokens: np.ndarray, position: int) -> int:
        text = text_at(tokens, position, self._table)
        if text not in self._known:
            self._known[text] = len(self.texts)
            self.texts.append(text)
        return self._known[text]
