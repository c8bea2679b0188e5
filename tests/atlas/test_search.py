"""Search against a plain scan of all texts and all peaks; queries that nobody should send, and texts likewise."""

import random
import re
import shutil
import sqlite3
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_run import D_MLP, N_LAYERS

from nejax.atlas.atlas import Atlas, open_atlas
from nejax.atlas.files import AtlasFiles
from nejax.atlas.search import LONGEST_QUERY, PeakMatch, find, peak_matches
from nejax.atlas.terms import hidden, words
from nejax.atlas.word_index import index_piece, rows_of_places
from nejax.errors import UserError
from nejax.pipeline.stages.run import Run

EVERYTHING = 10**9


@pytest.fixture(scope="module")
def files(run: Run) -> AtlasFiles:
    return AtlasFiles(run.directory.path / "atlas")


@pytest.fixture(scope="module")
def texts(atlas: Atlas) -> list[str]:
    return [atlas.text(sequence) for sequence in range(atlas.n_sequences)]


def scan(texts: list[str], query: str) -> list[int]:
    """The sequences that hold a query, looked for at every place."""
    phrase, by_prefix = words(query), query.rstrip().endswith("*")
    if not phrase:
        return [i for i, text in enumerate(texts) if any(re.search(sign, text) for sign in sign_patterns(query))]

    def stands_at(text: list[str], start: int) -> bool:
        here = text[start : start + len(phrase)]
        if len(here) < len(phrase) or here[:-1] != phrase[:-1]:
            return False
        return here[-1].startswith(phrase[-1]) if by_prefix else here[-1] == phrase[-1]

    return [i for i, text in enumerate(map(words, texts)) if any(stands_at(text, start) for start in range(len(text)))]


def sign_patterns(query: str) -> list[str]:
    """Regular expressions for the signs of a query, as typed and as what the pages show them for."""
    asked = {query.strip() or query, hidden(query)}
    # A single space between signs is not looked for: anything may stand there.
    patterns = [re.sub(r"(?<!\s) (?!\s)", "\1", text).strip("\1") for text in asked]
    return [re.escape(text).replace("\1", "[\\s\\S]") for text in patterns if text]


def found_by(files: AtlasFiles, query: str) -> list[int]:
    return sorted(find(files, query).sequences.tolist())


# --- texts


def test_phrases_are_found_where_a_scan_finds_them(files, texts):
    rng, n_found = random.Random(0), 0
    for _ in range(200):
        text = words(rng.choice(texts))
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
        expected = scan(texts, query)
        assert found_by(files, query) == expected, query
        n_found += len(expected)
    assert n_found > 500


def test_words_of_other_alphabets_are_found(files, texts):
    for query in ("naïve", "Straße", "häuser schliefen", "SCHLIEFEN schon LÄNGST"):
        assert found_by(files, query) == scan(texts, query) != [], query
    assert found_by(files, "naive") == found_by(files, "hauser*") == []  # other words


def test_any_part_of_a_text_without_spaces_is_found(files, texts):
    sentence = "東京は夜の七時です"
    for start in range(len(sentence)):
        for stop in range(start + 1, len(sentence) + 1):
            part = sentence[start:stop]
            expected = [i for i, text in enumerate(texts) if part in text]
            assert found_by(files, part) == found_by(files, f"{part}*") == expected != [], part
    assert found_by(files, "東夜") == []


def test_signs_are_found_as_they_stand(files, texts):
    signs = {text[i : i + n] for text in texts for n in (1, 2, 3, 5) for i in range(len(text))}
    signs = {
        part for part in signs if not words(part) and part.strip() == part and " " not in re.sub(r"\s\s+", "", part)
    }
    assert {"🎉", "(", "):", "%"} <= signs
    for part in sorted(signs):
        assert found_by(files, part) == [i for i, text in enumerate(texts) if part in text] != [], part
    for shown, part in (("⏎", "\n"), (":⏎····", ":\n    "), ("····", "    ")):
        assert found_by(files, shown) == [i for i, text in enumerate(texts) if part in text] != []
    assert found_by(files, "=====") == []


def test_the_name_of_bos_is_not_found(files):
    assert found_by(files, "endoftext") == []


def test_an_empty_atlas_of_terms_finds_nothing(tmp_path):
    none = np.empty((0, 4), np.int64)
    assert index_piece(none, none[:, 0], [b"a"], none[:, 0], none[:, 0])[0] == {}


