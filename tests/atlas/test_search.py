"""Search against a plain scan of all texts and all peaks; queries that nobody should send, and texts likewise."""

import random
import shutil
import sqlite3
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_run import D_MLP, N_LAYERS

from nejax.atlas.atlas import Atlas, open_atlas
from nejax.atlas.files import AtlasFiles
from nejax.atlas.schema import SCHEMA
from nejax.atlas.search import (
    LONGEST_QUERY,
    PeakMatch,
    find_peaks,
    find_sequences,
    peak_rows,
    peak_word,
    sequence_rows,
    words,
)
from nejax.errors import UserError
from nejax.pipeline.stages import Run

EVERYTHING = 10**9


@pytest.fixture(scope="module")
def files(run: Run) -> AtlasFiles:
    return AtlasFiles(run.directory.path / "atlas")


@pytest.fixture(scope="module")
def texts(atlas: Atlas) -> list[list[str]]:
    """The words of every sequence."""
    return [words(atlas.text(sequence)) for sequence in range(atlas.n_sequences)]


def scan(texts: list[list[str]], phrase: list[str], *, by_prefix: bool) -> list[int]:
    """The sequences that hold a phrase, looked for at every place."""

    def stands_at(text: list[str], start: int) -> bool:
        here = text[start : start + len(phrase)]
        if len(here) < len(phrase) or here[:-1] != phrase[:-1]:
            return False
        return here[-1].startswith(phrase[-1]) if by_prefix else here[-1] == phrase[-1]

    return [
        sequence
        for sequence, text in enumerate(texts)
        if phrase and any(stands_at(text, start) for start in range(len(text)))
    ]


# --- words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It's naïve: 3.5%", ["it", "s", "naïve", "3", "5"]),
        ("snake_case __init__", ["snake", "case", "init"]),
        ("Die STRASSE, die Straße", ["die", "strasse", "die", "straße"]),
        ("東京は夜の七時です。🎉", ["東京は夜の七時です"]),
        ("²½ Ⅷ\u00a0٣\0x", ["²½", "ⅷ", "٣", "x"]),
        (" \n\t_-“”\ud800", []),
    ],
)
def test_words_are_runs_of_letters_and_digits(text, expected):
    assert words(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [(" The", "the"), ("\n", "\n"), ("  ", "  "), ("", ""), ("É ", "é"), ("__a", "__a")]
)
def test_peaks_are_looked_for_without_case_and_outer_space(text, expected):
    assert peak_word(text) == expected


@given(text=st.text())
def test_the_words_of_words_are_the_same(text):
    found = words(text)
    assert words(" ".join(found)) == found
    assert peak_word(peak_word(text)) == peak_word(text)


# --- phrases


def test_phrases_are_found_where_a_scan_finds_them(files, texts):
    rng, n_found = random.Random(0), 0
    for _ in range(400):
        text = rng.choice(texts)
        start = rng.randrange(len(text))
        phrase = text[start : start + rng.randint(1, 4)]
        if rng.random() < 0.2:
            phrase = phrase[::-1]
        by_prefix = rng.random() < 0.5
        if by_prefix:
            phrase = [*phrase[:-1], phrase[-1][: rng.randint(1, len(phrase[-1]))]]
        between = rng.choice([" ", ", ", "\n_", "🎉"])
        query = between.join(map(rng.choice([str, str.upper, str.title]), phrase)) + "*" * by_prefix
        if words(query) != phrase:  # ß in capitals is another word
            continue
        expected = scan(texts, phrase, by_prefix=by_prefix)
        assert find_sequences(files, query, limit=EVERYTHING) == (len(expected), expected), query
        n_found += len(expected)
    assert n_found > 500


def test_words_of_other_alphabets_are_found(atlas, texts):
    for query in ("naïve", "Straße", "東京*", "häuser schliefen", "SCHLIEFEN schon LÄNGST"):
        phrase = words(query)
        expected = scan(texts, phrase, by_prefix=query.endswith("*"))
        assert atlas.search(query, limit=EVERYTHING).sequences == expected != [], query
    assert atlas.search("naive").n_sequences == 0  # another word
    assert atlas.search("hauser*").n_sequences == 0


