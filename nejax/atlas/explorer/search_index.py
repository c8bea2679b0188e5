"""The search of a static site: the atlas's own index of words and peaks, as files by the beginning of a word."""

from collections.abc import Iterator
from itertools import groupby, pairwise
from operator import itemgetter
from typing import Any

from nejax.atlas.explorer.shards import MOST_PEAKS
from nejax.atlas.files import AtlasFiles

_AFTER_ALL = "\U0010ffff" * 3


def bucket(word: str) -> str:
    """The file that a word is in: its first two code points in hexadecimal, "74-68" for "the"."""
    return "-".join(f"{ord(character):x}" for character in word[:2])


def search_shards(files: AtlasFiles) -> Iterator[tuple[str, dict[str, list]]]:
    """The name and content of every file, made one after the other: no more than one is held at once.

    `search/words/BUCKET`: {word: [sequence, [which of the sequence's words it is, ...], sequence, [...], ...]}.
    `search/peaks/BUCKET`: {word: [[layer, neuron, feature, examples that peak at it, examples of the feature], ...]},
    for each word the features that a search on the server finds, in the same order.
    """
    files.rows("CREATE VIRTUAL TABLE IF NOT EXISTS temp.word_known USING fts5vocab(main, words, row)")
    files.rows("CREATE VIRTUAL TABLE IF NOT EXISTS temp.word_found USING fts5vocab(main, words, instance)")
    found = "SELECT term, doc, offset FROM temp.word_found WHERE term >= ? AND term < ?"
    for name, rows in _buckets(files, "SELECT DISTINCT substr(term, 1, 2) FROM temp.word_known", found):
        yield f"search/words/{name}", {word: _by_sequence(own) for word, own in groupby(rows, itemgetter(0))}
    found = (
        "SELECT p.word, n.layer, n.neuron, f.feature, p.n, f.n_examples FROM peaks AS p "
        "JOIN features AS f ON f.id = p.feature_id JOIN neurons AS n ON n.id = f.neuron_id "
        "WHERE p.word >= ? AND p.word < ? ORDER BY p.word, p.n DESC, p.feature_id"
    )
    for name, rows in _buckets(files, "SELECT DISTINCT substr(word, 1, 2) FROM peaks", found):
        peaks = {word: [list(row[1:]) for row in own][:MOST_PEAKS] for word, own in groupby(rows, itemgetter(0))}
        yield f"search/peaks/{name}", peaks


def _buckets(files: AtlasFiles, starts: str, found: str) -> Iterator[tuple[str, list[Any]]]:
    """The rows of every bucket. In order, the words of a bucket stand together, and so do the buckets themselves."""
    ordered = sorted(start for (start,) in files.rows(starts))
    for start, end in pairwise([*ordered, _AFTER_ALL]):
        yield bucket(start), files.rows(found, start, end)


def _by_sequence(rows: Iterator[Any]) -> list[Any]:
    listed: list[Any] = []
    for sequence, own in groupby(rows, itemgetter(1)):
        listed += [sequence, [ordinal for _, _, ordinal in own]]
    return listed
