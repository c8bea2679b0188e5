"""Points that k-means must cope with, both its faces run on them, and what NumPy says of a labeling in float64."""

import functools
import itertools

import jax
import numpy as np
from distance_cases import cosine_distances, padded

from nejax.neuron.clustering.kernel_kmeans import kmeans_from_distances
from nejax.neuron.clustering.kmeans import kmeans

N, D, MAX_CLUSTERS = 30, 6, 9
"""Every problem is padded to these sizes, so that few compilations serve all tests."""
KEY = jax.random.key(0)


def keys_of(n, seed=0):
    return jax.random.split(jax.random.key(seed), n)


def blobs(rng, n, d, n_blobs, separation, evenness=50.0):
    """Points around centres with unit noise; a low evenness makes some blobs much larger than others."""
    centres = separation * rng.normal(size=(n_blobs, d))
    shares = rng.dirichlet(np.full(n_blobs, evenness))
    return (centres[rng.choice(n_blobs, n, p=shares)] + rng.normal(size=(n, d))).astype("f4")


def far_blobs(rng, n, d, n_blobs):
    """Blobs of equal size, at right angles and far apart; and their labels."""
    labels = rng.permutation(np.arange(n) % n_blobs)
    return (9 * np.eye(n_blobs, d)[labels] + 0.3 * rng.normal(size=(n, d))).astype("f4"), labels


def units(x):
    """Rows at length 1, in float64; zero rows stay zero."""
    x = np.asarray(x, "f8")
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(length == 0, 1, length)


def centroids_of(x, labels, spherical):
    """`[k, d]` float64."""
    x, labels = units(x) if spherical else np.asarray(x, "f8"), np.asarray(labels)
    means = np.array([x[labels == c].mean(axis=0) for c in range(labels.max() + 1)])
    return units(means) if spherical else means


def inertia(x, labels, spherical):
    x, centroids = np.asarray(x, "f8"), centroids_of(x, labels, spherical)[np.asarray(labels)]
    if spherical:
        return 2 * (1 - np.sum(units(x) * centroids, axis=1)).sum()
    return np.square(x - centroids).sum()


def best_inertia_after_a_move(x, labels, n_clusters, spherical):
    """The least inertia that moving one row to another of the clusters gives: by trying all."""
    least = np.inf
    for row, cluster in itertools.product(range(len(x)), range(n_clusters)):
        moved = np.array(labels)
        moved[row] = cluster
        least = min(least, inertia(x, np.unique(moved, return_inverse=True)[1], spherical))
    return least


def best_inertia_of_all(x, n_clusters, spherical):
    """The least inertia that any labeling has, by trying all: for a handful of rows."""
    x = units(x) if spherical else np.asarray(x, "f8")
    labelings = np.array(list(itertools.product(range(n_clusters), repeat=len(x))))
    member = labelings[:, None, :] == np.arange(n_clusters)[None, :, None]
    sums, sizes = member @ x, member.sum(axis=2)
    squares = np.square(sums).sum(axis=2)
    if spherical:
        return (2 * len(x) - 2 * np.sqrt(squares).sum(axis=1)).min()
    return (np.square(x).sum() - (squares / np.maximum(sizes, 1)).sum(axis=1)).min()


class OfRows:
    """`kmeans`, on rows as they are."""

    function = staticmethod(kmeans)
    points = staticmethod(lambda x: np.asarray(x, "f8"))

    @staticmethod
    def data(x):
        return np.pad(np.asarray(x, "f4"), ((0, 0), (0, D - x.shape[1])))

    @staticmethod
    def pad(rng, x):
        rows = np.sort(rng.permutation(N)[: len(x)])
        full, mask = np.full((N, D), rng.choice([0, np.nan, np.inf, -np.inf, 3e38]), "f4"), np.zeros(N, bool)
        full[rows], mask[rows] = x, True
        return full, mask


class OfDistances:
    """`kmeans_from_distances`, on the cosine distances of rows."""

    function = staticmethod(kmeans_from_distances)
    points = staticmethod(units)

    @staticmethod
    def data(x):
        size = np.linalg.norm(np.asarray(x, "f8"), axis=1)
        return cosine_distances(np.where(size > 0, 1, np.nan)[:, None] * x)

    @staticmethod
    def pad(rng, distances):
        return padded(rng, distances, N)


@functools.cache
def _layer(function, choose, spherical):
    def one(data, mask, k, key):
        n_clusters = None if choose else k
        return function(data, n_clusters, mask=mask, key=key, max_clusters=MAX_CLUSTERS, spherical=spherical)

    return jax.jit(jax.vmap(one))


_BATCH = 8


def run(face, problems, n_clusters, spherical, seed=0):
    """Cluster each of some problems, padded in an own way.

    Args:
        face: `OfRows` or `OfDistances`.
        problems: each what `face.data` gives, of any number of rows up to N.
        n_clusters: of all, or of each; None to have it chosen.
        spherical: as in `kmeans`.
        seed: of the places of the rows.

    Returns:
        A list of results of NumPy arrays, with the labels of the problem's own rows.
    """
    rng = np.random.default_rng(seed)
    data, mask = map(np.array, zip(*(face.pad(rng, problem) for problem in problems), strict=True))
    numbers = np.broadcast_to(np.asarray(0 if n_clusters is None else n_clusters, np.int32), len(data))
    keys = keys_of(len(data))
    layer = _layer(face.function, n_clusters is None, spherical)
    results = []
    for start in range(0, len(data), _BATCH):
        at = np.arange(start, start + _BATCH) % len(data)  # the last batch is filled up
        found = jax.tree.map(np.asarray, layer(data[at], mask[at], numbers[at], keys[at]))
        for i in range(min(_BATCH, len(data) - start)):
            assert (found.labels[i][~mask[at[i]]] == -1).all()
            one = jax.tree.map(lambda leaf, i=i: leaf[i], found)
            results.append(one._replace(labels=one.labels[mask[at[i]]]))
    assert layer._cache_size() == 1, "one compilation, whatever the masks and the numbers"
    return results
