"""Find text in an atlas: sequences that hold a phrase, and features that peak inside it."""

import re
from typing import NamedTuple

import numpy as np

from nejax.atlas.files import AtlasFiles
from nejax.atlas.reader import feature_places
from nejax.atlas.terms import Phrase, readings
from nejax.atlas.units import Units, capitalized, neuron_name
from nejax.atlas.word_index import FRAGMENT, GAP, SEQUENCE_BITS, rows_at, unpacked
from nejax.errors import UserError

LONGEST_QUERY = 1000
"""Characters."""


class PeakMatch(NamedTuple):
    """A feature that peaks inside a match."""

    layer: int
    neuron: int
    """Its `index` in the layer, for `Atlas.neuron`; with two sides, that of the unit."""
    feature: int
    """Index in the neuron: 0 is its largest feature."""
    n: int
    """How many of the feature's examples peak there."""
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
    """Some of them, those in which the most examples peak inside it first, then by number."""
    n_peaks: int
    """How many features peak inside it."""
    peaks: list[PeakMatch]
    """Some of them, those with the most such examples first."""


class Found(NamedTuple):
    """All results of a query, best first."""

    sequences: np.ndarray
    """[n_sequences] those with the most examples that peak inside a match first, then by number."""
    features: np.ndarray
    """[n_features] ids, those with the most such examples first, then by id."""
    n: np.ndarray
    """[n_features] how many these are."""


def find(files: AtlasFiles, query: str) -> Found:
    """Search an atlas.

    Args:
        files: of the atlas.
        query: words, one after the other in a sequence; a "*" at the end lets the last be the beginning of a word.
            White space, punctuation and upper case do not matter. In scripts that are written without spaces, any
            part of a text is found. A query without words finds its signs exactly, except for a single space; the
            explorer's signs for invisible characters ("⏎", "·") also match those characters.

    Returns:
        The sequences that hold the query, and the features with examples that peak inside it: at a token that has a
            byte of it. Those that peak at a token whose only word is the query are found too, even where it is a part
            of a word of the text.

    Raises:
        UserError: the query is longer than `LONGEST_QUERY`, or the atlas is damaged.
    """
    if len(query) > LONGEST_QUERY:
        raise UserError(f"the query has {len(query):,} characters; expected at most {LONGEST_QUERY:,}")
    places = _distinct(np.concatenate([np.empty(0, np.int64), *(_places(files, part) for part in readings(query))]))
    rows = rows_at(files.arrays["peak_places"].view(np.ndarray), places)
    # A neuron has one example in a sequence, so a feature and a sequence are an example.
    sequence = np.asarray(files.arrays["peak_places"][rows]) >> SEQUENCE_BITS
    feature = np.asarray(files.arrays["peak_features"][rows]).astype(np.int64)
    feature, sequence = np.divmod(_distinct((feature << SEQUENCE_BITS) + sequence), 1 << SEQUENCE_BITS)
    features, n = np.unique(feature, return_counts=True)
    sequences = _distinct(places[~_is_fragment(places)] >> SEQUENCE_BITS)
    busy, n_peaks = np.unique(sequence[np.isin(sequence, sequences)], return_counts=True)
    peaks_in = np.zeros(len(sequences), np.int64)
    peaks_in[np.searchsorted(sequences, busy)] = n_peaks
    best = np.argsort(-n, kind="stable")
    return Found(sequences[np.argsort(-peaks_in, kind="stable")], features[best], n[best])


def peak_matches(files: AtlasFiles, found: Found, offset: int, limit: int) -> list[PeakMatch]:
    """Some of the features that were found, from `offset` on."""
    ids, counts = (values[offset : offset + limit].tolist() for values in (found.features, found.n))
    places = feature_places(files, ids)
    units = Units(files.meta["d_mlp"], files.meta["sides"])
    return [
        PeakMatch(at.layer, at.unit, at.feature, n, at.n_examples, units.number(at.unit), units.side(at.unit))
        for at, n in zip((places[id_] for id_ in ids), counts, strict=True)
    ]


def _places(files: AtlasFiles, phrase: Phrase) -> np.ndarray:
    """[n] the places of all terms of a phrase and of the gaps between its words, wherever it stands."""
    if any(re.search("[\ud800-\udfff]", term) for term in phrase.terms):  # half a character: no text has it
        return np.empty(0, np.int64)
    starts = None
    known: dict[str, np.ndarray] = {}
    for k, (term, offset) in enumerate(zip(phrase.terms, phrase.offsets, strict=True)):
        by_prefix = phrase.is_prefix and k == len(phrase.terms) - 1
        if by_prefix or term not in known:
            known[term] = _places_of(files, term, is_prefix=by_prefix)
        at = known[term] if len(phrase.terms) == 1 else known[term][~_is_fragment(known[term])] - offset
        starts = at if starts is None else starts[np.isin(starts, at, assume_unique=True)]
        if not len(starts):
            return starts
    assert starts is not None
    places = starts[:, None] + np.array(phrase.offsets)
    return places.ravel() if phrase.is_signs else np.concatenate([places.ravel(), places[:, :-1].ravel() + GAP])


def _is_fragment(places: np.ndarray) -> np.ndarray:
    """[n] of places of terms."""
    return (places >> 29) & 7 == FRAGMENT >> 29


def _distinct(values: np.ndarray) -> np.ndarray:
    """The different values, ascending. (`np.unique` hashes them, which takes ten times as long for millions.)"""
    ordered = np.sort(values)
    return ordered[np.diff(ordered, prepend=-1) != 0]


def _places_of(files: AtlasFiles, term: str, *, is_prefix: bool) -> np.ndarray:
    """[n] ascending: where a term stands, or all that begin with it."""
    condition, values = ("word >= ? AND word < ?", (term, f"{term}\U0010ffff")) if is_prefix else ("word = ?", (term,))
    rows = files.rows(f"SELECT places FROM words WHERE {condition} ORDER BY word, shard", *values)
    try:
        places = unpacked([blob for (blob,) in rows])
    except ValueError as error:
        raise files.damaged(error) from error
    return np.sort(places) if is_prefix else places
