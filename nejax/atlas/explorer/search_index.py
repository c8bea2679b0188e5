"""The search of a static site: the atlas's own index of words and of peaks, as files by the beginning of a word."""

from collections.abc import Iterator
from itertools import groupby, pairwise
from operator import itemgetter
from typing import Any

import numpy as np

from nejax.atlas.files import AtlasFiles
from nejax.atlas.word_index import FRAGMENT, GAP, SEQUENCE_BITS, SIGN, rows_at, unpacked

_AFTER_ALL = "\U0010ffff" * 3


def bucket(word: str) -> str:
    """The file that a word is in: its first two code points in hexadecimal, "74-68" for "the"."""
    return "-".join(f"{ord(character):x}" for character in word[:2])


def search_shards(files: AtlasFiles) -> Iterator[tuple[str, dict[str, list]]]:
    """The name and content of every file, made one at a time, so that only one is in memory.

    `search/words/BUCKET`: {word: [sequence, [where in it, see `nejax.atlas.terms.Term.at`, ...], sequence, ...]}.
    `search/peaks/BUCKET`: {word: [[layer, neuron, feature, examples of the feature, sequence, where, sequence, where,
    ...], ...]}: the features with examples that peak at it, and where they do; -1 - where: in the gap after a word;
    2^29 or more: at a token that is a part of a word.
    """
    features = np.array(files.rows("SELECT neuron_id, feature, n_examples FROM features ORDER BY id")).reshape(-1, 3)
    places_of_features = np.column_stack([*np.divmod(features[:, 0], files.meta["d_mlp"]), features[:, 1:]])
    peak_places, peak_features = (files.arrays[name].view(np.ndarray) for name in ("peak_places", "peak_features"))
    starts = sorted({start for (start,) in files.rows("SELECT DISTINCT substr(word, 1, 2) FROM words")})
    for start, end in pairwise([*starts, _AFTER_ALL]):
        # In order, the words of a bucket stand together, and so do the buckets themselves.
        rows = files.rows(
            "SELECT word, places FROM words WHERE word >= ? AND word < ? ORDER BY word, shard", start, end
        )
        words: dict[str, list] = {}
        peaks: dict[str, list] = {}
        for word, own in groupby(rows, itemgetter(0)):
            places = unpacked([blob for _, blob in own])
            in_text = places[(places & FRAGMENT) == 0]
            if len(in_text):
                words[word] = [item for pair in _by_sequence(in_text) for item in pair]
            behind = np.empty(0, np.int64) if places[0] & SIGN else places + GAP
            at = np.concatenate([rows_at(peak_places, places), rows_at(peak_places, behind)])
            if len(at):
                order = at[np.argsort(peak_features[at], kind="stable")]
                peaks[word] = _by_feature(peak_features[order], peak_places[order], places_of_features)
        if words:
            yield f"search/words/{bucket(start)}", words
        if peaks:
            yield f"search/peaks/{bucket(start)}", peaks


def _by_sequence(places: np.ndarray) -> Iterator[tuple[int, list[int]]]:
    sequence = places >> SEQUENCE_BITS
    known, first = np.unique(sequence, return_index=True)
    for number, own in zip(known.tolist(), np.split(places & (SIGN - 1), first[1:]), strict=True):
        yield number, own.tolist()


def _by_feature(feature: np.ndarray, places: np.ndarray, places_of_features: np.ndarray) -> list[list[Any]]:
    known, first = np.unique(feature, return_index=True)
    where = places & (SIGN - 1)
    where = np.where((places & SIGN == 0) & (where >= GAP), GAP - 1 - where, where)
    pairs = np.stack([places >> SEQUENCE_BITS, where], axis=1)
    return [
        [*place, *own.ravel().tolist()]
        for place, own in zip(places_of_features[known].tolist(), np.split(pairs, first[1:]), strict=True)
    ]
