"""The features of a neuron and their examples, as plain values."""

import dataclasses
import re
from typing import Any, NamedTuple

import numpy as np

from nejax.atlas.plain import fields_of, plain
from nejax.atlas.rows import ExampleRow, FeatureRow
from nejax.atlas.units import capitalized, neuron_name
from nejax.errors import UserError

_LONGEST_PEAK = 30
"""Most characters of a peak token that a snippet shows."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Example(ExampleRow):
    """A sequence that excites a neuron, and the window of tokens around its peak, the position of the highest
    activation.

    Example:
        >>> example = nejax.open_atlas("runs/demo").neuron(0, 3).features[0].examples[0]
        >>> bool(example.activations.argmax() == example.peak)
        True
    """

    document: str
    """Name of the document that the sequence was cut from."""
    tokens: np.ndarray
    """[n_tokens] int32: the ids in the window, which ends where the sequence does."""
    pieces: list[str]
    """[n_tokens]: the text of each token. The BOS token shows as its name; a character that straddles tokens belongs to
    the last of them, and the others are empty."""
    activations: np.ndarray
    """[n_tokens] float32: of the neuron at each token (stored as float16, so within 0.05% of the model's)."""
    peak: int
    """Index of the peak in the window."""
    peak_text: str
    """All characters that the peak's token has a byte of: its own text, with characters that straddle tokens whole."""
    coordinates: tuple[float, float]
    """Of its embedding, at length 1, on the two axes along which those of the neuron's examples spread most, from
    their mean (stored as float16)."""
    _importance: np.ndarray | None = None

    @property
    def importance(self) -> np.ndarray:
        """[n_tokens] float32 between 0 and 1: how much of the activation is lost without each token of the window, as
        a part of what is lost without the peak's own; see `nejax.neuron.importance.token_importance`. NaN after the
        peak, further before it than tokens were ablated, and everywhere in an example that was not measured (only the
        most central ones of each feature are) or that does not need its own token.

        Raises:
            UserError: the atlas was built without token importance.
        """
        if self._importance is None:
            raise lacks("token importance", "importance")
        return self._importance

    @property
    def text(self) -> str:
        """The window's text, without the BOS token."""
        starts_with_bos = self.peak == self.position
        return "".join(self.pieces[starts_with_bos:])

    def snippet(self, width: int = 60) -> str:
        """A line of the text around the peak, which is in [[ ]]; see `around_peak`. Cut ends are marked by ….

        Args:
            width: at most so many characters, but for a peak that is longer.
        """
        before, peak, after = self.around_peak()
        room = max(width - len(peak) - 4, 0)
        n_after = max(room // 3, room - len(before))
        return f"{ending(before, room - min(n_after, len(after)))}[[{peak}]]{beginning(after, n_after)}".strip()

    def around_peak(self) -> tuple[str, str, str]:
        """The window as a line: the text before the peak, the peak, the text after it.

        Line breaks show as ⏎, other white space as one space. The space that a peak begins with belongs to the text
        before it; a peak inside a character is the whole character; a long peak is cut.
        """
        starts_with_bos = self.peak == self.position
        before, after = "".join(self.pieces[starts_with_bos : self.peak]), "".join(self.pieces[self.peak :])
        # The characters at the peak are with the tokens that complete them.
        peak = self.peak_text if after.startswith(self.peak_text) else self.pieces[self.peak]
        after = after[len(peak) :]
        if peak.startswith(" ") and len(peak) > 1:
            before, peak = before + " ", peak[1:]
        return _visible(before), beginning(_visible(peak), _LONGEST_PEAK), _visible(after)

    def to_dict(self) -> dict[str, Any]:
        """Its fields as plain values, see `nejax.atlas.plain.plain`; `importance` is None where it was not measured."""
        return fields_of(self) | {"importance": plain(self._importance)}

    def __repr__(self) -> str:
        place = f"sequence={self.sequence}, position={self.position}"
        return f"Example({place}, activation={self.activation:.4g}, {self.snippet()!r})"


class Histogram(NamedTuple):
    """The histogram of a neuron's activation over a sample of the corpus's tokens."""

    edges: np.ndarray
    """[n_bins + 1] float64: from the lowest activation in the sample to the highest over the corpus, at equal
    distances. All are equal where the activation never changes; then all tokens are in the last bin."""
    counts: np.ndarray
    """[n_bins] int64: tokens in each bin. One on an edge between two is in the upper one, one on the last edge in the
    last."""
    n_tokens: int
    """In the sample: what the counts sum to."""


class Bands(NamedTuple):
    """How far apart a neuron's embeddings are in each band of its activation, over a whole census."""

    edges: np.ndarray
    """[n_bands + 1] float64: fractions of the neuron's maximum, from 0 to 1. A token is in the band above the edge."""
    n_tokens: np.ndarray
    """[n_bands] int64: tokens in each."""
    mean_distance: np.ndarray
    """[n_bands] float32: mean cosine distance between their embeddings; NaN for fewer than two."""


def lacks(what: str, setting: str) -> UserError:
    """The error for data of a stage that an atlas was built without."""
    return UserError(f"this atlas was built without {what}", f"build it again with {{{setting}}} in its run directory")


class SimilarFeature(NamedTuple):
    """A feature of another neuron that reads nearly the same: at its central example, or on average over them all."""

    layer: int
    neuron: int
    """Its `index` in the layer, for `Atlas.neuron`; with two sides, that of the unit."""
    feature: int
    """Index in the neuron."""
    similarity: float
    """Cosine of the inputs of the two central examples, or of the two mean inputs (`similar_by`); exactly 1 where
    they are the same. Stored as float16: within 0.03% of what it was."""
    number: int
    """The neuron's index in the model's layer."""
    side: str = ""
    """Of the neuron, see `Neuron.side`."""
    shares_example: bool = False
    """Both have the same token of the same sequence as their central example: the similarity of 1 of two central inputs
    then means nothing else."""

    def __str__(self) -> str:
        name = capitalized(neuron_name(self.layer, self.number, self.side))
        shared = ", shares its example" if self.shares_example else ""
        return f"{name}, feature {self.feature}: similarity {self.similarity:.2f}{shared}"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Feature(FeatureRow):
    """One of the things that a neuron responds to: a cluster of its examples.

    Example:
        >>> feature = nejax.open_atlas("runs/demo").neuron(0, 3).features[0]
        >>> feature.central in feature.examples
        True
    """

    direction: np.ndarray
    """[d_model] float32, of length 1: the mean of its examples' unit embeddings, scaled. Stored as float16, which
    leaves a cosine of 1 - 1e-6 or more with the exact direction. All zeros where the embeddings cancel out."""
    examples: list[Example]
    """Strongest first."""
    central: Example
    """The example with the highest mean similarity to the others."""
    similar: list[SimilarFeature]
    """The most similar features of other neurons, the most similar first."""

    def __str__(self) -> str:
        cohesion = "" if np.isnan(self.cohesion) else f"cohesion {self.cohesion:.2f}"
        return f"{self.index:>3}  {counted(self.n_examples, 'example'):<12} {cohesion:<13}  {self.central.snippet()}"

    def to_dict(self) -> dict[str, Any]:
        """Its fields as plain values, see `nejax.atlas.plain.plain`; `central` is an index into `examples`."""
        return fields_of(self, "central") | {"central": self.examples.index(self.central)}

    def __repr__(self) -> str:
        peaks = ", ".join(f"{text!r} x{count}" for text, count in self.peak_tokens)
        return (
            f"Feature({self.index}, n_examples={self.n_examples}, cohesion={self.cohesion:.3f}, peak_tokens=[{peaks}])"
        )


def counted(n: int, noun: str) -> str:
    """A number and what it counts: "1 feature", "2,048 features"."""
    return f"{n:,} {noun}{'s' if n != 1 else ''}"


def beginning(text: str, width: int) -> str:
    """As much of a text as fits, from its start."""
    return text if len(text) <= width else (text[: width - 1] + "…" if width > 0 else "")


def ending(text: str, width: int) -> str:
    """As much of a text as fits, up to its end."""
    return text if len(text) <= width else ("…" + text[len(text) - width + 1 :] if width > 0 else "")


def _visible(text: str) -> str:
    """Text on one line, without control characters."""
    text = re.sub(r"\r\n?|\n", "⏎", text)
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", "·", re.sub(r"\s+", " ", text))
