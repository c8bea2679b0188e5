"""The measures of units: SciPy for distances and clusters, plain NumPy for which examples are first."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist, squareform

from nejax.neuron.streaming.unit_measures import measure_units

D, N_UNITS, HEIGHT = 12, 30, 0.2


@pytest.fixture(scope="module")
def problem() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs, weights, and units of which some fire often, some once, some never."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(700, D)).astype(np.float32), rng.normal(size=(D, N_UNITS)).astype(np.float32)
    height = np.quantile(x @ w, rng.uniform(0.3, 0.999, N_UNITS), axis=0).diagonal().copy()
    height[3], height[4] = np.inf, np.sort(x @ w[:, 4])[-2]  # never, and once
    return x, w, height.astype(np.float32)


def above(height, x):
    return x @ height[0] > height[1]


@pytest.mark.parametrize("batch_size", [700, 64, 10_000])
def test_against_scipy_one_unit_at_a_time(batch_size, problem):
    x, w, height = problem
    given = jnp.asarray(w), jnp.asarray(height)
    found = measure_units(x, w, above, given, n_examples=40, height=HEIGHT, batch_size=batch_size)
    fires = np.asarray(jnp.asarray(x) @ w) > height
    assert (found.n_fired == fires.sum(axis=0)).all() and found.n_dead == 1
    assert found.n_fired.min() == 0 and 1 in found.n_fired and found.n_fired.max() > 40
    for unit in range(N_UNITS):
        there = np.flatnonzero(fires[:, unit])
        first = found.first[unit]
        assert (first[: len(there[:40])] == there[:40]).all() and (first[len(there[:40]) :] == -1).all()
        ours = {name: values[unit] for name, values in found.measures._asdict().items()}
        assert ours["n_examples"] == min(40, len(there))
        if len(there) < 2:
            assert np.isnan(ours["mean_distance"]) and np.isnan(found.streaming_mean_distance[unit])
            continue
        embeddings = x.astype(np.float64) * w[:, unit]
        distances = pdist(embeddings[there[:40]], "cosine")
        np.testing.assert_allclose(ours["mean_distance"], distances.mean(), rtol=1e-5)
        np.testing.assert_allclose(ours["max_distance"], distances.max(), rtol=1e-5)
        labels = fcluster(linkage(distances, "average"), HEIGHT, "distance")
        assert ours["n_clusters"] == labels.max()
        same = (labels[:, None] == labels)[np.triu_indices(len(labels), 1)]
        of_pairs = squareform(distances)[np.triu_indices(len(labels), 1)]
        if same.any():
            np.testing.assert_allclose(ours["intra_cluster_distance"], of_pairs[same].mean(), rtol=1e-4, atol=1e-6)
        everywhere = pdist(embeddings[there], "cosine").mean()
        np.testing.assert_allclose(found.streaming_mean_distance[unit], everywhere, rtol=1e-5)


def test_more_units_than_one_call_measures(problem, monkeypatch):
    x, w, height = problem
    given = jnp.asarray(w), jnp.asarray(height)
    whole = measure_units(x, w, above, given, n_examples=20)
    monkeypatch.setattr("nejax.neuron.streaming.unit_measures.CHUNK", 7)  # 4 calls of 7 units and one of 2
    parts = measure_units(x, w, above, given, n_examples=20)
    for a, b in zip(whole.measures, parts.measures, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_means_leave_out_units_without_a_number(problem):
    x, w, height = problem
    found = measure_units(x, w, above, (jnp.asarray(w), jnp.asarray(height)))
    distance = np.asarray(found.measures.mean_distance)
    assert np.isnan(distance).sum() == 2
    assert found.mean(distance) == pytest.approx(np.nanmean(distance.astype(np.float64)), rel=1e-12)
    assert np.isnan(found.mean(np.full(3, np.nan)))


def test_one_input_alone():
    found = measure_units(np.ones((1, 3), np.float32), np.eye(3, dtype=np.float32), lambda of, x: x > 0)
    assert (found.n_fired == 1).all() and np.isnan(found.measures.mean_distance).all()
    assert (found.first[:, 0] == 0).all() and (found.first[:, 1:] == -1).all()
