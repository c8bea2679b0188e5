"""A finished atlas, opened: every neuron's measures, features and examples, read when they are asked for."""

import json
import math
import operator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nejax.atlas.entries import Bands, Example, Feature, Histogram, SimilarFeature, lacks
from nejax.atlas.files import AtlasFiles, central_places, find_atlas
from nejax.atlas.neuron import Neuron
from nejax.atlas.schema import TOKENIZER
from nejax.atlas.search import SearchResult, find, peak_matches
from nejax.atlas.texts import text_at
from nejax.atlas.units import POSITIVE, Units
from nejax.errors import UserError
from nejax.models.formats.tokens import decode_pieces

if TYPE_CHECKING:
    from nejax.neuron.clustering.average_linkage import Linkage


def open_atlas(directory: Path | str) -> "Atlas":
    """Open an atlas.

    Args:
        directory: the atlas's folder, wherever it was copied to, or the run directory that holds it.

    Returns:
        The atlas. It can be used from several threads.

    Raises:
        UserError: there is no such directory, no atlas in it (its run is not finished, say), or the atlas is damaged or
            of another format version.

    Example:
        >>> atlas = nejax.open_atlas("runs/demo")
        >>> atlas.neuron(0, 3).index
        3
    """
    return Atlas(find_atlas(directory))