# --- peaks


def spans_in(text: str, query: str) -> list[tuple[int, int]]:
    """The bytes of a text that a query matches, by a scan."""
    if phrase := words(query):
        end = r"[^\W_]*" if query.endswith("*") else r"(?![^\W_])"
        if re.search("[\u3040-\u9fff]", phrase[0]):
            pattern = "".join(phrase)
        else:
            pattern = r"(?<![^\W_])" + r"[\W_]+".join(map(re.escape, phrase)) + end
        patterns = [pattern]
    else:
        patterns = sign_patterns(query)
    # Ahead, so that matches may overlap.
    found = [(match.start(), match.end(1)) for own in patterns for match in re.finditer(f"(?i)(?=({own}))", text)]
    return [(len(text[:start].encode()), len(text[:end].encode())) for start, end in found]


def is_asked(token: str, query: str) -> bool:
    """Whether a peak's token is the query itself, or begins so."""
    own, asked = words(token), words(query)
    if "\ufffd" in token or not len(own) == len(asked) == 1:
        return False
    return own[0].startswith(asked[0]) if query.endswith("*") else own == asked


def scan_peaks(atlas: Atlas, files: AtlasFiles, query: str) -> tuple[list[int], list[PeakMatch]]:
    """What is found, best first: each example looked at."""
    table = files.token_bytes()
    spans = [spans_in(atlas.text(sequence), query) for sequence in range(atlas.n_sequences)]
    counts, busy = [], Counter()
    for place in np.ndindex(N_LAYERS, D_MLP):
        for feature in atlas.neuron(*place).features:
            n = 0
            for example in feature.examples:
                own = atlas.tokens(example.sequence)[1 : example.position + 1]
                stop = sum(len(table[token]) for token in own)
                start = stop - len(table[own[-1]])
                inside = any(first < stop and start < last for first, last in spans[example.sequence])
                inside = inside or is_asked(table[own[-1]].decode(errors="replace"), query)
                n += inside
                busy[example.sequence] += inside
            if n:
                layer, neuron = place
                counts.append(PeakMatch(layer, neuron, feature.index, n, feature.n_examples, neuron))
    holding = [sequence for sequence, found in enumerate(spans) if found]
    by_peaks = sorted(holding, key=lambda sequence: (-busy[sequence], sequence))
    return by_peaks, sorted(counts, key=lambda match: (-match.n, match[:3]))


@pytest.mark.parametrize(
    "query",
    [
        "the",
        "river",
        "straße",
        "häuser schliefen",
        "closed naïve visit*",
        "visit*",
        "京は",
        "の",
        "🎉",
        "(",
        "):",
        "⏎",
        "·····",
        "absent",
    ],
)
def test_features_that_peak_anywhere_inside_a_match_are_ranked(atlas, files, query):
    sequences, peaks = scan_peaks(atlas, files, query)
    found = atlas.search(query, limit=EVERYTHING)
    assert found == (len(sequences), sequences, len(peaks), peaks)
    some = find(files, query)
    assert [match for i in range(0, len(peaks) + 3, 3) for match in peak_matches(files, some, i, 3)] == peaks


@pytest.mark.slow
def test_features_that_peak_at_parts_of_words_are_found(atlas, files, texts):
    places = files.rows("SELECT DISTINCT sequence, position FROM examples")
    tokens = {word for sequence, position in places for word in words(atlas.pieces(sequence)[position])}
    parts = sorted(tokens - {word for text in texts for word in words(text)})
    assert len(parts) > 3
    for query in (*parts[:6], f"{parts[0]}*"):
        sequences, peaks = scan_peaks(atlas, files, query)
        assert peaks and atlas.search(query, limit=EVERYTHING) == (len(sequences), sequences, len(peaks), peaks), query


def test_all_examples_are_in_the_index_but_at_single_spaces(atlas, files):
    rows = np.stack([files.arrays["peak_features"], np.asarray(files.arrays["peak_places"]) >> 32], axis=1)
    known = {(feature, sequence) for feature, sequence in rows.tolist()}
    examples = {tuple(row) for row in files.rows("SELECT feature_id, sequence FROM examples")}
    assert known <= examples and len(examples) > 1000
    for feature, sequence in examples - known:
        ((position,),) = files.rows(
            "SELECT position FROM examples WHERE feature_id = ? AND sequence = ?", feature, sequence
        )
        assert atlas.pieces(sequence)[position] == " "


