"""A finished atlas, opened: every neuron's measures, features and examples, read when they are asked for."""

import json
import operator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nejax.atlas.entries import Bands, Example, Feature, Histogram, SimilarFeature
from nejax.atlas.files import AtlasFiles, find_atlas
from nejax.atlas.neuron import Neuron
from nejax.atlas.reader import Reader, Similar
from nejax.atlas.rows import ExampleRow
from nejax.atlas.schema import TOKENIZER
from nejax.atlas.search import SearchResult, find, peak_matches
from nejax.atlas.texts import text_at
from nejax.atlas.units import POSITIVE
from nejax.atlas.windows import Window
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
        self._reader = Reader(self._files)
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
        self.units = self._reader.units
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
        return len(self._reader.arrays["tokens"])

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
        return Neuron(**vars(self._reader.neuron(layer, index)), _atlas=self)

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
        edges, shape = self._reader.band_edges(), (self.n_layers, self.d_mlp, -1)
        distances, counts = (self._reader.arrays[name].reshape(shape) for name in ("bands", "band_counts"))
        return edges, distances, counts

    def tokens(self, sequence: int) -> np.ndarray:
        """The tokens of a sequence, [length] int32, BOS first; padding is left out.

        Raises:
            UserError: there is no such sequence.
        """
        sequence = _in_range("sequence", sequence, self.n_sequences)
        return self._reader.tokens(sequence)

    def pieces(self, sequence: int) -> list[str]:
        """The text of each token of a sequence.

        The first is BOS, which shows as its name ("<|endoftext|>"). A character that straddles tokens belongs to the
        last of them, and the others are empty.
        """
        return decode_pieces(self.tokens(sequence).tolist(), self._reader.token_bytes)

    def text(self, sequence: int) -> str:
        """The text of a sequence without BOS, as it stands in its document; a part of a character at either end is
        U+FFFD."""
        return "".join(self.pieces(sequence)[1:])

    def document(self, sequence: int) -> str:
        """The name of the document that a sequence was cut from."""
        with self._files.reading():
            (name,) = self._reader.documents([_in_range("sequence", sequence, self.n_sequences)])
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

    def __repr__(self) -> str:
        return f"Atlas({str(self.path)!r}, n_layers={self.n_layers}, d_mlp={self.d_mlp})"

    def _examples(self, neuron: Neuron) -> list[Example]:
        reader = self._reader
        with self._files.reading():
            rows = reader.examples(neuron)
            windows = reader.windows(np.arange(*reader.example_ids(neuron)), rows)
            sequences = [row.sequence for row in rows]
            more = zip(rows, reader.documents(sequences), reader.coordinates(neuron), windows.each(), strict=True)
            return [self._example(*of_example) for of_example in more]

    def _example(self, row: ExampleRow, document: str, coordinates: list[float], window: Window) -> Example:
        x, y = coordinates
        return Example(
            **vars(row),
            document=document,
            tokens=window.tokens,
            pieces=window.pieces,
            peak_text=text_at(self._reader.tokens(row.sequence), row.position, self._reader.token_bytes),
            activations=window.activations.astype(np.float32),
            peak=row.position - window.start,
            coordinates=(x, y),
            _importance=None if window.importance is None else window.importance.astype(np.float32),
        )

    def _features(self, neuron: Neuron) -> list[Feature]:
        reader, examples = self._reader, neuron.examples
        with self._files.reading():
            rows = reader.features(neuron)
            more = zip(reader.directions(neuron), reader.centrals(neuron), reader.similar(neuron), strict=True)
            return [
                Feature(
                    **vars(row),
                    direction=_unit(direction),
                    examples=[example for example in examples if example.feature == row.index],
                    central=examples[central],
                    similar=[self._similar(other) for other in similar],
                )
                for row, (direction, central, similar) in zip(rows, more, strict=True)
            ]

    def _similar(self, other: Similar) -> SimilarFeature:
        _, layer, unit, feature, *_ = other.place
        number, side = self.units.number(unit), self.units.side(unit)
        return SimilarFeature(layer, unit, feature, other.similarity, number, side, other.shares_example)

    def _histogram(self, neuron: Neuron) -> Histogram:
        return self._reader.histogram(neuron)

    def _bands(self, neuron: Neuron) -> Bands:
        return self._reader.bands(neuron)

    def _linkage(self, neuron: Neuron) -> "Linkage":
        import jax.numpy as jnp  # not for those who only read an atlas

        from nejax.neuron.clustering.average_linkage import Linkage

        merges = self._reader.merges(neuron)
        mask = np.arange(len(merges) + 1) < neuron.n_examples
        return Linkage(jnp.asarray(merges), jnp.int32(neuron.n_merges), jnp.asarray(mask))


def _in_range(what: str, value: int, n: int) -> int:
    index = operator.index(value)
    if not 0 <= index < n:
        raise UserError(f"there is no {what} {index} in this atlas; expected 0 to {n - 1}")
    return index


def _unit(direction: np.ndarray) -> np.ndarray:
    direction = direction.astype(np.float32)
    length = np.linalg.norm(direction)
    return direction / length if length else direction
