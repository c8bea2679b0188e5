"""Words, signs and scripts without spaces, taken out of texts and queries; and the places that they are packed as."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nejax.atlas.terms import readings, terms, words
from nejax.atlas.word_index import packed, unpacked


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It's naïve: 3.5%", ["it", "s", "naïve", "3", "5"]),
        ("snake_case __init__", ["snake", "case", "init"]),
        ("Die STRASSE, die Straße", ["die", "strasse", "die", "straße"]),
        ("東京は夜の七時です。🎉", list("東京は夜の七時です")),
        ("中文abc，ｶﾀ", [*"中文", "abc", *"ｶﾀ"]),
        ("กำลัง ๑", list("กำลัง๑")),
        ("한국어 문장", ["한국어", "문장"]),
        ("ΟΔΟΣ ὁδός İx", ["οδοσ", "ὁδόσ", "i", "x"]),
        ("²½ Ⅷ\u00a0٣\0x", ["²½", "ⅷ", "٣", "x"]),
        (" \n\t_-“”\ud800", []),
    ],
)
def test_words_are_runs_of_letters_and_digits(text, expected):
    assert words(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a == b", {2: "=", 3: "="}),
        ("if x:\n  y", {4: ":", 5: "\n", 6: " ", 7: " "}),
        ("¿qué? … 🎉", {0: "¿", 4: "?", 6: "…", 8: "🎉"}),
        ("です。\u00a0", {2: "。", 3: "\u00a0"}),
        (" a b ", {}),
    ],
)
def test_signs_are_all_else_but_for_single_spaces(text, expected):
    assert {term.at: term.text for term in terms(text) if term.is_sign} == expected


@given(text=st.text())
def test_terms_tell_where_they_stand(text):
    found = list(terms(text))
    assert [term.at for term in found if not term.is_sign] == list(range(len(words(text))))
    assert all(text[term.start : term.stop] == term.text and term.at == term.start for term in found if term.is_sign)
    assert all(words(text[term.start : term.stop]).count(term.text) for term in found if not term.is_sign)
    covered = {i for term in found for i in range(term.start, term.stop)}
    assert {text[i] for i in range(len(text)) if i not in covered} <= {" "}


@given(text=st.text())
def test_the_words_of_words_are_the_same(text):
    found = words(text)
    assert words(" ".join(found)) == found


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("⏎", [["⏎"], ["\n"]]),
        ("··", [["·", "·"], [" ", " "]]),
        ("⇥⟨U+200E⟩", [["u", "200e"], ["\t", "\u200e"]]),
        ("⟨ZWSP⟩", [["zwsp"], ["\u200b"]]),
        ("␀", [["␀"], ["\0"]]),
        ("=====", [["="] * 5]),
        ("the ⏎ end", [["the", "end"]]),
        (" ", []),
        ("·", [["·"]]),
        ("", []),
    ],
)
def test_signs_of_the_pages_stand_for_what_they_show_too(query, expected):
    assert [phrase.terms for phrase in readings(query)] == expected


@given(places=st.lists(st.integers(0, 2**50), unique=True).map(sorted))
def test_places_are_packed_and_unpacked(places):
    half = len(places) // 2
    parts = [packed(np.array(part, np.int64)) for part in (places[:half], places[half:])]
    assert unpacked(parts).tolist() == places
