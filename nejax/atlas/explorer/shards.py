"""The atlas as the explorer's pages read it: JSON files, one for each neuron, measure and block of sequences.

The server, the static site and the description in `openapi.py` all use these shapes.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from nejax.atlas.explorer.columns import columns_of
from nejax.atlas.explorer.token_texts import TokenTexts
from nejax.atlas.explorer.windows import up_to_peak, with_text
from nejax.atlas.files import AtlasFiles, central_places
from nejax.atlas.search import find, peak_matches
from nejax.errors import UserError
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
        meta = files.meta
        # Indexing a plain view of a memory map takes a third of the time.
        self._arrays = {name: array.view(np.ndarray) for name, array in files.arrays.items()}
        self.n_layers: int = meta["n_layers"]
        self.d_mlp: int = meta["d_mlp"]
        self.n_sequences = len(self._arrays["tokens"])
        self.n_blocks = -(-self.n_sequences // BLOCK)
        self.columns = columns_of(has_census=bool(meta["band_edges"]))
        """The measures of this atlas's neurons."""
        self.fingerprint = hashlib.blake2b(json.dumps(meta, sort_keys=True).encode(), digest_size=16).hexdigest()
        """Of what is known of the atlas as a whole; the same for a copy of it."""
        self._lengths = self._arrays["sequences"][:, 0].astype(np.int64)
        self._texts = TokenTexts(files.token_bytes(), self._arrays["tokens"], self._lengths)
        first = files.rows("SELECT first_feature FROM neurons ORDER BY id")
        self._first_feature = np.fromiter((feature for (feature,) in first), np.int64, len(first))

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
            "seq_len": self._arrays["tokens"].shape[1],
            "window_before": meta["window_before"],
            "window_after": meta["window_after"],
            "n_similar": meta["n_similar"],
            "has_importance": self._files.meta["importance_window"] is not None,
            "examples_per_feature": examples_per_feature,
            "columns": [column._asdict() for column in self.columns],
            **left_out(manifest["stages"].get("tokens", {}))._asdict(),
            "manifest": _finite(manifest),
        }

    def column(self, name: str) -> list[float | int | None]:
        """`columns/NAME.json`: a measure of all neurons, by layer, then neuron.

        Raises:
            NoShard: there is no such measure.
        """
        if name not in {column.name for column in self.columns}:
            raise NoShard(f"there is no measure {name[:100]!r}")
        return _numbers(value for (value,) in self._files.rows(f"SELECT {name} FROM neurons ORDER BY id"))

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
        id_ = layer * self.d_mlp + neuron
        with self._reading():
            (row,) = self._files.rows("SELECT * FROM neurons WHERE id = ?", id_)
            names = [column.name for column in self.columns]
            measures = dict(zip(names, _numbers(row[name] for name in names), strict=True))
            features = self._features(row)
            centrals = [feature["central"] for feature in features]
            examples = self._examples(row, centrals, examples_per_feature)
            activations = [example["activation"] for example in examples["examples"]]
            return {
                "layer": layer,
                "neuron": neuron,
                "measures": measures,
                "features": features,
                **examples,
                "merges": self._merges(id_, row["n_examples"], row["n_merges"]),
                "height": measures["height"],
                "coordinates_share": measures["coordinates_share"],
                "histogram": self._histogram(id_, row),
                "bands": self._bands(id_),
                "sampled": [min(activations), max(activations)] if activations else None,
            }

    def sequences(self, block: int) -> Json:
        """`sequences/BLOCK.json`: sequences and all examples in them.

        Raises:
            NoShard: there is no such block.
        """
        _require("block", block, self.n_blocks)
        first, end = block * BLOCK, min((block + 1) * BLOCK, self.n_sequences)
        with self._reading():
            examples: list[list[list]] = [[] for _ in range(first, end)]
            for sequence, position, id_, feature, activation in self._files.rows(
                "SELECT sequence, position, neuron_id, feature_id, activation FROM examples "
                "WHERE sequence >= ? AND sequence < ? ORDER BY sequence, position, neuron_id",
                first,
                end,
            ):
                own = feature - int(self._first_feature[id_])
                examples[sequence - first].append([position, *divmod(id_, self.d_mlp), own, _rounded(activation)])
            length = self._lengths[first:end]
            found = self._texts.stretches(np.arange(first, end), np.zeros_like(length), length)
            facts = self._arrays["sequences"][first:end]
            documents, offsets = self._documents(facts[:, 1]), facts[:, 2].tolist()
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

    def _features(self, row: Any) -> list[Json]:
        first, end = row["first_feature"], row["first_feature"] + row["n_features"]
        rows = self._files.rows(
            "SELECT n_examples, cohesion, max_activation, frequency, coverage, peak_tokens, central_example "
            "FROM features WHERE id >= ? AND id < ? ORDER BY id",
            first,
            end,
        )
        return [
            {
                "n_examples": n,
                "cohesion": _rounded(cohesion),
                "max_activation": _rounded(max_activation),
                "frequency": _rounded(frequency),
                "coverage": _rounded(coverage),
                "peak_tokens": json.loads(peak_tokens),
                "central": central - row["first_example"],
                "similar": similar,
            }
            for (n, cohesion, max_activation, frequency, coverage, peak_tokens, central), similar in zip(
                rows, self._similar(first, end), strict=True
            )
        ]

    def _similar(self, first: int, end: int) -> list[list]:
        """The features similar to each of some: [layer, neuron, feature, similarity, is its central example the
        same]."""
        ids = self._arrays["similar"][first:end].astype(np.int64)
        similarity = self._arrays["similarity"][first:end].tolist()
        # Ids ascend with the neurons, so a feature is of the last neuron whose features begin at it or before it.
        neuron = np.searchsorted(self._first_feature, ids, side="right") - 1
        layer, index = np.divmod(neuron, self.d_mlp)
        places = np.stack([layer, index, ids - self._first_feature[neuron]], axis=-1).tolist()
        central = central_places(self._files, [*range(first, end), *ids[ids >= 0].tolist()])
        return [
            [
                [*place, _rounded(cosine), central[id_] == central[own]]
                for id_, place, cosine in zip(*of_feature, strict=True)
                if id_ >= 0
            ]
            for own, of_feature in enumerate(zip(ids.tolist(), places, similarity, strict=True), first)
        ]

    def _examples(self, row: Any, centrals: list[int], examples_per_feature: int | None) -> Json:
        """The examples, with the tokens and the step of the activations that their windows are written in."""
        first, n = row["first_example"], row["n_examples"]
        rows = self._files.rows(
            "SELECT sequence, position, activation, feature_id, cohesion FROM examples WHERE id >= ? AND id < ? "
            "ORDER BY id",
            first,
            first + n,
        )
        sequence = np.array([values[0] for values in rows], np.int64)
        position = np.array([values[1] for values in rows], np.int64)
        length = self._lengths[sequence]
        documents = self._documents(self._arrays["sequences"][sequence, 1])
        x_y = self._arrays["coordinates"][first : first + n].tolist()
        examples: list[Json] = [
            {
                "sequence": values[0],
                "position": values[1],
                "activation": _rounded(values[2]),
                "feature": values[3] - row["first_feature"],
                "cohesion": _rounded(values[4]),
                "document": document,
                "length": n_tokens,
                "x": _rounded(x),
                "y": _rounded(y),
            }
            for values, document, n_tokens, (x, y) in zip(rows, documents, length.tolist(), x_y, strict=True)
        ]
        chosen = np.array(with_text([example["feature"] for example in examples], centrals, examples_per_feature), int)
        tokens, step = self._add_windows(
            [examples[i] for i in chosen.tolist()],
            first + chosen,
            sequence[chosen],
            position[chosen],
        )
        return {"tokens": tokens, "activation_step": step, "examples": examples}

    def _add_windows(
        self, examples: list[Json], ids: np.ndarray, sequence: np.ndarray, position: np.ndarray
    ) -> tuple[list[tuple[int, str]], float]:
        """Give examples their text; return its tokens and the step of the activations."""
        window, importance = self._arrays["window"][ids], self._arrays["importance"][ids]
        before, after = self._files.meta["window_before"], self._files.meta["window_after"]
        length = self._lengths[sequence]
        start, stop = np.maximum(position - before, 0), np.minimum(position + after + 1, length)
        found = self._texts.stretches(sequence, start, stop)
        place = position[:, None] + np.arange(-before, after + 1)
        is_inside = (place >= 0) & (place < length[:, None])
        inside = window[is_inside].astype(np.float64)
        if np.isnan(inside).any():
            raise ValueError("window.npy has gaps")
        inside = np.clip(inside, -_LARGEST, _LARGEST)
        step = _rounded(float(np.abs(inside).max(initial=0)) / _LEVELS) or 1.0
        levels = found.cut(np.rint(inside / step).astype(np.int64))
        for example, own, tokens, activations in zip(
            examples, start.tolist(), found.cut(found.numbers), levels, strict=True
        ):
            example |= {"start": own, "tokens": tokens, "activations": activations}
        of_tokens = found.cut(up_to_peak(importance, before, after)[is_inside])
        for i in np.flatnonzero(np.isfinite(importance).any(axis=1)).tolist():
            examples[i]["importance"] = _numbers(of_tokens[i])
        return found.tokens, step

    def _merges(self, id_: int, n_examples: int, n_merges: int) -> list[list]:
        """The dendrogram, with clusters numbered from `n_examples` on. (The array has room for more leaves.)"""
        merges = self._arrays["merges"][id_]
        n_leaves = len(merges) + 1
        return [
            [*(int(a if a < n_leaves else a - n_leaves + n_examples) for a in pair), _rounded(height), int(size)]
            for *pair, height, size in merges[:n_merges].tolist()
        ]

    def _histogram(self, id_: int, row: Any) -> Json:
        return {
            "low": _rounded(row["lowest_activation"]),
            "high": _rounded(row["max_activation"]),
            "counts": self._arrays["histogram"][id_].tolist(),
            "n_tokens": self._files.meta["n_sampled_tokens"],
        }

    def _bands(self, id_: int) -> Json | None:
        edges = self._files.meta["band_edges"]
        if not edges:
            return None
        n_tokens, distance = self._arrays["band_counts"][id_], self._arrays["bands"][id_]
        return {"edges": edges, "n_tokens": n_tokens.tolist(), "mean_distance": _numbers(distance.tolist())}

    def _documents(self, ids: np.ndarray) -> list[str]:
        """Names of documents."""
        listed = ids.tolist()
        different = set(listed)
        marks = ",".join("?" * len(different))
        names = dict(map(tuple, self._files.rows(f"SELECT id, name FROM documents WHERE id IN ({marks})", *different)))
        return [names[id_] for id_ in listed]

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """What does not fit together is damaged."""
        try:
            yield
        except UserError:
            raise
        except (ValueError, LookupError, TypeError) as error:
            raise self._files.damaged(error) from error


def _require(what: str, value: int, n: int) -> None:
    if not 0 <= value < n:
        raise NoShard(f"there is no {what} {value}; expected 0 to {n - 1}")


def _rounded(value: float | None) -> float | None:
    """A number that JSON can hold, with few digits."""
    return float(f"{value:.{DIGITS}g}") if value is not None and math.isfinite(value) else None


def _numbers(values: Iterable[float | int | None]) -> list[float | int | None]:
    return [value if isinstance(value, int) else _rounded(value) for value in values]


def _finite(value: Any) -> Any:
    """A JSON value in which numbers that JSON cannot hold are null."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
