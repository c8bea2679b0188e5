"""One neuron of an atlas: its measures, and its features and examples, read when they are asked for."""

import dataclasses
import math
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from nejax.atlas.entries import Bands, Example, Feature, Histogram, counted
from nejax.atlas.plain import fields_of, plain
from nejax.atlas.rows import NeuronRow
from nejax.atlas.units import NEGATIVE, capitalized, neuron_name

if TYPE_CHECKING:
    from nejax.neuron.clustering.average_linkage import Linkage

_SHOWN_FEATURES = 8


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Neuron(NeuronRow):
    """One neuron: its measures, features and examples. Measures without data are NaN.

    Where neurons have two sides (`Atlas.sides`), this is one of them. Every activation of a negative side (its
    maximum, its moments, its histogram, its examples') is the neuron's times -1, so that its examples' are positive.

    Example:
        >>> neuron = nejax.open_atlas("runs/demo").neuron(0, 3)
        >>> len(neuron.features) == neuron.n_features
        True
    """

    _atlas: Any
    """The open atlas that it is of."""

    @property
    def number(self) -> int:
        """The neuron's index in the model's layer."""
        return self._atlas.units.number(self.index)

    @property
    def side(self) -> str:
        """ "positive" or "negative"; "" where neurons have one side."""
        return self._atlas.units.side(self.index)

    @property
    def other_side(self) -> "Neuron":
        """The other side of the same neuron.

        Raises:
            UserError: the neurons of this atlas have one side each.
        """
        return self._atlas.neuron(self.layer, self._atlas.units.other(self.index))

    @property
    def name(self) -> str:
        """Its name in text: "layer 3, neuron 17, negative side"."""
        return neuron_name(self.layer, self.number, self.side)

    @cached_property
    def examples(self) -> list[Example]:
        """Strongest first."""
        return self._atlas._examples(self)

    @cached_property
    def features(self) -> list[Feature]:
        """Largest first."""
        return self._atlas._features(self)

    @cached_property
    def histogram(self) -> Histogram:
        """How its activation is spread over a sample of the corpus."""
        return self._atlas._histogram(self)

    @cached_property
    def bands(self) -> Bands:
        """How far apart its embeddings are in each band of activation, over the census.

        Raises:
            UserError: the atlas was built without a census.
        """
        return self._atlas._bands(self)

    @cached_property
    def linkage(self) -> "Linkage":
        """The dendrogram of its examples, for `nejax.cut`: leaf `i` is example `i`, later leaves are masked."""
        return self._atlas._linkage(self)

    def cut(self, height: float) -> np.ndarray:
        """The labels of a cut at another height.

        Args:
            height: cosine distance up to which clusters merge. `self.height` gives the feature of each example, if the
                atlas was made by average linkage.

        Returns:
            [n_examples] int32 labels: 0 is the largest cluster, ties to the one with the strongest example.
        """
        from nejax.neuron.clustering.average_linkage import cut  # JAX: not for those who only read an atlas
        from nejax.neuron.clustering.labels import largest_first

        return np.asarray(largest_first(cut(self.linkage, height)))[: self.n_examples]

    def to_dict(self) -> dict[str, Any]:
        """Its measures and all its features with their examples as plain values, see `nejax.atlas.plain.plain`."""
        whole = {"name": self.name, "number": self.number, "side": self.side}
        return whole | fields_of(self) | {"features": plain(self.features)}

    def __str__(self) -> str:
        name = capitalized(self.name)
        if not self.n_examples:
            return f"{name}: dead, it never fires in this corpus"
        lines = [
            f"{name}: {counted(self.n_examples, 'example')} in {counted(self.n_features, 'feature')}",
            f"  mean distance {_shown(self.mean_distance)} ({_shown(self.intra_cluster_distance)} within features, "
            f"{_shown(self.inter_cluster_distance)} between); fires at {self.firing_rate:.2%} of tokens, "
            f"at most {self.max_activation:.3g}",
            *(["  activation: times -1"] if self.side == NEGATIVE else []),
            *map(str, self.features[:_SHOWN_FEATURES]),
        ]
        more = self.n_features - _SHOWN_FEATURES
        return "\n".join(lines + ([f"      and {counted(more, 'more feature')}"] if more > 0 else []))

    def __repr__(self) -> str:
        return (
            f"Neuron(layer={self.layer}, index={self.index}{f', side={self.side!r}' if self.side else ''}, "
            f"n_examples={self.n_examples}, "
            f"n_features={self.n_features}, mean_distance={self.mean_distance:.3f})"
        )


def _shown(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"
