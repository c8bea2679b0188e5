"""What stands at a token: its text, or the character that it is a part of."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class TextsAt(NamedTuple):
    """The text at every position of a corpus, see `text_at`."""

    number: np.ndarray
    """[n_sequences, seq_len] int32: which of the texts."""
    texts: list[str]
    """All different texts."""


def text_at(tokens: Sequence[int] | np.ndarray, position: int, table: Sequence[bytes]) -> str:
    """All characters that a token has a byte of.

    Args:
        tokens: of the sequence.
        position: of the token.
        table: from `nejax.models.tokens.token_bytes`.

    Returns:
        The token's own text; where it begins or ends within a character, with the whole of that character. Bytes that
        belong to none show as one U+FFFD.
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


def texts_at(tokens: np.ndarray, length: np.ndarray, table: Sequence[bytes]) -> TextsAt:
    """The text at every position.

    Args:
        tokens: [n_sequences, seq_len].
        length: [n_sequences] how many tokens are real.
        table: from `nejax.models.tokens.token_bytes`.
    """
    texts = [own.decode(errors="replace") for own in table]
    is_whole = np.array([text.encode() == own for text, own in zip(texts, table, strict=True)])
    known = {text: number for number, text in reversed(list(enumerate(texts))) if is_whole[number]}
    number = tokens.astype(np.int32)
    is_part = ~is_whole[tokens] & (np.arange(tokens.shape[1]) < length[:, None])
    for sequence, position in np.argwhere(is_part).tolist():
        text = text_at(tokens[sequence, : length[sequence]], position, table)
        if text not in known:
            known[text] = len(texts)
            texts.append(text)
        number[sequence, position] = known[text]
    return TextsAt(number, texts)