def test_the_name_of_bos_is_not_found(files):
    assert find_sequences(files, "endoftext") == (0, [])


def test_pages_make_up_all(files, texts):
    expected = scan(texts, ["the"], by_prefix=False)
    assert len(expected) > 10
    pages = [find_sequences(files, "the", offset, 4) for offset in range(0, len(expected) + 4, 4)]
    assert [sequence for _, page in pages for sequence in page] == expected
    assert {n for n, _ in pages} == {len(expected)}
    assert find_sequences(files, "the", 10**30, 10**30) == (len(expected), [])


# --- peaks


@pytest.fixture(scope="module")
def peaks(atlas: Atlas) -> dict[str, list[PeakMatch]]:
    """By word, from the examples."""
    found = defaultdict(list)
    for place in np.ndindex(N_LAYERS, D_MLP):
        for feature in atlas.neuron(*place).features:
            count = Counter(peak_word(example.peak_text) for example in feature.examples)
            for word, n in count.items():
                found[word].append(PeakMatch(*place, feature.index, n, feature.n_examples, place[1]))
    return {word: sorted(matches, key=lambda match: (-match.n, match[:3])) for word, matches in found.items()}


def test_features_are_found_by_all_their_peaks(files, atlas, peaks):
    n_examples = sum(atlas.neurons_table()["n_examples"])
    assert sum(match.n for matches in peaks.values() for match in matches) == n_examples
    assert any(not word.strip() for word in peaks) and any(not word.isascii() for word in peaks)
    for word, expected in peaks.items():
        assert find_peaks(files, word, EVERYTHING) == expected
        assert find_peaks(files, word, 3) == expected[:3]
        if word.strip():
            assert find_peaks(files, f" {word}\n", EVERYTHING) == expected


def test_case_does_not_matter_to_peaks(files, peaks):
    assert find_peaks(files, " THE", EVERYTHING) == peaks["the"]


def test_a_beginning_is_no_peak(files):
    assert find_peaks(files, "th*") == []


def test_an_atlas_is_searched_for_both(atlas, texts, peaks):
    found = atlas.search("the", limit=2)
    assert found.n_sequences == len(scan(texts, ["the"], by_prefix=False)) > 2
    assert found.sequences == scan(texts, ["the"], by_prefix=False)[:2]
    assert found.peaks == peaks["the"][:2]
    assert atlas.search("the", limit=0) == (found.n_sequences, [], [])
    with pytest.raises(UserError, match="limit=-1: expected at least 0"):
        atlas.search("the", limit=-1)


# --- queries that nobody should send