class Atlas:
    """Everything found for one model and one corpus; see `open_atlas`.

    Args:
        path: the atlas's own folder.

    Example:
        >>> atlas = nejax.open_atlas("runs/demo")
        >>> len(atlas.neurons_table()["layer"]) == atlas.n_layers * atlas.d_mlp
        True
    """

    def __init__(self, path: Path):
        self._files = AtlasFiles(path)
        self.path = self._files.path
        """The atlas's own folder."""
        meta = self._files.meta
        self.manifest: dict[str, Any] = meta["manifest"]
        """How it was made: settings, versions, fingerprints, counts."""
        self.n_layers: int = meta["n_layers"]
        self.d_mlp: int = meta["d_mlp"]
        """Neurons in a layer; with two sides, units in a layer: twice as many."""
        self.sides: int = meta["sides"]
        """2 where neurons are gated and have extremes of both signs: each is then two units, its positive and its
        negative side, with features of their own, and everything here counts these. Unit `j + d_mlp / 2` of a layer is
        the negative side of neuron `j`: that of its activation times -1. Otherwise 1."""
        self.units = Units(self.d_mlp, self.sides)
        """Which neuron, and which side of it, each of a layer's `d_mlp` units is."""
        self.d_model: int = meta["d_model"]
        self.window_before: int = meta["window_before"]
        """Most tokens before the peak in an example's window."""
        self.window_after: int = meta["window_after"]
        """Most tokens after the peak."""

    def __reduce__(self) -> tuple[type, tuple[Path]]:
        """Pickled as its path, and opened again there."""
        return type(self), (self.path,)

    def close(self) -> None:
        """Close the files. Nothing can be read after that."""
        self._files.close()

    @property
    def n_neurons(self) -> int:
        """Of all layers together; with two sides, each counts as two."""
        return self.n_layers * self.d_mlp

    @property
    def n_sequences(self) -> int:
        """How many sequences the corpus was cut into."""
        return len(self._files.arrays["tokens"])

    def neuron(self, layer: int, index: int, side: str = POSITIVE) -> Neuron:
        """One neuron, or one side of it.

        Args:
            layer: index of the layer.
            index: of the neuron in the layer. With two sides, `d_mlp` / 2 and above are the units of negative sides, as
                in tables and addresses.
            side: "positive" or "negative", of neurons with two sides.

        Raises:
            UserError: there is no such layer, or no such neuron or side in it.
        """
        layer = _in_range("layer", layer, self.n_layers)
        index = self.units.unit(operator.index(index), side)
        (row,) = self._files.rows("SELECT * FROM neurons WHERE id = ?", layer * self.d_mlp + index)
        measures: dict[str, Any] = {name: math.nan if row[name] is None else row[name] for name in row.keys()}  # noqa: SIM118
        del measures["id"], measures["neuron"]
        return Neuron(index=index, **measures, _atlas=self)

    def neurons_table(self) -> dict[str, np.ndarray]:
        """All neurons' measures, for `pandas.DataFrame`.

        Returns:
            One array a column of the table `neurons` (see `nejax.atlas.schema`), its rows by layer, then neuron:
            int64, or float64 with NaN where a value has nothing behind it. With two sides, a row a side: `neuron` is
            the index of the unit, see `sides`.
        """
        return self._files.table("neurons")

    def features_table(self) -> dict[str, np.ndarray]:
        """All features of all neurons, for `pandas.DataFrame`.

        Returns:
            One array a column of the table `features`, and its neuron's `layer` and `neuron`, by layer, neuron and
            feature. `peak_tokens` are lists of texts, the most frequent first, and `peak_counts` how many examples
            have each. Arrow and Parquet take every column as it is.
        """
        table = self._files.table("features")
        layer, neuron = np.divmod(table["neuron_id"], self.d_mlp)
        listed = json.loads(f"[{','.join(table['peak_tokens'])}]")  # at once: there are hundreds of thousands
        first = {"id": table["id"], "neuron_id": table["neuron_id"], "layer": layer, "neuron": neuron}
        texts, counts = (np.fromiter(([pair[i] for pair in pairs] for pairs in listed), object) for i in (0, 1))
        return {**first, **table, "peak_tokens": texts, "peak_counts": counts}

    def bands_table(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """How far apart the embeddings of every neuron are in each band of its activation, see `Neuron.bands`.

        Returns:
            The edges [n_bands + 1], fractions of a neuron's maximum; mean distances [n_layers, d_mlp, n_bands], NaN
            for fewer than two tokens; how many tokens there are, of the same shape.

        Raises:
            UserError: the atlas was built without a census.
        """
        edges, shape = self._band_edges(), (self.n_layers, self.d_mlp, -1)
        distances, counts = (np.array(self._files.arrays[name]).reshape(shape) for name in ("bands", "band_counts"))
        return edges, distances, counts

    def tokens(self, sequence: int) -> np.ndarray:
        """The tokens of a sequence, [length] int32, BOS first; padding is left out.

        Raises:
            UserError: there is no such sequence.
        """
        sequence = _in_range("sequence", sequence, self.n_sequences)
        return self._files.arrays["tokens"][sequence, : self._files.arrays["sequences"][sequence, 0]].astype(np.int32)

    def pieces(self, sequence: int) -> list[str]:
        """The text of each token of a sequence.

        The first is BOS, which shows as its name ("<|endoftext|>"). A character that straddles tokens belongs to the
        last of them, and the others are empty.
        """
        return decode_pieces(self.tokens(sequence).tolist(), self._token_bytes)

    def text(self, sequence: int) -> str:
        """The text of a sequence without BOS, as it stands in its document; a part of a character at either end is
        U+FFFD."""
        return "".join(self.pieces(sequence)[1:])

    def document(self, sequence: int) -> str:
        """The name of the document that a sequence was cut from."""
        sequence = _in_range("sequence", sequence, self.n_sequences)
        document = int(self._files.arrays["sequences"][sequence, 1])
        ((name,),) = self._files.rows("SELECT name FROM documents WHERE id = ?", document)
        return name

    def search(self, query: str, limit: int = 20) -> SearchResult:
        """Find text: the sequences that hold a phrase, and the features that peak inside it.

        Args:
            query: words that follow each other in a sequence, whatever their case and what stands between them; a "*"
                at the end lets the last be the beginning of a word: "the riv*". Of scripts that are written without
                spaces any part is found. Without words, its signs as they stand: "==", "/", "\\n"; a single space
                between others is not in the index. A phrase that goes from one sequence into the next is not found.
            limit: at most so many sequences, and so many features, are listed.

        Returns:
            How many sequences hold the phrase, those in which the most examples peak inside it, how many features do
            so, and those with the most such examples.

        Raises:
            UserError: the query is longer than a thousand characters, or the limit is negative.
        """
        if limit < 0:
            raise UserError(f"limit={limit}: expected at least 0")
        found = find(self._files, query)
        peaks = peak_matches(self._files, found, 0, limit)
        return SearchResult(len(found.sequences), found.sequences[:limit].tolist(), len(found.features), peaks)

    @cached_property
    def tokenizer(self) -> Any:
        """The model's tokenizer, of transformers."""
        from nejax.models.formats.tokenizer_files import load_tokenizer  # takes a second: only for those who need it

        try:
            return load_tokenizer(self.path / TOKENIZER)
        except UserError as error:
            raise self._files.damaged(error) from error

    @cached_property
    def _token_bytes(self) -> list[bytes]:
        return self._files.token_bytes()

    def __repr__(self) -> str:
        return f"Atlas({str(self.path)!r}, n_layers={self.n_layers}, d_mlp={self.d_mlp})"

    def _examples(self, neuron: Neuron) -> list[Example]:
        first, end = neuron.first_example, neuron.first_example + neuron.n_examples
        rows = self._files.rows(
            "SELECT e.sequence, e.position, e.activation, f.feature, e.cohesion FROM examples AS e "
            "JOIN features AS f ON f.id = e.feature_id WHERE e.id >= ? AND e.id < ? ORDER BY e.id",
            first,
            end,
        )
        arrays = (self._files.arrays[name][first:end] for name in ("window", "coordinates", "importance"))
        return [self._example(*of_arrays, *row) for *of_arrays, row in zip(*arrays, rows, strict=True)]

    def _example(
        self,
        window: np.ndarray,
        coordinates: np.ndarray,
        importance: np.ndarray,
        sequence: int,
        position: int,
        activation: float,
        feature: int,
        cohesion: float | None,
    ) -> Example:
        tokens = self.tokens(sequence)
        start, stop = max(position - self.window_before, 0), position + self.window_after + 1
        peak = position - start
        pieces = decode_pieces(tokens.tolist(), self._token_bytes)
        inside = slice(self.window_before - peak, self.window_before - peak + len(tokens[start:stop]))
        return Example(
            sequence=sequence,
            position=position,
            activation=activation,
            feature=feature,
            cohesion=math.nan if cohesion is None else cohesion,
            document=self.document(sequence),
            tokens=tokens[start:stop],
            pieces=pieces[start:stop],
            peak_text=text_at(tokens, position, self._token_bytes),
            activations=window[inside].astype(np.float32),
            peak=peak,
            coordinates=(float(coordinates[0]), float(coordinates[1])),
            _importance=_in_window(importance, peak, len(tokens[start:stop])),
        )

    def _features(self, neuron: Neuron) -> list[Feature]:
        first, end = neuron.first_feature, neuron.first_feature + neuron.n_features
        rows = self._files.rows("SELECT * FROM features WHERE id >= ? AND id < ? ORDER BY id", first, end)
        similar = self._similar(first, end)
        return [
            Feature(
                index=row["feature"],
                n_examples=row["n_examples"],
                max_activation=row["max_activation"],
                **{name: math.nan if row[name] is None else row[name] for name in _MAY_BE_EMPTY},
                peak_tokens=_pairs(json.loads(row["peak_tokens"])),
                direction=_unit(self._files.arrays["directions"][row["id"]]),
                examples=[example for example in neuron.examples if example.feature == row["feature"]],
                central=neuron.examples[row["central_example"] - neuron.first_example],
                similar=similar[row["id"] - first],
            )
            for row in rows
        ]

    def _similar(self, first: int, end: int) -> list[list[SimilarFeature]]:
        ids, similarity = (self._files.arrays[name][first:end] for name in ("similar", "similarity"))
        listed = ", ".join(map(str, np.unique(ids[ids >= 0])))
        rows = self._files.rows(f"SELECT id, neuron_id, feature FROM features WHERE id IN ({listed})")
        place = {other: (neuron // self.d_mlp, neuron % self.d_mlp, feature) for other, neuron, feature in rows}
        central = central_places(self._files, [*range(first, end), *place])
        return [
            [
                self._similar_feature(*place[other], value, central[other] == central[own])
                for other, value in zip(*pair, strict=True)
                if other >= 0
            ]
            for own, pair in enumerate(zip(ids.tolist(), similarity.tolist(), strict=True), first)
        ]

    def _similar_feature(self, layer: int, unit: int, feature: int, similarity: float, shares: bool) -> SimilarFeature:
        return SimilarFeature(layer, unit, feature, similarity, self.units.number(unit), self.units.side(unit), shares)

    def _histogram(self, neuron: Neuron) -> Histogram:
        counts = self._files.arrays["histogram"][neuron.layer * self.d_mlp + neuron.index].astype(np.int64)
        edges = np.linspace(neuron.lowest_activation, neuron.max_activation, len(counts) + 1)
        return Histogram(edges, counts, self._files.meta["n_sampled_tokens"])

    def _band_edges(self) -> np.ndarray:
        if not self._files.meta["band_edges"]:
            raise lacks("a census", "--census")
        return np.array(self._files.meta["band_edges"])

    def _bands(self, neuron: Neuron) -> Bands:
        edges, row = self._band_edges(), neuron.layer * self.d_mlp + neuron.index
        counts = self._files.arrays["band_counts"][row].astype(np.int64)
        return Bands(edges, counts, np.array(self._files.arrays["bands"][row]))

    def _linkage(self, neuron: Neuron) -> "Linkage":
        import jax.numpy as jnp  # not for those who only read an atlas

        from nejax.neuron.clustering.average_linkage import Linkage

        merges = self._files.arrays["merges"][neuron.layer * self.d_mlp + neuron.index]
        mask = np.arange(len(merges) + 1) < neuron.n_examples
        return Linkage(jnp.asarray(merges), jnp.int32(neuron.n_merges), jnp.asarray(mask))


_MAY_BE_EMPTY = ("cohesion", "frequency", "coverage", "min_similarity")
"""Columns of the table of features: of one example, without a census, in atlases of before it was always stored."""


def _in_range(what: str, value: int, n: int) -> int:
    index = operator.index(value)
    if not 0 <= index < n:
        raise UserError(f"there is no {what} {index} in this atlas; expected 0 to {n - 1}")
    return index


def _pairs(listed: list[list[Any]]) -> list[tuple[str, int]]:
    return [(text, count) for text, count in listed]


def _in_window(importance: np.ndarray, peak: int, n_tokens: int) -> np.ndarray | None:
    """The importance of the tokens of a window, from that of those up to the peak; None if none was measured."""
    if not len(importance):
        return None
    found = np.full(n_tokens, np.nan, np.float32)
    n = min(len(importance), peak + 1)
    found[peak + 1 - n : peak + 1] = importance[len(importance) - n :]
    return found


def _unit(direction: np.ndarray) -> np.ndarray:
    direction = direction.astype(np.float32)
    length = np.linalg.norm(direction)
    return direction / length if length else direction
