"""Rules that say how many features a neuron has, from the distances of its examples."""

from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Array

import nejax
from benchmarks.truth.arms import Views
from benchmarks.truth.gap import gap_labels
from benchmarks.truth.mapped import mapped
from benchmarks.truth.units import SUPPORT

MAX_CLUSTERS = 20
"""That rules which search may choose."""

Rule = Callable[[Views], np.ndarray]
"""Neurons -> [m, n] the cluster of each example, -1 for none."""


def _each(of_one: Callable[..., Array]) -> Rule:
    """A rule from one for a neuron: `distances, mask, calibrated, unrelated -> labels`."""
    of_all = mapped(of_one)
    return lambda views: of_all(*views)


@_each
def fixed_height(distances: Array, mask: Array, _: Array, __: Array) -> Array:
    """Average linkage cut at 0.5: Foote 2024."""
    return nejax.cut(nejax.average_linkage(distances, mask), 0.5)


@_each
def calibrated_height(distances: Array, mask: Array, calibrated: Array, _: Array) -> Array:
    """Average linkage cut at the 5% quantile of unrelated inputs' distances."""
    return nejax.cut(nejax.average_linkage(distances, mask), calibrated)


@_each
def silhouette(distances: Array, mask: Array, _: Array, __: Array) -> Array:
    """Spherical k-means, its number of clusters that of the highest mean silhouette."""
    settings = {"mask": mask, "spherical": True, "max_clusters": MAX_CLUSTERS, "n_restarts": 3}
    return nejax.kmeans_from_distances(distances, None, key=jax.random.key(0), **settings).labels


@_each
def eigengap(distances: Array, mask: Array, _: Array, __: Array) -> Array:
    """Spectral clustering, its number of clusters by the eigengap."""
    settings = {"mask": mask, "max_clusters": MAX_CLUSTERS, "n_restarts": 3}
    return nejax.spectral(distances, None, key=jax.random.key(0), **settings).labels


@_each
def five_means(distances: Array, mask: Array, _: Array, __: Array) -> Array:
    """k-means with k = 5, as PRISM has it (Kopf et al. 2025, there on embeddings of texts)."""
    return nejax.kmeans_from_distances(distances, 5, key=jax.random.key(0), mask=mask, n_restarts=3).labels


@_each
def gap_statistic(distances: Array, mask: Array, _: Array, __: Array) -> Array:
    """k-means with the number of clusters that the gap statistic chooses."""
    return gap_labels(distances, mask)


def hdbscan(views: Views) -> np.ndarray:
    """scikit-learn's HDBSCAN with clusters of at least five; it may leave examples out, and find none."""
    from sklearn.cluster import HDBSCAN  # other subjects do without it

    labels = np.full(views.mask.shape, -1)
    for row, distances, mask in zip(labels, views.distances, views.mask, strict=True):
        n = mask.sum()
        method = HDBSCAN(min_cluster_size=SUPPORT, metric="precomputed", copy=True)  # pyright: ignore[reportArgumentType]
        row[:n] = method.fit_predict(distances[:n, :n].astype(np.float64))
    return labels


@_each
def separated(distances: Array, mask: Array, _: Array, unrelated: Array) -> Array:
    """The dendrogram split where its sides are separated, bottom up: nejax's."""
    return nejax.separated(distances, nejax.average_linkage(distances, mask), unrelated).labels


RULES: dict[str, Rule] = {
    "fixed 0.5": fixed_height,
    "5% quantile": calibrated_height,
    "silhouette": silhouette,
    "eigengap": eigengap,
    "k-means, k = 5": five_means,
    "gap statistic": gap_statistic,
    "HDBSCAN": hdbscan,
    "separated": separated,
}


def large_only(labels: np.ndarray) -> np.ndarray:
    """[m, n] labels without the clusters that have less than `SUPPORT` examples."""
    found = labels.copy()
    for row in found:
        size = np.bincount(row[row >= 0], minlength=1)
        row[(row >= 0) & (size[row] < SUPPORT)] = -1
    return found
