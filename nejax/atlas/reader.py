"""What an atlas holds of neurons, features, examples and sequences: the one place that reads its tables and arrays for
the objects of `nejax.open_atlas` and for the explorer."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from nejax.atlas.entries import Bands, Histogram, lacks
from nejax.atlas.files import AtlasFiles
from nejax.atlas.rows import TABLES, ExampleRow, FeatureRow, NeuronRow, rows_of, select
from nejax.atlas.token_texts import TokenTexts
from nejax.atlas.units import Units
from nejax.atlas.windows import Windows, inside, up_to_peak


class FeaturePlace(NamedTuple):
    """Which feature an id is."""

    id: int
    layer: int
    unit: int
    """Index in the layer."""
    feature: int
    """Index in the neuron."""
    n_examples: int
    peak: int
    """Where its central example peaks: the sequence times 2^32, plus the position in it."""


class Similar(NamedTuple):
    """A feature that is similar to another one."""

    place: FeaturePlace
    similarity: float
    shares_example: bool
    """Whether their central examples peak at the same token."""


class Reader:
    """Typed rows of an atlas, read when they are asked for. Can be used from several threads.

    Args:
        files: of the atlas. They are left open.

    Raises:
        UserError: a file is damaged: every method may raise it. What does not fit together raises a `ValueError`,
            `LookupError` or `TypeError`, see `AtlasFiles.reading`.
    """

    def __init__(self, files: AtlasFiles):
        self.files = files
        # Indexing a plain view of a memory map takes a third of the time.
        self.arrays = {name: array.view(np.ndarray) for name, array in files.arrays.items()}
        """By the names of `nejax.atlas.schema.ARRAYS`."""
        self.n_layers: int = files.meta["n_layers"]
        self.units = Units(files.meta["d_mlp"], files.meta["sides"])
        self._before, self._after = files.meta["window_before"], files.meta["window_after"]

    @cached_property
    def lengths(self) -> np.ndarray:
        """[n_sequences] int64: how many tokens each sequence has."""
        return self.arrays["sequences"][:, 0].astype(np.int64)

    @cached_property
    def token_bytes(self) -> list[bytes]:
        """The bytes of each token."""
        return self.files.token_bytes()

    @cached_property
    def texts(self) -> TokenTexts:
        """What tokens show as."""
        return TokenTexts(self.token_bytes, self.arrays["tokens"], self.lengths)

    def id_of(self, neuron: NeuronRow) -> int:
        """Of a neuron, in the tables and the arrays."""
        return neuron.layer * self.units.n + neuron.index

    def neuron(self, layer: int, unit: int) -> NeuronRow:
        """A neuron, or a side of it."""
        (row,) = rows_of(NeuronRow, self.files.rows(f"{select(NeuronRow)} WHERE id = ?", layer * self.units.n + unit))
        return row

    def measure(self, name: str) -> Iterator[int | float | None]:
        """A field of `NeuronRow` of all neurons, by layer, then neuron; None where there is none."""
        return (value for (value,) in self.files.rows(f"{select(NeuronRow, name)} ORDER BY id"))

    def features(self, neuron: NeuronRow) -> list[FeatureRow]:
        """Of a neuron, the largest first."""
        condition = "WHERE id >= ? AND id < ? ORDER BY id"
        return rows_of(FeatureRow, self.files.rows(f"{select(FeatureRow)} {condition}", *_features_of(neuron)))

    def centrals(self, neuron: NeuronRow) -> list[int]:
        """Of each of a neuron's features the central example, by its index among the neuron's."""
        found = self.files.rows(
            "SELECT central_example FROM features WHERE id >= ? AND id < ? ORDER BY id", *_features_of(neuron)
        )
        return [id_ - neuron.first_example for (id_,) in found]

    def similar(self, neuron: NeuronRow) -> list[list[Similar]]:
        """The features similar to each of a neuron's, the most similar first."""
        first, end = _features_of(neuron)
        ids, similarity = (self.arrays[name][first:end].tolist() for name in ("similar", "similarity"))
        places = feature_places(self.files, [*range(first, end), *(id_ for own in ids for id_ in own if id_ >= 0)])
        found = []
        for id_, others, cosines in zip(range(first, end), ids, similarity, strict=True):
            pairs = [(places[other], cosine) for other, cosine in zip(others, cosines, strict=True) if other >= 0]
            peak = places[id_].peak
            found.append([Similar(place, cosine, place.peak == peak) for place, cosine in pairs])
        return found

    def example_ids(self, neuron: NeuronRow) -> tuple[int, int]:
        """Of a neuron's examples: the first, and the one after the last."""
        return neuron.first_example, neuron.first_example + neuron.n_examples

    def examples(self, neuron: NeuronRow) -> list[ExampleRow]:
        """Of a neuron, the strongest first."""
        first, end = self.example_ids(neuron)
        query = f"{select(ExampleRow)} WHERE e.id >= ? AND e.id < ? ORDER BY e.id"
        return rows_of(ExampleRow, self.files.rows(query, first, end))

    def examples_in(self, first: int, end: int) -> Sequence[Iterable[Any]]:
        """All neurons' examples in the sequences from `first` to before `end`, in the order in which they stand there:
        sequence, position of the peak, layer, index in the layer, feature, activation."""
        return self.files.rows(
            "SELECT sequence, position, layer, neuron, feature_id - first_feature, activation "
            f"FROM {TABLES[ExampleRow]} WHERE sequence >= ? AND sequence < ? ORDER BY sequence, position, n.id",
            first,
            end,
        )

    def directions(self, neuron: NeuronRow) -> np.ndarray:
        """[n_features, d_model] float16: the unit mean embeddings of a neuron's features."""
        return self.arrays["directions"][slice(*_features_of(neuron))]

    def coordinates(self, neuron: NeuronRow) -> list[list[float]]:
        """Of a neuron's examples, each two."""
        return self.arrays["coordinates"][slice(*self.example_ids(neuron))].tolist()

    def windows(self, ids: np.ndarray, examples: Sequence[ExampleRow]) -> Windows:
        """The windows of some examples.

        Args:
            ids: [n_examples] of them.
            examples: their rows.
        """
        before, after = self._before, self._after
        sequence = np.array([row.sequence for row in examples], np.int64)
        position = np.array([row.position for row in examples], np.int64)
        length = self.lengths[sequence]
        start, stop = np.maximum(position - before, 0), np.minimum(position + after + 1, length)
        is_inside = inside(position, length, before, after)
        activations, importance = self.arrays["window"][ids][is_inside], self.arrays["importance"][ids]
        if np.isnan(activations).any():
            raise ValueError("window.npy has gaps")
        of_tokens = up_to_peak(importance, before, after)[is_inside] if importance.shape[1] else None
        return Windows(start, self.texts.stretches(sequence, start, stop), activations, of_tokens)

    def histogram(self, neuron: NeuronRow) -> Histogram:
        """Of a neuron's activation."""
        counts = self.arrays["histogram"][self.id_of(neuron)].astype(np.int64)
        edges = np.linspace(neuron.lowest_activation, neuron.max_activation, len(counts) + 1)
        return Histogram(edges, counts, self.files.meta["n_sampled_tokens"])

    @property
    def has_census(self) -> bool:
        """Whether the atlas was built with a census."""
        return bool(self.files.meta["band_edges"])

    def band_edges(self) -> np.ndarray:
        """[n_bands + 1] fractions of a neuron's maximum.

        Raises:
            UserError: the atlas was built without a census.
        """
        if not self.has_census:
            raise lacks("a census", "census")
        return np.array(self.files.meta["band_edges"])

    def bands(self, neuron: NeuronRow) -> Bands:
        """How far apart a neuron's embeddings are in each band of its activation.

        Raises:
            UserError: the atlas was built without a census.
        """
        edges, id_ = self.band_edges(), self.id_of(neuron)
        return Bands(edges, self.arrays["band_counts"][id_].astype(np.int64), self.arrays["bands"][id_].copy())

    def merges(self, neuron: NeuronRow) -> np.ndarray:
        """[n_leaves - 1, 4] a neuron's dendrogram: leaf `i` is its example `i`, and later leaves are none."""
        return self.arrays["merges"][self.id_of(neuron)]

    def tokens(self, sequence: int) -> np.ndarray:
        """[length] int32: the tokens of a sequence."""
        return self.arrays["tokens"][sequence, : self.arrays["sequences"][sequence, 0]].astype(np.int32)

    def documents(self, sequences: Sequence[int]) -> list[str]:
        """The names of the documents that some sequences were cut from."""
        ids = self.arrays["sequences"][np.array(sequences, np.int64), 1].tolist()
        different = set(ids)
        marks = ",".join("?" * len(different))
        names = dict(map(tuple, self.files.rows(f"SELECT id, name FROM documents WHERE id IN ({marks})", *different)))
        return [names[id_] for id_ in ids]


def _features_of(neuron: NeuronRow) -> tuple[int, int]:
    return neuron.first_feature, neuron.first_feature + neuron.n_features


def feature_places(files: AtlasFiles, ids: Iterable[int]) -> dict[int, FeaturePlace]:
    """Which features some ids are."""
    found = files.rows(
        "SELECT f.id, f.neuron_id / ?, f.neuron_id % ?, f.feature, f.n_examples, (e.sequence << 32) + e.position "
        "FROM features AS f JOIN examples AS e ON e.id = f.central_example "
        f"WHERE f.id IN ({', '.join(map(str, set(ids)))})",
        files.meta["d_mlp"],
        files.meta["d_mlp"],
    )
    return {place.id: place for place in map(FeaturePlace._make, found)}
