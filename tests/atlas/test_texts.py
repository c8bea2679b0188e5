"""The text at a token against the characters among the bytes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nejax.atlas.texts import Texts, text_at

TABLE = [b"<bos>", *(bytes([byte]) for byte in range(256)), b" \xf0\x9f", b"\x8e\x89", b"a\xc3", b"\xa9b", b" the"]


def tokens_of(text: bytes) -> list[int]:
    return [byte + 1 for byte in text]


def test_characters_that_straddle_tokens_are_whole():
    party = [257, 258]  # " 🎉"
    assert [text_at(party, i, TABLE) for i in range(2)] == [" 🎉", "🎉"]
    accent = [259, 260, 261]  # "aéb the"
    assert [text_at(accent, i, TABLE) for i in range(3)] == ["aé", "éb", " the"]


def test_bytes_of_no_character_are_one_replacement():
    assert text_at(tokens_of(b"\x8e\x89"), 1, TABLE) == "\ufffd"
    assert text_at([257], 0, TABLE) == " \ufffd"
    assert text_at([257, 261], 0, TABLE) == " \ufffd"
    assert text_at([257, 261], 1, TABLE) == " the"


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20))
def test_every_byte_of_a_text_has_its_character(text):
    tokens = tokens_of(text.encode())
    expected = [character for character in text for _ in character.encode()]
    assert [text_at(tokens, i, TABLE) for i in range(len(tokens))] == expected


@given(st.lists(st.lists(st.integers(0, len(TABLE) - 1), min_size=1, max_size=12), min_size=1, max_size=4))
def test_a_corpus_is_spelled_token_by_token(rows):
    width = max(map(len, rows))
    tokens = np.array([row + [0] * (width - len(row)) for row in rows], np.int32)
    length, found = np.array(list(map(len, rows))), Texts(TABLE)
    half = len(rows) // 2
    number = []
    for part in (slice(half), slice(half, None)):  # what is known of one shard is known of the next
        row, position = np.nonzero(np.arange(width) < length[part, None])
        number += found.numbers_at(tokens[part], length[part], row, position).tolist()
    expected = [text_at(row, i, TABLE) for row in rows for i in range(len(row))]
    assert [found.texts[n] for n in number] == expected
    assert len(set(number)) == len(set(expected))