HOSTILE = [
    "",
    " ",
    "*",
    '"',
    '""',
    '"the" OR "a"',
    "the AND NOT river",
    "NEAR(the river, 5)",
    "text:the",
    "{text}:the",
    "^the",
    "the + river",
    "the* river",
    "-the",
    "(the",
    "the**",
    "\0",
    "the\0river",
    "\ud800",
    "the \udfff river",
    "'; DROP TABLE words; --",
    "%_?1:a@b$c",
    "the " * (LONGEST_QUERY // 4),
    "x" * LONGEST_QUERY,
    "\U0010ffff\u202e\u200d",
]


def like_a_scan(files: AtlasFiles, texts: list[list[str]], query: str) -> bool:
    by_prefix = query.rstrip().endswith("*")
    expected = scan(texts, words(query), by_prefix=by_prefix)
    return find_sequences(files, query, limit=EVERYTHING) == (len(expected), expected)


@pytest.mark.parametrize("query", HOSTILE)
def test_nothing_in_a_query_is_a_command(query, files, texts, peaks):
    assert like_a_scan(files, texts, query)
    assert find_peaks(files, query, EVERYTHING) == peaks.get(peak_word(query), [])


# Letters that the index takes for others (final sigma for sigma, say) are not in these.
PARTS = [
    "the",
    "river",
    "OR",
    "NOT",
    "NEAR",
    '"',
    "'",
    "*",
    "(",
    ")",
    "{",
    ":",
    "^",
    "+",
    "-",
    "\0",
    "\ud83c",
    "🎉",
    "_",
]


@given(query=st.lists(st.sampled_from([*PARTS, " "]), max_size=12).map("".join))
def test_no_query_of_such_parts_is_a_command(query, files, texts, peaks):
    assert like_a_scan(files, texts, query)
    assert find_peaks(files, query, EVERYTHING) == peaks.get(peak_word(query), [])


@given(query=st.text(st.characters(), max_size=40))  # lone surrogates among them
def test_any_text_is_a_query(query, files, atlas):
    n, sequences = find_sequences(files, query, limit=EVERYTHING)
    assert len(sequences) == n and sequences == sorted(set(sequences))
    assert all(0 <= sequence < atlas.n_sequences for sequence in sequences)
    find_peaks(files, query)


@pytest.mark.parametrize("find", [find_sequences, find_peaks])
def test_endless_queries_are_refused(find, files):
    with pytest.raises(UserError) as refused:
        find(files, "a " * 5000)
    assert str(refused.value) == "the query has 10,000 characters; expected at most 1,000"


# --- texts that nobody should write


@pytest.fixture
def hostile(run: Run, tmp_path: Path) -> Atlas:
    """The atlas with other texts: sequences 0 to 3 and the peaks of features 0 to 2."""
    shutil.copytree(run.directory.path / "atlas", tmp_path / "atlas")
    table = [
        b"<bos>",
        b"x" * 10_000,
        b'" OR \0"<script>',
        "é\u202e 🎉".encode(),
        b"\xff\xc3",
        b" The ",
        b"\0",
        b" ",
        b"",
    ]
    tokens = np.array([[0, 1, 5, 2], [0, 2, 3, 5], [0, 4, 4, 4], [0, 5, 8, 1]])
    texts = [own.decode(errors="replace") for own in table]
    with sqlite3.connect(tmp_path / "atlas" / "atlas.sqlite") as database:
        for name in ("words", "peaks"):
            database.execute(f"DROP TABLE {name}")
            database.execute(next(line for line in SCHEMA if f"TABLE {name} " in line))
        rows = sequence_rows(tokens, np.array([4, 4, 4, 3]), table)
        database.executemany("INSERT INTO words (rowid, text) VALUES (?, ?)", rows)
        rows = peak_rows(np.array([0, 0, 1, 1, 1, 2, 2]), np.array([5, 5, 5, 6, 2, 7, 4]), texts)
        database.executemany("INSERT INTO peaks (word, n, feature_id) VALUES (?, ?, ?)", rows)
    database.close()
    return open_atlas(tmp_path / "atlas")


@pytest.mark.parametrize(
    ("query", "sequences"),
    [
        ("the", [0, 1, 3]),
        ("x" * LONGEST_QUERY + "*", None),
        ("x" * (LONGEST_QUERY - 1) + "*", [0]),
        ("or script", [0, 1]),
        ("the or", [0]),
        ("script é the", [1]),
        ("bos", []),
    ],
)
def test_hostile_texts_are_found_by_their_words(hostile, query, sequences):
    if sequences is None:
        with pytest.raises(UserError, match="the query has 1,001 characters"):
            hostile.search(query)
    else:
        assert hostile.search(query).sequences == sequences


@pytest.mark.parametrize(
    ("query", "features"),
    [
        ("the", [(0, 2), (1, 1)]),
        ("\0", [(1, 1)]),
        ('" or \0"<script>', [(1, 1)]),
        (" ", [(2, 1)]),
        ("\ufffd\ufffd", [(2, 1)]),
        ("", []),
    ],
)
def test_hostile_peaks_are_found_as_they_are(hostile, query, features):
    table = hostile.features_table()
    place = {i: (table["layer"][i], table["neuron"][i], table["feature"][i]) for i in range(3)}
    expected = [(*place[feature], n, table["n_examples"][feature]) for feature, n in features]
    assert [match[:5] for match in hostile.search(query).peaks] == expected
