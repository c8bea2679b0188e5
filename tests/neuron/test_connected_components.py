import jax
import numpy as np
import pytest
from distance_cases import DISTINCT, TIED, padded, same_partition, uniform
from scipy.cluster import hierarchy
from scipy.sparse import csgraph
from scipy.spatial.distance import squareform

from nejax.neuron.clustering.connected_components import connected_components

at_all_heights = jax.jit(jax.vmap(connected_components, (None, 0, None)))


@pytest.mark.parametrize("kind", DISTINCT + TIED)
def test_equal_to_scipy_graph_components_and_to_single_linkage(kind):
    rng = np.random.default_rng(0)
    n = 30
    n_components = set()
    for size in (2, 3, 10, 25, 30):
        case = kind(rng, size)
        distances, mask = padded(rng, case, n)
        z = hierarchy.linkage(squareform(case.astype("f8")), "single")
        heights = np.concatenate([np.linspace(-0.1, 2, 8), np.quantile(z[:, 2], np.linspace(0, 1, 8))]).astype("f4")
        for height, labels in zip(heights, np.asarray(at_all_heights(distances, heights, mask)), strict=True):
            count, expected = csgraph.connected_components((case <= height) & ~np.eye(size, dtype=bool))
            assert same_partition(labels[mask], expected)
            assert same_partition(labels[mask], hierarchy.fcluster(z, float(height), criterion="distance"))
            _, first = np.unique(labels[mask], return_index=True)
            assert (np.diff(first) > 0).all(), "labels in order of first appearance"
            assert labels.max() == count - 1
            assert (labels[~mask] == -1).all()
            n_components.add(count)
    assert len(n_components) > 3


@pytest.mark.parametrize("order", ["in order", "reversed", "shuffled", "ends first"])
def test_a_path_is_one_component(order):
    n = 200
    place = {
        "in order": np.arange(n),
        "reversed": np.arange(n)[::-1],
        "shuffled": np.random.default_rng(0).permutation(n),
        "ends first": np.concatenate([np.arange(0, n, 2), np.arange(1, n, 2)[::-1]]),
    }[order]
    distances = np.abs(place[:, None] - place[None, :]).astype("f4")
    assert connected_components(distances, 1.0).tolist() == [0] * n
    assert connected_components(distances, 0.5).tolist() == list(range(n))


def test_one_row_and_everything_masked():
    assert connected_components(np.zeros((1, 1), "f4"), 0.1).tolist() == [0]
    assert connected_components(np.zeros((3, 3), "f4"), 0.1, np.zeros(3, bool)).tolist() == [-1] * 3


def test_infinity_is_no_edge_and_nan_gives_no_answer():
    distances = uniform(np.random.default_rng(0), 4)
    distances[0, 1:] = np.inf
    assert connected_components(distances, 2.0).tolist() == [0, 1, 1, 1]
    distances[2, 3] = np.nan
    assert connected_components(distances, 2.0).tolist() == [-1] * 4
