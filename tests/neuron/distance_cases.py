"""Distance matrices of every kind that the clusterings must cope with, and how they are padded."""

import numpy as np


def cosine_distances(x: np.ndarray) -> np.ndarray:
    """Cosine distances between rows, in float64, rounded to float32."""
    x = np.asarray(x, np.float64)
    units = x / np.linalg.norm(x, axis=1, keepdims=True)
    distances = np.clip(1 - units @ units.T, 0, 2)
    np.fill_diagonal(distances, 0)
    return ((distances + distances.T) / 2).astype(np.float32)


def _symmetric(values: np.ndarray) -> np.ndarray:
    upper = np.triu(values, 1).astype(np.float32)
    return upper + upper.T


def uniform(rng, n):
    return _symmetric(rng.uniform(0, 2, (n, n)))


def gaussian(rng, n):
    return cosine_distances(rng.normal(size=(n, 5)))


def clustered(rng, n):
    centres = 4 * rng.normal(size=(3, 8))
    return cosine_distances(centres[rng.integers(0, 3, n)] + rng.normal(size=(n, 8)))


def line(rng, n):
    """Points on a line in random order, each gap wider than the last."""
    place = rng.permutation(np.cumsum(1 + 0.05 * np.arange(n)) / (n + 1))
    return _symmetric(np.abs(place[:, None] - place[None, :]))


def chain(rng, n):
    """Every merge adds one row to the one cluster: the longest dendrogram there is."""
    place = rng.permutation(n)
    return _symmetric(np.maximum(place[:, None], place[None, :]) / n)


def near_ties(rng, n):
    """Distances that differ in their last bits only."""
    return _symmetric(0.5 + 3e-7 * rng.normal(size=(n, n)))


def exact_ties(rng, n):
    return _symmetric(rng.integers(1, 5, (n, n)) / 4)


def duplicates(rng, n):
    return cosine_distances(rng.normal(size=(3, 4))[rng.integers(0, 3, n)])


def constant(rng, n):
    """Any constant: the mean of equal numbers may round to less than they are."""
    return _symmetric(np.full((n, n), rng.uniform(0.1, 2)))


def identical(rng, n):
    return np.zeros((n, n), np.float32)


DISTINCT = (uniform, gaussian, clustered, line, chain)
TIED = (near_ties, exact_ties, duplicates, constant, identical)


def padded(rng, distances: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows of a matrix at random places (in the same order) of an `[n, n]` one of NaN, and the mask."""
    rows = np.sort(rng.permutation(n)[: len(distances)])
    full = np.full((n, n), np.nan, np.float32)
    full[np.ix_(rows, rows)] = distances
    mask = np.zeros(n, bool)
    mask[rows] = True
    return full, mask


def same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two labelings put the same rows together, whatever they call them."""
    return np.array_equal(a[:, None] == a[None, :], b[:, None] == b[None, :])