def test_case_does_not_matter_to_peaks(atlas):
    assert atlas.search(" THE") == atlas.search("the")


def test_an_atlas_is_searched_for_as_many_as_asked(atlas, texts):
    found, all_ = atlas.search("the", limit=2), atlas.search("the", limit=EVERYTHING)
    assert found.n_sequences == len(scan(texts, "the")) == len(all_.sequences) > 2
    assert found.n_peaks == len(all_.peaks) > 2
    assert found[1::2] == (all_.sequences[:2], all_.peaks[:2])
    assert atlas.search("the", limit=0) == (found.n_sequences, [], found.n_peaks, [])
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


@pytest.mark.parametrize("query", HOSTILE)
def test_nothing_in_a_query_is_a_command(query, files, texts):
    assert found_by(files, query) == scan(texts, query)


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


@settings(deadline=None)
@given(query=st.lists(st.sampled_from([*PARTS, " "]), max_size=12).map("".join))
def test_no_query_of_such_parts_is_a_command(query, files, texts):
    assert found_by(files, query) == scan(texts, query)


@settings(deadline=None)
@given(query=st.text(st.characters(), max_size=40))  # lone surrogates among them
def test_any_text_is_a_query(query, files, atlas):
    sequences = found_by(files, query)
    assert sequences == sorted(set(sequences)) and all(0 <= s < atlas.n_sequences for s in sequences)


def test_endless_queries_are_refused(files):
    with pytest.raises(UserError) as refused:
        find(files, "a " * 5000)
    assert str(refused.value) == "the query has 10,000 characters; expected at most 1,000"


def test_a_damaged_index_is_said_in_one_line(run, tmp_path):
    copy = shutil.copytree(run.directory.path / "atlas", tmp_path / "atlas")
    with sqlite3.connect(copy / "atlas.sqlite") as database:
        database.execute("UPDATE words SET places = x'00ff' WHERE word = 'the'")
    database.close()
    with pytest.raises(UserError, match=r"is damaged \(the index of words: .*\); delete this folder"):
        open_atlas(copy).search("the")


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
    tokens = np.array([[0, 1, 5, 2], [0, 2, 3, 5], [0, 4, 4, 4], [0, 5, 8, 6]])
    rows, positions = np.array([0, 0, 1, 1, 2, 3, 3]), np.array([1, 2, 1, 3, 2, 1, 3])
    of_term, peaks, places = index_piece(tokens, np.array([4, 4, 4, 4]), table, rows, positions)
    features = np.array([0, 1, 0, 1, 2, 1, 2], np.int32)[peaks]
    order = np.argsort(places, kind="stable")
    np.save(tmp_path / "atlas" / "peak_places.npy", places[order])
    np.save(tmp_path / "atlas" / "peak_features.npy", features[order])
    with sqlite3.connect(tmp_path / "atlas" / "atlas.sqlite") as database:
        database.execute("DELETE FROM words")
        rows = list(rows_of_places(of_term, 0))
        database.executemany("INSERT INTO words (word, shard, places) VALUES (?, ?, ?)", rows)
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
        ("\0", [0, 1, 3]),
        ("<", [0, 1]),
        ("\ufffd\ufffd", [2]),
        ("\u202e", [1]),
        ("bos", []),
    ],
)
def test_hostile_texts_are_found_by_their_words(hostile, query, sequences):
    if sequences is None:
        with pytest.raises(UserError, match="the query has 1,001 characters"):
            hostile.search(query)
    else:
        assert sorted(hostile.search(query).sequences) == sequences


@pytest.mark.parametrize(
    ("query", "features"),
    [
        ("the", [(1, 3)]),
        ("\0", [(0, 1), (2, 1)]),
        ('"', [(0, 1)]),
        ("x*", [(0, 1)]),
        ("\ufffd\ufffd", [(2, 1)]),
        ("", []),
    ],
)
def test_hostile_peaks_are_found_as_they_are(hostile, query, features):
    table = hostile.features_table()
    place = {i: (table["layer"][i], table["neuron"][i], table["feature"][i]) for i in range(3)}
    expected = [(*place[feature], n, table["n_examples"][feature]) for feature, n in features]
    assert [match[:5] for match in hostile.search(query).peaks] == expected
