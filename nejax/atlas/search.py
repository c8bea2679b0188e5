"""Find text in an atlas: sequences that hold a phrase, and features that peak at a word."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from nejax.atlas.files import AtlasFiles
from nejax.atlas.units import Units, capitalized, neuron_name
from nejax.errors import UserError

LONGEST_QUERY = 1000
"""Characters."""

Rows = Iterator[tuple]
"""Rows of a table."""


class PeakMatch(NamedTuple):
    """A feature that peaks at the word that was looked for."""

    layer: int
    neuron: int
    """Its `index` in the layer, for `Atlas.neuron`; with two sides, that of the unit."""
    feature: int
    """Index in the neuron: 0 is its largest feature."""
    n: int
    """How many of the feature's examples peak at the word."""
    n_examples: int
    """How many examples the feature has."""
    number: int
    """The neuron's index in the model's layer."""
    side: str = ""
    """Of the neuron, see `nejax.atlas.neuron.Neuron.side`."""

    def __str__(self) -> str:
        name = capitalized(neuron_name(self.layer, self.number, self.side))
        return f"{name}, feature {self.feature}: {self.n} of {self.n_examples} examples"


class SearchResult(NamedTuple):
    """What a search found; see `nejax.atlas.atlas.Atlas.search`."""

    n_sequences: int
    """How many sequences hold the phrase."""
    sequences: list[int]
    """The first of them, ascending."""
    peaks: list[PeakMatch]
    """Features that peak at the query, those with the most such examples first."""


def words(text: str) -> list[str]:
    """The words of a text: its lower-cased runs of letters and digits.

    "It's naïve, 3.5%" has the words it, s, naïve, 3, 5. Two texts with the same words are the same to a search.
    """
    return re.findall(r"[^\W_]+", text.lower())


def peak_word(text: str) -> str:
    """A peak token as it is searched for: in lower case, without white space around it unless there is nothing else."""
    return text.strip().lower() or text


def sequence_rows(tokens: np.ndarray, length: np.ndarray, table: Sequence[bytes], first: int = 0) -> Rows:
    """The rows of the table `words`: (sequence, its words with a space between).

    Args:
        tokens: [n_sequences, seq_len], BOS first.
        length: [n_sequences] how many tokens are real.
        table: from `nejax.models.tokens.token_bytes`.
        first: number of the first sequence.
    """
    for sequence, (row, n) in enumerate(zip(tokens, length.tolist(), strict=True), first):
        text = b"".join(table[token] for token in row[1:n].tolist()).decode(errors="replace")
        yield sequence, " ".join(words(text))


def peak_rows(feature_id: np.ndarray, peak: np.ndarray, texts: Sequence[str]) -> Rows:
    """The rows of the table `peaks`: (word, how many of the feature's examples peak at it, feature), in order.

    Args:
        feature_id: [n_examples] the feature of each example.
        peak: [n_examples] number of the text at its peak.
        texts: by number.
    """
    known, which = np.unique(peak, return_inverse=True)
    word_of = [peak_word(texts[int(text)]) for text in known]
    distinct = sorted(set(word_of))
    place = {word: number for number, word in enumerate(distinct)}
    number = np.array([place[word] for word in word_of], np.int64)[which]
    n_ids = feature_id.max(initial=0) + 1
    pair, count = np.unique(number * n_ids + feature_id, return_counts=True)
    number, feature = np.divmod(pair, n_ids)
    order = np.lexsort((feature, -count, number))
    for word, n, of_feature in zip(number[order].tolist(), count[order].tolist(), feature[order].tolist(), strict=True):
        yield distinct[word], n, of_feature


def find_sequences(files: AtlasFiles, query: str, offset: int = 0, limit: int = 20) -> tuple[int, list[int]]:
    """The sequences that hold a phrase.

    Args:
        files: of the atlas.
        query: its words, one after the other in a sequence; a "*" at the end lets the last be the beginning of a word.
            White space, punctuation and upper case do not matter, nor do variants of a few letters (final sigma and
            sigma, say). A query without a word finds nothing.
        offset: how many to pass over.
        limit: at most so many are listed.

    Returns:
        How many sequences hold it, and those listed, ascending.

    Raises:
        UserError: the query is longer than `LONGEST_QUERY`.
    """
    phrase = words(_of_allowed_length(query))
    if not phrase:
        return 0, []
    # A word has no quotation mark, so between two of them nothing is read as the search's own language.
    match = f'"{" ".join(phrase)}"' + "*" * query.rstrip().endswith("*")
    ((n_sequences,),) = files.rows("SELECT count(*) FROM words WHERE words MATCH ?", match)
    listed = "SELECT rowid FROM words WHERE words MATCH ? ORDER BY rowid LIMIT ? OFFSET ?"
    rows = files.rows(listed, match, min(limit, n_sequences), min(offset, n_sequences))
    return n_sequences, [sequence for (sequence,) in rows]


def find_peaks(files: AtlasFiles, query: str, limit: int = 50) -> list[PeakMatch]:
    """The features that peak at a token.

    Args:
        files: of the atlas.
        query: the whole token; upper case, and white space around it, do not matter.
        limit: at most so many.

    Returns:
        Those with the most such examples first, then by id.

    Raises:
        UserError: the query is longer than `LONGEST_QUERY`.
    """
    word = peak_word(_of_allowed_length(query))
    if re.search("[\ud800-\udfff]", word):  # half a character: no text has it, and SQLite takes none
        return []
    rows = files.rows(
        "SELECT n.layer, n.neuron, f.feature, p.n, f.n_examples FROM peaks AS p JOIN features AS f ON f.id = "
        "p.feature_id JOIN neurons AS n ON n.id = f.neuron_id WHERE p.word = ? ORDER BY p.n DESC, p.feature_id LIMIT ?",
        word,
        limit,
    )
    units = Units(files.meta["d_mlp"], files.meta["sides"])
    return [
        PeakMatch(layer, unit, feature, n, n_examples, units.number(unit), units.side(unit))
        for layer, unit, feature, n, n_examples in rows
    ]


def _of_allowed_length(query: str) -> str:
    if len(query) > LONGEST_QUERY:
        raise UserError(f"the query has {len(query):,} characters; expected at most {LONGEST_QUERY:,}")
    return query
