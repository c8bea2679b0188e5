"""Stretches of tokens at once have the texts that decoding each whole sequence gives."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nejax.atlas.token_texts import TokenTexts
from nejax.models.formats.tokens import decode_pieces

TABLE = [
    *(
        b"<bos>",
        b"a",
        b" the",
        b"\n",
        b"\x00",
        "é".encode(),
        "😀!".encode(),
        "\u2028".encode(),
        b"",
    ),  # whole, and no text
    *(
        b"\xc3",
        b"\xa9",
        b"\xf0\x9f",
        b"\x98\x80",
        b"\x80",
        b"a\xf0",
        b"\x9f\x98\x80b",
        b"\xff",
        b"\xed\xa0\x80",
    ),  # parts
]


@st.composite
def corpora(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Sequences of any of these tokens, and their lengths; padding is a part of a character, which must not show."""
    length = draw(st.lists(st.integers(1, 12), min_size=1, max_size=4))
    tokens = np.full((len(length), 12), TABLE.index(b"\xc3"), np.uint16)
    for row, n in zip(tokens, length, strict=True):
        row[:n] = draw(st.lists(st.integers(0, len(TABLE) - 1), min_size=n, max_size=n))
    return tokens, np.array(length)


@given(corpora())
@settings(max_examples=150, deadline=None)
def test_any_stretch_has_the_texts_of_its_sequence(corpus: tuple[np.ndarray, np.ndarray]):
    tokens, length = corpus
    places = [(s, a, b) for s, n in enumerate(length.tolist()) for a in range(n + 1) for b in range(a, n + 1)]
    sequence, start, stop = np.array(places).T
    found = TokenTexts(TABLE, tokens, length).stretches(sequence, start, stop)
    assert len(set(found.tokens)) == len(found.tokens)
    assert set(found.numbers.tolist()) == set(range(len(found.tokens)))
    whole = [decode_pieces(row[:n].tolist(), TABLE) for row, n in zip(tokens, length, strict=True)]
    for (s, a, b), numbers in zip(places, found.cut(found.numbers), strict=True):
        pairs = [found.tokens[number] for number in numbers]
        assert pairs == list(zip(tokens[s, a:b].tolist(), whole[s][a:b], strict=True))


def test_no_stretch_has_no_tokens():
    nothing = np.zeros(0, np.int64)
    found = TokenTexts(TABLE, np.zeros((1, 4), np.uint16), np.array([4])).stretches(nothing, nothing, nothing)
    assert found.tokens == [] and found.cut(found.numbers) == []
