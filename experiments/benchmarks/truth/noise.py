"""What stands in the inputs besides features."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np


class Tokens(NamedTuple):
    """The noise of many tokens, of which few are ever looked at."""

    along: np.ndarray
    """[n_tokens] its product with the weights."""
    at: Callable[[np.ndarray], np.ndarray]
    """Tokens, [m] -> their noise, [m, d]; once."""


class Noise(Protocol):
    """A way to draw it."""

    def tokens(self, rng: np.random.Generator, n: int, w: np.ndarray) -> Tokens:
        """Of a corpus."""
        ...


class GaussianNoise:
    """Normal, or with a heavy tail, of a given total variance.

    A corpus needs only its products with the weights; the rest is drawn for the tokens that are looked at, given these.

    Args:
        d: dimensions.
        variance: in all.
        spectrum: the i-th largest variance is proportional to `i ** -spectrum`, in a random basis.
        loud: [d] variance that is added to each dimension itself.
        is_heavy: Student's t with 4 degrees of freedom, scaled to the same variance.
        rng: of the basis.
    """

    def __init__(
        self,
        d: int,
        variance: float,
        rng: np.random.Generator,
        *,
        spectrum: float = 0.0,
        loud: np.ndarray | None = None,
        is_heavy: bool = False,
    ):
        power = (1 + np.arange(d)) ** -spectrum
        self.variances = variance * power / power.sum()
        self.basis = np.linalg.qr(rng.standard_normal((d, d)))[0] if spectrum else None
        self.loud = np.zeros(d) if loud is None else loud
        self.is_heavy = is_heavy

    def draw(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """[n, d], without the heavy tail."""
        d = len(self.variances)
        drawn = rng.standard_normal((n, d)) * np.sqrt(self.variances)
        drawn = drawn if self.basis is None else drawn @ self.basis.T
        return drawn + rng.standard_normal((n, d)) * np.sqrt(self.loud) if self.loud.any() else drawn

    def covariance_times(self, w: np.ndarray) -> np.ndarray:
        """[d]"""
        own = self.variances * w if self.basis is None else self.basis @ (self.variances * (self.basis.T @ w))
        return own + self.loud * w

    def tokens(self, rng: np.random.Generator, n: int, w: np.ndarray) -> Tokens:
        """Of a corpus."""
        toward = self.covariance_times(w)
        variance = w @ toward
        scale = np.sqrt(2 / rng.chisquare(4, n)) if self.is_heavy else np.ones(n)
        along = scale * np.sqrt(variance) * rng.standard_normal(n)

        def at(tokens: np.ndarray) -> np.ndarray:
            free = scale[tokens, None] * self.draw(rng, len(tokens))
            return free + np.outer((along[tokens] - free @ w) / variance, toward)

        return Tokens(along, at)


class RealNoise:
    """Inputs of a layer of a model at random positions, centred, scaled to a given total variance.

    Args:
        inputs: [n, d]
        variance: in all.
    """

    def __init__(self, inputs: np.ndarray, variance: float):
        centred = inputs - inputs.mean(axis=0)
        self.inputs = centred * np.sqrt(variance / np.mean(np.sum(centred**2, axis=1)))

    def tokens(self, rng: np.random.Generator, n: int, w: np.ndarray) -> Tokens:
        """Of a corpus: each input at most once, while there are enough."""
        row = rng.choice(len(self.inputs), n, replace=n > len(self.inputs))
        return Tokens((self.inputs @ w)[row], lambda tokens: self.inputs[row[tokens]])
