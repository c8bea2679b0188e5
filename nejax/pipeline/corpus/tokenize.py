"""Texts to token ids, however long they are."""

from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

CHARACTERS_AT_ONCE = 1_000_000
"""A tokenizer's working memory is some 400 bytes a character."""

_MARGIN = 2_000
"""Characters that a piece of a long text reads beyond its ends."""


def tokenize(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[np.ndarray]:
    """Each text's token ids, int32, without special tokens: text that spells one stays text."""
    if sum(map(len, texts)) <= CHARACTERS_AT_ONCE:
        return [np.array(ids, np.int32) for ids in _encode(tokenizer, texts)["input_ids"]]
    return [_tokenize_long(tokenizer, text) for text in texts]


def _encode(tokenizer: PreTrainedTokenizerBase, texts: list[str], **more: Any) -> Any:
    return tokenizer(
        texts,
        add_special_tokens=False,
        split_special_tokens=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,  # else it warns of documents longer than the model's context
        **more,
    )


def _tokenize_long(tokenizer: PreTrainedTokenizerBase, text: str) -> np.ndarray:
    """A text's ids, from pieces that fit into one call.

    The ends of a piece may be tokenised differently from the middle of a text: a space is put before it, a word is cut
    in two. So pieces overlap, and are joined where both agree all around. Where they do not (in a run of one letter,
    for example), the piece is made longer.
    """
    kept: list[np.ndarray] = []
    begin = cut = 0
    end = CHARACTERS_AT_ONCE
    piece = _read(tokenizer, text, begin, end)
    while end < len(text):
        following = _read(tokenizer, text, end, end + CHARACTERS_AT_ONCE)
        if _agree(piece, following, end):
            kept.append(piece.ids[(piece.at >= cut) & (piece.at < end)])
            piece, begin, cut, end = following, end, end, end + CHARACTERS_AT_ONCE
        else:
            end += end - begin
            piece = _read(tokenizer, text, begin, end)
    return np.concatenate([*kept, piece.ids[piece.at >= cut]])


class _Piece:
    """Tokens, and the character of the whole text at which each begins."""

    def __init__(self, ids: list[int], spans: list[tuple[int, int]], begin: int):
        self.ids = np.array(ids, np.int32)
        self.at = begin + np.array([first for first, _ in spans], np.int64)

    def around(self, place: int) -> tuple[np.ndarray, np.ndarray]:
        near = abs(self.at - place) < _MARGIN // 2
        return self.ids[near], self.at[near]


def _read(tokenizer: PreTrainedTokenizerBase, text: str, begin: int, end: int) -> _Piece:
    """The tokens from one character to another and in a margin on both sides."""
    begin = max(begin - _MARGIN, 0)
    encoded = _encode(tokenizer, [text[begin : end + _MARGIN]], return_offsets_mapping=True)
    return _Piece(encoded["input_ids"][0], encoded["offset_mapping"][0], begin)


def _agree(a: _Piece, b: _Piece, place: int) -> bool:
    return all(map(np.array_equal, a.around(place), b.around(place)))
