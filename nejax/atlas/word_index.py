"""The index of an atlas's texts: where in the corpus each term stands, and which features peak at it.

A place is a number: the sequence times 2^32, plus `Term.at`, plus 2^31 for a sign. Places of two words, or of two
signs, differ by as much as the terms are apart. After each word is a gap, whose place is the word's plus 2^30. A token
that is a part of a word, a fragment, is a term too where an example peaks at it: its place is the sequence times 2^32,
plus 2^29, plus its position.
"""

import codecs
import zlib
from collections.abc import Iterator, Sequence

import numpy as np

from nejax.atlas.terms import Term, terms, words

SEQUENCE_BITS = 32
"""By how many bits a place's sequence is shifted."""

SIGN = 1 << 31
"""What is added to the place of a sign."""

GAP = 1 << 30
"""What is added to the place of a word for that of the gap after it."""


FRAGMENT = 1 << 29
"""What is added to the position of a fragment for its place."""


def index_piece(
    tokens: np.ndarray,
    length: np.ndarray,
    table: Sequence[bytes],
    rows: np.ndarray,
    positions: np.ndarray,
    first: int = 0,
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Index some sequences, and the peaks in them.

    Args:
        tokens: [n_sequences, seq_len], BOS first.
        length: [n_sequences] how many tokens are real.
        table: from `nejax.models.formats.tokens.token_bytes`.
        rows: [n_peaks] the sequence that each peak is in, counted from these sequences' first.
        positions: [n_peaks] where in it.
        first: number of the first sequence.

    Returns:
        The ascending places of each term; and, for each pair of a peak and a term that its token has a byte of, the
        peak's index and the term's place. A token that has no byte of a word is in the gap after a word, too.
    """
    number_of: dict[str, int] = {}
    numbers: list[int] = []
    places: list[np.ndarray] = []
    peaks: list[np.ndarray] = []
    peak_places: list[np.ndarray] = []
    order = np.argsort(rows, kind="stable")
    ends = np.searchsorted(rows[order], np.arange(len(tokens) + 1))
    is_whole = np.array([_is_whole(own) for own in table])
    fragments = _Fragments(table)
    n_characters = np.array([len(own.decode(errors="replace")) for own in table])
    for row, n in enumerate(length.tolist()):
        own = tokens[row, 1:n]
        if is_whole[own].all():
            stop = np.cumsum(n_characters[own])
            start = stop - n_characters[own]
            text = b"".join(table[token] for token in own.tolist()).decode()
        else:
            text, start, stop = _straddled(own.tolist(), table)
        found = list(terms(text))
        if not found:
            continue
        numbers += [number_of.setdefault(term.text, len(number_of)) for term in found]
        place = np.array([term.at + SIGN * term.is_sign for term in found], np.int64)
        place += (first + row) << SEQUENCE_BITS
        places.append(place)
        here = order[ends[row] : ends[row + 1]]
        at = positions[here] - 1
        low, count = _overlapping(found, start[at], stop[at])
        peaks.append(np.repeat(here, count))
        peak_places.append(place[_ranges(low, count)])
        of_words = [term for term in found if not term.is_sign]
        before, n_words = _overlapping(of_words, start[at], stop[at])
        in_gap = (n_words == 0) & (before > 0)
        peaks.append(here[in_gap])
        peak_places.append(((first + row) << SEQUENCE_BITS) + GAP + before[in_gap] - 1)
        is_fragment = np.zeros(len(here), bool)
        of_position: dict[int, bool] = {}
        for i, (position, token, k, n_own) in enumerate(
            zip(at.tolist(), own[at].tolist(), before.tolist(), n_words.tolist(), strict=True)
        ):
            if position not in of_position:
                word = fragments[token]
                of_position[position] = bool(word) and word not in [term.text for term in of_words[k : k + n_own]]
                if of_position[position]:
                    numbers.append(number_of.setdefault(word, len(number_of)))
                    places.append(np.array([((first + row) << SEQUENCE_BITS) + FRAGMENT + position + 1]))
            is_fragment[i] = of_position[position]
        peaks.append(here[is_fragment])
        peak_places.append(((first + row) << SEQUENCE_BITS) + FRAGMENT + positions[here[is_fragment]].astype(np.int64))
    all_places = np.concatenate([np.empty(0, np.int64), *places])
    order = np.lexsort([all_places, np.array(numbers, np.int64)])
    sorted_places = all_places[order]
    cuts = np.cumsum(np.bincount(np.array(numbers, np.int64), minlength=len(number_of)))[:-1]
    of_term = dict(zip(number_of, np.split(sorted_places, cuts), strict=True)) if number_of else {}
    none = np.empty(0, np.int64)
    return of_term, np.concatenate([none, *peaks]), np.concatenate([none, *peak_places])


def packed(places: np.ndarray) -> bytes:
    """Ascending places, in few bytes."""
    return zlib.compress(np.diff(places, prepend=0).astype("<i8").tobytes())


def unpacked(blobs: Sequence[bytes]) -> np.ndarray:
    """[n] int64 the places of several `packed` blobs, one after the other.

    Raises:
        ValueError: a blob is damaged.
    """
    try:
        parts = [np.cumsum(np.frombuffer(zlib.decompress(blob), "<i8")) for blob in blobs]
    except zlib.error as error:
        raise ValueError(f"the index of words: {error}") from error
    return np.concatenate([np.empty(0, np.int64), *parts])


def rows_at(peak_places: np.ndarray, places: np.ndarray) -> np.ndarray:
    """[n] which rows of the ascending `peak_places` are at one of the places."""
    low = np.searchsorted(peak_places, places, side="left")
    return _ranges(low, np.searchsorted(peak_places, places, side="right") - low)


def rows_of_places(of_term: dict[str, np.ndarray], shard: int) -> Iterator[tuple[str, int, bytes]]:
    """The rows of the table `words`, in its order."""
    for term in sorted(of_term):
        yield term, shard, packed(of_term[term])


def _overlapping(found: Sequence[Term], start: np.ndarray, stop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For stretches of a text: how many terms end before each, and how many it has a character of."""
    before = np.searchsorted([term.stop for term in found], start, side="right")
    return before, np.maximum(np.searchsorted([term.start for term in found], stop, side="left") - before, 0)


def _ranges(low: np.ndarray, count: np.ndarray) -> np.ndarray:
    """low[0], low[0] + 1, ... count[0] of them, then those of the next."""
    before = np.cumsum(count) - count
    return np.repeat(low - before, count) + np.arange(int(count.sum()))


class _Fragments(dict[int, str]):
    """The word that a token has, if it has just one; else ""."""

    def __init__(self, table: Sequence[bytes]) -> None:
        self._table = table

    def __missing__(self, token: int) -> str:
        own = words(self._table[token].decode()) if _is_whole(self._table[token]) else []
        self[token] = own[0] if len(own) == 1 else ""
        return self[token]


def _is_whole(own: bytes) -> bool:
    try:
        own.decode()
    except UnicodeDecodeError:
        return False
    return True


def _straddled(tokens: Sequence[int], table: Sequence[bytes]) -> tuple[str, np.ndarray, np.ndarray]:
    """A text, and the first character of each token and the one after its last; characters may straddle tokens."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    text, start, stop = "", [], []
    for token in tokens:
        start.append(len(text))
        text += decoder.decode(table[token])
        stop.append(len(text) + bool(decoder.getstate()[0]))
    text += decoder.decode(b"", final=True)
    return text, np.array(start, np.int64), np.array(stop, np.int64)
