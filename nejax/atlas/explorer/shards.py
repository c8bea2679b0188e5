"""The atlas as the explorer's pages read it: JSON files, one for each neuron, measure and block of sequences.

The server, the static site and the description in `openapi.py` all use these shapes.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any

import numpy as np

from nejax.atlas.explorer.columns import offered
from nejax.atlas.files import AtlasFiles
from nejax.atlas.plain import plain
from nejax.atlas.reader import Reader, Similar
from nejax.atlas.rows import ExampleRow, FeatureRow, NeuronRow, json_columns
from nejax.atlas.search import find, peak_matches
from nejax.atlas.windows import Windows
from nejax.pipeline.corpus.left_out import left_out

VERSION = 1
"""Of the shapes; part of every shard's address."""

BLOCK = 16
"""Sequences in a shard of sequences."""

PAGE = 20
"""Sequences in an answer to a search."""

PEAKS_PAGE = 50
"""Features in an answer to a search."""

DIGITS = 5
"""Significant digits of every number that is not whole."""

_FORM = f".{DIGITS}g"

_LEVELS = 4000
"""Steps from 0 to a neuron's largest activation in its windows, which are stored with 11 bits."""

_LARGEST = float(np.finfo(np.float16).max)  # what is larger is stored as infinity

Json = dict[str, Any]


def to_json(shard: Any) -> bytes:
    """A shard as it is sent and stored: ASCII, so whatever the corpus holds is valid."""
    return json.dumps(shard, separators=(",", ":"), allow_nan=False).encode()


class NoShard(LookupError):
    """There is no such shard; the message says which there are."""


