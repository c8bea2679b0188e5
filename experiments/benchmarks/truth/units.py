"""A neuron whose answer is known, and what of the answer its examples can show."""

from typing import NamedTuple

import numpy as np

N_EXAMPLES = 64
"""At most so many a neuron, as in an atlas."""

FEWEST = 20
"""A neuron with fewer examples is left out."""

SUPPORT = 5
"""A feature counts if so many examples are its own."""

EDGE = 3, 6
"""With so few or so many examples a feature may be found or not: both are right."""

SEPARABLE = 0.95
"""Labels can be told apart where the nearest other example has the same one so often."""


class Unit(NamedTuple):
    """One neuron."""

    source: str
    """`"planted"` or `"chimera"`."""
    family: str
    is_held_out: bool
    """Looked at in the report alone: no rule was tuned with it."""
    n_features: int
    """Planted, or neurons that it is made of."""
    noise: float
    """Its total variance, the square of a feature's length being 1; NaN where it is not known."""
    seed: int
    x: np.ndarray
    """[n, d] the inputs of its examples, strongest first."""
    w: np.ndarray
    """[d]"""
    label: np.ndarray
    """[n] the feature of each example, -1 for none."""
    reference: np.ndarray
    """[m, d] inputs at random positions."""
    token: np.ndarray | None = None
    """[n] at the peaks."""
    made_of: tuple[str, ...] = ()

    @property
    def answer(self) -> tuple[int, int, int]:
        """The number of features of at least `SUPPORT` examples, between the fewest and the most that are right."""
        sizes = np.bincount(self.label[self.label >= 0], minlength=1)
        low, high = EDGE
        return int((sizes > high).sum()), int((sizes >= SUPPORT).sum()), int((sizes >= low).sum())

    @property
    def is_supported(self) -> np.ndarray:
        """[n] whether an example's feature counts."""
        sizes = np.bincount(self.label[self.label >= 0], minlength=1)
        return (self.label >= 0) & (sizes[self.label] >= SUPPORT)


def nearest_neighbour_accuracy(distances: np.ndarray, unit: Unit) -> float:
    """How often the nearest other example has the same label, over those whose feature counts; NaN without two."""
    if unit.answer[1] < 2:
        return float("nan")
    n, known = len(unit.label), unit.is_supported
    nearest = np.argmin(distances[:n, :n] + 9 * np.eye(n), axis=1)
    return float(np.mean(unit.label[known] == unit.label[nearest[known]]))
