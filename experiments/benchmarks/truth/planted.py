"""Planted neurons: weights that are a sum of features, and a corpus in which the features are rare."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from benchmarks.truth.noise import GaussianNoise, Noise, RealNoise
from benchmarks.truth.units import N_EXAMPLES, Unit

N_TOKENS = 20_000
"""Of the corpus of each neuron."""

FEATURE_TOKENS = 0.1
"""Of these, the share in which there is a feature."""

MIN_FRACTION = 0.4
"""Of the maximum, that an example's activation exceeds, as in an atlas."""

UNREAD = 0.02
"""What is left of a neuron's weight in a loud dimension."""


class Family(NamedTuple):
    """A kind of corpus."""

    name: str
    is_held_out: bool = False
    shared: float = 0.0
    """Cosine between any two features."""
    spectrum: float = 0.0
    """Power of the noise's spectrum, see `GaussianNoise`."""
    n_loud: int = 0
    """Dimensions with noise of variance 1 each, which the neuron hardly reads."""
    rarest: float = 1.0
    """Rate of the rarest feature, that of the most frequent being 1; geometric between."""
    outliers: float = 0.0
    """Share of the examples that are random tokens instead."""
    mixed: float = 0.0
    """Share of the feature tokens that have two, each at half its strength; they are no one's."""
    is_heavy: bool = False
    is_real: bool = False
    """The noise is inputs of a model."""


FAMILIES = (
    Family("isotropic"),
    Family("spectrum", spectrum=1.0),
    Family("loud dimensions", n_loud=4),
    Family("rates 50:1", rarest=1 / 50),
    Family("outliers", outliers=0.1),
    Family("cosine 0.1", shared=0.1),
    Family("cosine 0.2", shared=0.2),
    Family("cosine 0.3", shared=0.3),
    Family("heavy tails", True, is_heavy=True),
    Family("all together", True, n_loud=4, spectrum=0.7, outliers=0.05),
    Family("mixtures", True, mixed=0.2),
    Family("real inputs", True, is_real=True),
)


class Grid(NamedTuple):
    """Which neurons are planted: all combinations."""

    n_features: tuple[int, ...] = (0, 1, 2, 3, 4, 6, 8)
    dimensions: tuple[int, ...] = (64, 256, 768)
    noise: tuple[float, ...] = (0.25, 1.0, 4.0, 16.0)
    families: tuple[Family, ...] = FAMILIES
    n_each: int = 1


def planted_units(grid: Grid, real: np.ndarray) -> Iterator[Unit]:
    """The neurons of a grid. What is held out has seeds of its own.

    Args:
        grid: of settings.
        real: [n, d] inputs of a model; the family that has them for noise has their dimensions alone.
    """
    for number, family in enumerate(grid.families):
        for d in (real.shape[1],) if family.is_real else grid.dimensions:
            for k in grid.n_features:
                if family.n_loud == 0 and (family.shared or family.rarest < 1 or family.mixed) and k < 2:
                    continue  # the same as isotropic
                for noise in grid.noise:
                    for repeat in range(grid.n_each):
                        seed = (1 + family.is_held_out) * 1_000_000 + 10_000 * number + 100 * k + repeat
                        yield plant(family, k, d, noise, seed=seed, real=real)


def plant(family: Family, k: int, d: int, noise: float, *, seed: int, real: np.ndarray | None = None) -> Unit:
    """One neuron, with the examples that its activation chooses.

    Args:
        family: of the corpus.
        k: features; with none the weights are a random direction.
        d: dimensions.
        noise: its total variance; of loud dimensions there is more.
        seed: of everything, together with `d` and `noise`.
        real: [n, d] inputs of a model.
    """
    rng = np.random.default_rng([seed, d, round(1000 * noise)])
    features = random_features(rng, k, d, family.shared)
    w = weights_of(features) if k else _unit(rng.standard_normal(d))
    loud = np.zeros(d)
    loud[rng.choice(d, family.n_loud, replace=False)] = 1
    w = np.where(loud > 0, UNREAD * w, w)
    if family.is_real:
        assert real is not None
        source: Noise = RealNoise(real, noise)
    else:
        source = GaussianNoise(d, noise, rng, spectrum=family.spectrum, loud=loud, is_heavy=family.is_heavy)
    tokens = source.tokens(rng, N_TOKENS, w)
    strength, label = _strengths(rng, k, family)
    activation = strength @ (features @ w) + tokens.along
    chosen = chosen_by(activation)
    n_outliers = round(family.outliers * len(chosen))
    reference, outliers = np.split(rng.choice(N_TOKENS, N_EXAMPLES + n_outliers, replace=False), [N_EXAMPLES])
    chosen = np.concatenate([chosen[: len(chosen) - n_outliers], outliers])
    x, unrelated = ((strength[rows] @ features + tokens.at(rows)).astype(np.float32) for rows in (chosen, reference))
    facts = "planted", family.name, family.is_held_out, k, noise, seed
    return Unit(*facts, x, w.astype(np.float32), label[chosen], unrelated)


def random_features(rng: np.random.Generator, k: int, d: int, shared: float = 0.0) -> np.ndarray:
    """[k, d] random directions of length 1; what they share adds `shared` to the cosine of any two."""
    own, common = _unit(rng.standard_normal((k, d))), _unit(rng.standard_normal(d))
    return _unit(np.sqrt(1 - shared) * own + np.sqrt(shared) * common)


def weights_of(features: np.ndarray) -> np.ndarray:
    """[d] the sum of features, scaled so that each excites the neuron alike: `features @ w` is 1."""
    return features.T @ np.linalg.solve(features @ features.T, np.ones(len(features)))


def chosen_by(activation: np.ndarray) -> np.ndarray:
    """The strongest tokens, of those that fire and exceed a fraction of the maximum."""
    order = np.argsort(-activation)[:N_EXAMPLES]
    return order[(activation[order] > 0) & (activation[order] > MIN_FRACTION * activation[order[0]])]


def _strengths(rng: np.random.Generator, k: int, family: Family) -> tuple[np.ndarray, np.ndarray]:
    """[n_tokens, k] of every feature in every token; and [n_tokens] which one is there, -1 for none or two."""
    strength = np.zeros((N_TOKENS, k))
    label = np.full(N_TOKENS, -1)
    if not k:
        return strength, label
    rate = np.geomspace(1, family.rarest, k)
    there = np.flatnonzero(rng.random(N_TOKENS) < FEATURE_TOKENS)
    feature = rng.choice(k, len(there), p=rate / rate.sum())
    how_strong = rng.uniform(0.7, 1.3, len(there))
    label[there] = feature
    strength[there, feature] = how_strong
    if k > 1 and family.mixed:
        mixed = rng.random(len(there)) < family.mixed
        other = (feature + rng.integers(1, k, len(there))) % k
        for column in (feature, other):
            strength[there[mixed], column[mixed]] = how_strong[mixed] / 2
        label[there[mixed]] = -1
    return strength, label


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)