class Shards:
    """Every shard of an atlas, made when it is asked for. Can be used from several threads.

    Args:
        files: of the atlas. They are left open.

    Raises:
        UserError: a file of the atlas is damaged. Every method may raise it.
    """

    def __init__(self, files: AtlasFiles):
        self._files = files
        self._reader = reader = Reader(files)
        meta = files.meta
        self.n_layers: int = meta["n_layers"]
        self.d_mlp: int = meta["d_mlp"]
        self.n_sequences = len(reader.lengths)
        self.n_blocks = -(-self.n_sequences // BLOCK)
        self.columns = offered(has_census=reader.has_census)
        """The measures of this atlas's neurons."""
        self.fingerprint = hashlib.blake2b(json.dumps(meta, sort_keys=True).encode(), digest_size=16).hexdigest()
        """Of what is known of the atlas as a whole; the same for a copy of it."""
        self._texts = reader.texts  # at once: the first answer is as quick as the others

    def atlas(
        self, *, search: str = "server", compressed: bool = False, examples_per_feature: int | None = None
    ) -> Json:
        """`atlas.json`: what all pages need.

        Args:
            search: "server" if there is one to search, "index" if the pages search files.
            compressed: whether all other shards are stored as `NAME.json.gz`.
            examples_per_feature: as for `neuron`, the same for all.
        """
        meta = self._files.meta
        manifest = meta["manifest"]
        return {
            "version": VERSION,
            "fingerprint": self.fingerprint,
            "compressed": compressed,
            "search": search,
            "model": manifest["model"]["name"],
            "corpus": manifest["settings"]["corpus"],
            "n_layers": self.n_layers,
            "d_mlp": self.d_mlp,
            "sides": meta["sides"],
            "d_model": meta["d_model"],
            "n_neurons": self.n_layers * self.d_mlp,
            "n_features": meta["n_features"],
            "n_examples": meta["n_examples"],
            "n_sequences": self.n_sequences,
            "seq_len": self._reader.arrays["tokens"].shape[1],
            "window_before": meta["window_before"],
            "window_after": meta["window_after"],
            "n_similar": meta["n_similar"],
            "has_importance": self._files.meta["importance_window"] is not None,
            "examples_per_feature": examples_per_feature,
            "columns": [column._asdict() for column in self.columns],
            **left_out(manifest["stages"].get("tokens", {}))._asdict(),
            "manifest": plain(manifest),
        }

    def column(self, name: str) -> list[float | int | None]:
        """`columns/NAME.json`: a measure of all neurons, by layer, then neuron.

        Raises:
            NoShard: there is no such measure.
        """
        if name not in {column.name for column in self.columns}:
            raise NoShard(f"there is no measure {name[:100]!r}")
        return _numbers(self._reader.measure(name))

    def neuron(self, layer: int, neuron: int, *, examples_per_feature: int | None = None) -> Json:
        """`neurons/LAYER/NEURON.json`.

        Args:
            layer: index of the layer.
            neuron: index in the layer.
            examples_per_feature: only so many of a feature's examples have their text: its central one, and the
                strongest others. None: all have.

        Raises:
            NoShard: there is no such neuron.
        """
        _require("layer", layer, self.n_layers)
        _require("neuron", neuron, self.d_mlp)
        reader = self._reader
        with self._files.reading():
            row = reader.neuron(layer, neuron)
            names = [column.name for column in self.columns]
            measures = dict(zip(names, _numbers(getattr(row, name) for name in names), strict=True))
            centrals = reader.centrals(row)
            examples = self._examples(row, centrals, examples_per_feature)
            activations = [example["activation"] for example in examples["examples"]]
            return {
                "layer": layer,
                "neuron": neuron,
                "measures": measures,
                "features": self._features(row, centrals),
                **examples,
                "merges": self._merges(row),
                "height": measures["height"],
                "coordinates_share": measures["coordinates_share"],
                "histogram": self._histogram(row),
                "bands": self._bands(row) if reader.has_census else None,
                "sampled": [min(activations), max(activations)] if activations else None,
            }

    def sequences(self, block: int) -> Json:
        """`sequences/BLOCK.json`: sequences and all examples in them.

        Raises:
            NoShard: there is no such block.
        """
        _require("block", block, self.n_blocks)
        first, end = block * BLOCK, min((block + 1) * BLOCK, self.n_sequences)
        reader = self._reader
        with self._files.reading():
            examples: list[list[list]] = [[] for _ in range(first, end)]
            for sequence, *example in reader.examples_in(first, end):
                example[-1] = _rounded(example[-1])
                examples[sequence - first].append(example)
            length = reader.lengths[first:end]
            found = self._texts.stretches(np.arange(first, end), np.zeros_like(length), length)
            documents = reader.documents(range(first, end))
            offsets = reader.arrays["sequences"][first:end, 2].tolist()
            listed = zip(documents, offsets, found.cut(found.numbers), examples, strict=True)
            return {
                "first": first,
                "tokens": found.tokens,
                "sequences": [
                    {"document": document, "offset": offset, "tokens": tokens, "examples": held}
                    for document, offset, tokens, held in listed
                ],
            }

    def search(self, query: str, offset: int = 0, peaks_offset: int = 0) -> Json:
        """`search?q=QUERY&offset=OFFSET&peaks_offset=OFFSET`: see `nejax.atlas.search.find`.

        Raises:
            UserError: the query is too long, too.
        """
        found = find(self._files, query)
        peaks = peak_matches(self._files, found, peaks_offset, PEAKS_PAGE)
        return {
            "query": query,
            "n_sequences": len(found.sequences),
            "sequences": found.sequences[offset : offset + PAGE].tolist(),
            "n_peaks": len(found.features),
            "peaks": [match[:5] for match in peaks],
        }

    def _features(self, neuron: NeuronRow, centrals: list[int]) -> list[Json]:
        rows = _json(self._reader.features(neuron))
        return [
            row | {"central": central, "similar": _similar(others)}
            for row, central, others in zip(rows, centrals, self._reader.similar(neuron), strict=True)
        ]

    def _examples(self, neuron: NeuronRow, centrals: list[int], examples_per_feature: int | None) -> Json:
        """The examples, with the tokens and the step of the activations that their windows are written in."""
        reader = self._reader
        rows = reader.examples(neuron)
        sequences = [row.sequence for row in rows]
        documents, lengths = reader.documents(sequences), reader.lengths[sequences].tolist()
        examples = _json(rows)
        more = zip(examples, documents, lengths, reader.coordinates(neuron), strict=True)
        for example, document, n_tokens, (x, y) in more:
            example |= {"document": document, "length": n_tokens, "x": _rounded(x), "y": _rounded(y)}
        chosen = with_text([row.feature for row in rows], centrals, examples_per_feature)
        windows = reader.windows(neuron.first_example + np.array(chosen, int), [rows[i] for i in chosen])
        step = _add_windows([examples[i] for i in chosen], windows)
        return {"tokens": windows.texts.tokens, "activation_step": step, "examples": examples}

    def _merges(self, neuron: NeuronRow) -> list[list]:
        """The dendrogram, with clusters numbered from `n_examples` on. (The array has room for more leaves.)"""
        merges = self._reader.merges(neuron)
        n_leaves = len(merges) + 1
        return [
            [*(int(a if a < n_leaves else a - n_leaves + neuron.n_examples) for a in pair), _rounded(height), int(size)]
            for *pair, height, size in merges[: neuron.n_merges].tolist()
        ]

    def _histogram(self, neuron: NeuronRow) -> Json:
        found = self._reader.histogram(neuron)
        low, high = _rounded(neuron.lowest_activation), _rounded(neuron.max_activation)
        return {"low": low, "high": high, "counts": found.counts.tolist(), "n_tokens": found.n_tokens}

    def _bands(self, neuron: NeuronRow) -> Json:
        found = self._reader.bands(neuron)
        distances = _numbers(found.mean_distance.tolist())
        return {"edges": found.edges.tolist(), "n_tokens": found.n_tokens.tolist(), "mean_distance": distances}


def with_text(features: list[int], centrals: list[int], n: int | None) -> list[int]:
    """Which examples have their text: of each feature the central one and the first others, `n` in all."""
    if n is None:
        return list(range(len(features)))
    left = [n - 1] * len(centrals)
    kept = []
    for i, feature in enumerate(features):
        is_central = centrals[feature] == i
        if is_central or left[feature] > 0:
            kept.append(i)
            left[feature] -= not is_central
    return kept


def _add_windows(examples: list[Json], windows: Windows) -> float:
    """Give examples their text; return the step of the activations."""
    found = windows.texts
    activations = np.clip(windows.activations.astype(np.float64), -_LARGEST, _LARGEST)
    step = _rounded(float(np.abs(activations).max(initial=0)) / _LEVELS) or 1.0
    levels = found.cut(np.rint(activations / step).astype(np.int64))
    for example, start, tokens, own in zip(
        examples, windows.start.tolist(), found.cut(found.numbers), levels, strict=True
    ):
        example |= {"start": start, "tokens": tokens, "activations": own}
    if windows.importance is not None:
        is_known = found.cut(np.isfinite(windows.importance))
        for example, known, own in zip(examples, is_known, found.cut(windows.importance), strict=True):
            if any(known):
                example["importance"] = _numbers(own)
    return step


def _similar(others: list[Similar]) -> list[list]:
    return [
        [place.layer, place.unit, place.feature, _rounded(similarity), shares_example]
        for place, similarity, shares_example in others
    ]


def _json(rows: Sequence[FeatureRow] | Sequence[ExampleRow]) -> list[Json]:
    if not rows:
        return []
    columns = json_columns(type(rows[0]))
    values = (list(map(attrgetter(name), rows)) for name in columns)
    read = [map(_rounded, own) if type_ is float else own for own, type_ in zip(values, columns.values(), strict=True)]
    return [dict(zip(columns, own, strict=True)) for own in zip(*read, strict=True)]


def _require(what: str, value: int, n: int) -> None:
    if not 0 <= value < n:
        raise NoShard(f"there is no {what} {value}; expected 0 to {n - 1}")


def _rounded(value: float | None) -> float | None:
    """A number that JSON can hold, with few digits."""
    return float(format(value, _FORM)) if value is not None and math.isfinite(value) else None


def _numbers(values: Iterable[float | int | None]) -> list[float | int | None]:
    return [value if isinstance(value, int) else _rounded(value) for value in values]
