"""Features of a layer against SciPy and NumPy in float64, one neuron at a time."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from neuron.distance_cases import same_partition
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse.csgraph import connected_components as scipy_components

from nejax.errors import UserError
from nejax.neuron.clustering.kernel_kmeans import kmeans_from_distances
from nejax.neuron.clustering.labels import largest_first
from nejax.neuron.clustering.quality import silhouette
from nejax.neuron.clustering.spectral import spectral
from nejax.neuron.defaults import HEIGHT_QUANTILE, Method
from nejax.neuron.embeddings import embedding_distances
from nejax.neuron.polysemanticity import Polysemanticity
from nejax.neuron.split import Split, calibrated_height
from nejax.pipeline.passes import split as features_module
from nejax.pipeline.passes.split import LayerClusterer
from nejax.pipeline.run.settings import Clustering

D, N_NEURONS, N_EXAMPLES, N_INPUTS, N_REFERENCE = 16, 11, 14, 70, 24
DEAD, ALONE = 4, 6
"""A neuron without examples, and one with a single one."""


class Layer:
    """Inputs in a few loose groups, weights, and which inputs each neuron's examples have."""

    def __init__(self, seed: int, n_inputs: int = N_INPUTS):
        rng = np.random.default_rng(seed)
        centres = 2 * rng.normal(size=(5, D))
        self.inputs = (centres[rng.integers(0, 5, n_inputs)] + rng.normal(size=(n_inputs, D))).astype("f4")
        self.reference = (centres[rng.integers(0, 5, N_REFERENCE)] + rng.normal(size=(N_REFERENCE, D))).astype("f4")
        self.w_in = rng.normal(size=(D, N_NEURONS)).astype("f4")
        self.input_of = np.full((N_NEURONS, N_EXAMPLES), -1, np.int32)
        for neuron, n in enumerate(rng.integers(2, N_EXAMPLES + 1, N_NEURONS)):
            n = {DEAD: 0, ALONE: 1}.get(neuron, n)
            self.input_of[neuron, :n] = rng.permutation(n_inputs)[:n]

    def embeddings(self, neuron: int) -> np.ndarray:
        """Float64, of the examples there are, at length 1."""
        rows = self.input_of[neuron][self.input_of[neuron] >= 0]
        return unit(self.inputs[rows].astype(np.float64) * self.w_in[:, neuron])

    def reference_distances(self, neuron: int) -> np.ndarray:
        """Float64, over all pairs."""
        e = unit(self.reference.astype(np.float64) * self.w_in[:, neuron])
        return np.array([1 - e[i] @ e[j] for i in range(len(e)) for j in range(i)])


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def clusterer(method: Method = "average", mesh: Mesh | None = None, **settings) -> LayerClusterer:
    clustering = Clustering(method, **settings)
    return LayerClusterer(n_inputs=N_INPUTS, n_examples=N_EXAMPLES, d_model=D, clustering=clustering, mesh=mesh)


@pytest.fixture(scope="module")
def layer() -> Layer:
    return Layer(0)


@pytest.fixture(scope="module")
def calibrated(layer) -> tuple[Split, np.ndarray]:
    return clusterer()(layer.inputs, layer.input_of, layer.reference, layer.w_in)


def partition(distances: np.ndarray, height: float, clustering: str) -> np.ndarray:
    """By SciPy; fails where the height is so near a merge that float32 could decide otherwise."""
    n = len(distances)
    if n < 2:
        return np.zeros(n, int)
    assert np.abs(distances[np.triu_indices(n, 1)] - height).min() > 1e-6
    if clustering == "components":
        return scipy_components(distances <= height)[1]
    z = linkage(distances[np.triu_indices(n, 1)], "average")
    assert np.abs(z[:, 2] - height).min() > 1e-6
    return fcluster(z, height, "distance")


def measures(distances: np.ndarray, labels: np.ndarray) -> Polysemanticity:
    """Pair by pair."""
    pairs = [(distances[i, j], labels[i] == labels[j]) for j in range(len(labels)) for i in range(j)]

    def mean(values: list[float]) -> float:
        return float(np.mean(values)) if values else np.nan

    return Polysemanticity(
        max((d for d, _ in pairs), default=np.nan),
        mean([d for d, _ in pairs]),
        mean([d for d, same in pairs if same]),
        mean([d for d, same in pairs if not same]),
        len(labels),
        len(set(labels.tolist())),
    )


def assert_is_oracle(found: Split, directions: np.ndarray, layer: Layer, clustering="average", height=None):
    """Every neuron: partition, names of clusters, measures, cohesion, centres and directions."""
    assert found.directions.shape == (N_NEURONS, 0, 0)
    row = 0
    for neuron in range(N_NEURONS):
        e = layer.embeddings(neuron)
        n, distances = len(e), 1 - e @ e.T
        np.fill_diagonal(distances, 0)
        wanted = height or np.quantile(layer.reference_distances(neuron), HEIGHT_QUANTILE)
        np.testing.assert_allclose(found.height[neuron], wanted, rtol=1e-5)
        label = found.label[neuron, :n]
        assert (found.label[neuron, n:] == -1).all() and np.isnan(found.cohesion[neuron, n:]).all()
        assert found.linkage.n_merges[neuron] == max(n - 1, 0)
        assert np.isnan(found.coordinates[neuron, n:]).all()
        if n > 1:
            variances = np.linalg.eigvalsh((e - e.mean(axis=0)) @ (e - e.mean(axis=0)).T)[::-1]
            np.testing.assert_allclose(
                found.coordinates_share[neuron], variances[:2].sum() / variances.sum(), rtol=1e-5
            )
            axes = found.coordinates[neuron, :n].T
            np.testing.assert_allclose(axes @ axes.T, np.diag(variances[:2]), rtol=1e-5, atol=1e-5)
        assert same_partition(label, partition(distances, float(wanted), clustering))
        names, sizes = np.unique(label, return_counts=True)
        assert names.tolist() == list(range(len(names)))
        first = [int(np.flatnonzero(label == c)[0]) for c in names]
        order = sorted(names, key=lambda c: (-sizes[c], first[c]))
        assert order == names.tolist(), "the largest is 0, ties to the one with the strongest example"
        for name, got, expected in zip(
            Polysemanticity._fields, found.measures, measures(distances, label), strict=True
        ):
            np.testing.assert_allclose(got[neuron], expected, rtol=1e-5, err_msg=name)
        assert (found.central[neuron, len(names) :] == -1).all()
        for c in names:
            members = np.flatnonzero(label == c)
            inside = 1 - distances[np.ix_(members, members)]
            means = (inside.sum(axis=1) - 1) / max(len(members) - 1, 1)
            if len(members) > 1:
                np.testing.assert_allclose(found.cohesion[neuron, members], means, rtol=1e-5, atol=1e-6)
            else:
                assert np.isnan(found.cohesion[neuron, members]).all()
            # A pair ties by nature, and the stronger example, which comes first, stands for it.
            best = members[np.flatnonzero(means >= means.max() - 1e-12)[0]]
            assert found.central[neuron, c] == best
            np.testing.assert_allclose(directions[row], unit(e[members].mean(axis=0)), rtol=1e-5, atol=1e-6)
            row += 1
    assert directions.shape == (row, D) and directions.dtype == np.float32


def test_calibrated_average_linkage(calibrated, layer):
    found, directions = calibrated
    assert_is_oracle(found, directions, layer)
    sizes = [np.bincount(label[label >= 0]) for label in found.label if (label >= 0).any()]
    assert max(map(len, sizes)) > 2 and max(size.max() for size in sizes) > 2, "there must be something to cluster"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("clustering", "height"), [("components", 0.5), pytest.param("average", 0.9, marks=pytest.mark.slow)]
)
def test_a_height_for_all_neurons(clustering, height, layer):
    found, directions = clusterer(clustering, height=height)(layer.inputs, layer.input_of, layer.reference, layer.w_in)
    assert_is_oracle(found, directions, layer, clustering, height)


def test_the_dendrogram_is_that_of_scipy_whatever_the_clustering(calibrated, layer):
    found, _ = calibrated
    for neuron in range(N_NEURONS):
        e = layer.embeddings(neuron)
        n = len(e)
        if n < 2:
            continue
        z = linkage((1 - e @ e.T)[np.triu_indices(n, 1)], "average")
        merges = found.linkage.merges[neuron]
        np.testing.assert_allclose(merges[: n - 1, 2:], z[:, 2:], rtol=1e-5, atol=1e-6)
        assert (merges[n - 1 :, :2] == -1).all() and np.isinf(merges[n - 1 :, 2]).all()


def test_a_dead_neuron_has_no_feature_and_a_single_example_is_one(calibrated):
    found, _ = calibrated
    assert (found.label[DEAD] == -1).all() and (found.central[DEAD] == -1).all()
    assert found.measures.n_examples[DEAD] == found.measures.n_clusters[DEAD] == 0
    assert found.label[ALONE].tolist() == [0] + [-1] * (N_EXAMPLES - 1) and found.central[ALONE, 0] == 0
    for measure in (*found.measures[:4], found.coordinates_share):
        assert np.isnan(measure[[DEAD, ALONE]]).all()
    assert found.coordinates[ALONE, 0].tolist() == [0, 0] and np.isnan(found.coordinates[DEAD]).all()


def assert_close(found: tuple[Split, np.ndarray], wanted: tuple[Split, np.ndarray]) -> None:
    for got, expected in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert got.dtype == expected.dtype
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("per_chunk", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_one_compilation_serves_all_chunks_and_layers(per_chunk, calibrated, layer, monkeypatch):
    """Eleven neurons, four at a time, leave a chunk that is not full; another layer has fewer distinct inputs."""
    traced = []
    plain = features_module.split
    monkeypatch.setattr(features_module, "split", lambda *a, **b: traced.append(1) or plain(*a, **b))
    split = clusterer()
    assert split.chunk > N_NEURONS
    split.chunk = per_chunk
    found = split(layer.inputs, layer.input_of, layer.reference, layer.w_in)
    assert len(traced) == 1
    assert_close(found, calibrated)
    other = Layer(5, n_inputs=31)
    found, directions = split(other.inputs, other.input_of, other.reference, other.w_in)
    assert len(traced) == 1
    assert_is_oracle(found, directions, other)


@pytest.mark.slow
def test_neurons_side_by_side_as_on_accelerators(calibrated, layer, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    jax.clear_caches()  # of functions traced for the CPU
    assert_close(clusterer()(layer.inputs, layer.input_of, layer.reference, layer.w_in), calibrated)
    jax.clear_caches()


@pytest.mark.slow
def test_neurons_that_start_at_random_side_by_side(layer, monkeypatch):
    """Spectral clustering has k-means in it."""
    args = layer.inputs, layer.input_of, layer.reference, layer.w_in
    expected = clusterer("spectral")(*args)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    jax.clear_caches()
    assert_close(clusterer("spectral")(*args), expected)
    jax.clear_caches()


@pytest.mark.slow
@pytest.mark.parametrize(("method", "given"), [("kmeans", None), ("spectral", 3)])
def test_methods_that_start_at_random(method, given, layer):
    """Each neuron's labels are those of the function alone, whatever its place in a chunk; measures are of these."""
    args = layer.inputs, layer.input_of, layer.reference, layer.w_in
    split = clusterer(method, n_clusters=given, max_clusters=6)
    found, directions = split(*args, layer=2)
    assert np.isnan(found.height).all() and directions.shape == (found.measures.n_clusters.sum(), D)
    split.chunk = 3
    assert_close(split(*args, layer=2), (found, directions))
    counts = found.measures.n_clusters
    n = (layer.input_of >= 0).sum(1)
    if given:
        np.testing.assert_array_equal(counts, np.minimum(n, 3))
    assert counts[DEAD] == 0 and counts[ALONE] == 1 and counts.max() > 2
    for neuron in range(N_NEURONS):
        x = jnp.asarray(layer.inputs[np.maximum(layer.input_of[neuron], 0)])
        distances, mask = embedding_distances(x, jnp.asarray(layer.w_in[:, neuron])), layer.input_of[neuron] >= 0
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 2), neuron)
        if method == "spectral":
            k = None if given is None else jnp.int32(max(min(n[neuron], 3), 1))
            labels = spectral(distances, k, key=key, mask=mask, max_clusters=given or 6).labels
        else:
            k = None if given is None else jnp.int32(max(min(n[neuron], 3), 1))
            labels = kmeans_from_distances(
                distances, k, key=key, mask=mask, max_clusters=given or 6, spherical=True
            ).labels
        np.testing.assert_array_equal(found.label[neuron], largest_first(labels))
        mean = silhouette(distances, labels).mean
        np.testing.assert_allclose(found.silhouette[neuron], mean, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_the_number_of_devices_does_not_matter(tmp_path):
    """Three cores that are devices of their own give what one gives; eleven neurons do not divide by three."""
    code = (
        "import sys, numpy as np, jax; jax.config.update('jax_num_cpu_devices', 3)\n"
        "from test_features import Layer, clusterer\n"
        "from nejax.pipeline.run.devices import mesh_of\n"
        "layer = Layer(0)\n"
        "for n in (1, 3):\n"
        "    for method in ('components', 'spectral'):\n"
        "        split = clusterer(method, mesh=mesh_of(jax.devices()[:n]))\n"
        "        split.chunk = 2 * n\n"
        "        found, directions = split(layer.inputs, layer.input_of, layer.reference, layer.w_in)\n"
        "        np.savez(f'{sys.argv[1]}/{method}-{n}.npz', *jax.tree.leaves(found), directions)"
    )
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent), str(here.parents[1])])
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=os.environ | {"PYTHONPATH": path}, check=True)
    for method in ("components", "spectral"):
        alone, together = (np.load(tmp_path / f"{method}-{n}.npz") for n in (1, 3))
        assert len(alone.files) == len(together.files) > 10
        for name in alone.files:
            np.testing.assert_allclose(together[name], alone[name], rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_a_layer_of_dead_neurons(layer):
    found, directions = clusterer()(layer.inputs, np.full_like(layer.input_of, -1), layer.reference, layer.w_in)
    assert (found.label == -1).all() and (found.measures.n_examples == 0).all() and directions.shape == (0, D)


@pytest.mark.slow
def test_half_precision_weights_are_used_as_float32(layer):
    w_in = jnp.asarray(layer.w_in, jnp.bfloat16)
    found, directions = clusterer(height=0.9)(layer.inputs, layer.input_of, layer.reference, w_in)
    rounded = Layer(0)
    rounded.w_in = np.asarray(w_in.astype(jnp.float32))
    assert_is_oracle(found, directions, rounded, height=0.9)


# --- heights


def test_the_calibrated_height_is_a_quantile_of_the_reference_distances(layer):
    found = jax.jit(calibrated_height, static_argnums=2)
    reference = jnp.asarray(layer.reference)
    for quantile in (0.05, 0.99):
        wanted = np.quantile(layer.reference_distances(5), quantile)
        np.testing.assert_allclose(found(reference, jnp.asarray(layer.w_in[:, 5]), quantile), wanted, rtol=1e-5)


@pytest.mark.parametrize("n_reference", [0, 1])
def test_without_a_pair_of_reference_inputs_there_is_nothing_to_calibrate_by(n_reference, layer):
    with pytest.raises(UserError, match=f"the corpus has {n_reference} positions .* or give height"):
        clusterer()(layer.inputs, layer.input_of, layer.reference[:n_reference], layer.w_in)


# --- names of clusters

_largest_first = jax.jit(largest_first)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([0, 1, 1, 2, 2, 2], [2, 1, 1, 0, 0, 0]),
        ([0, 1, 0, 1], [0, 1, 0, 1]),  # equally large: the first comes first
        ([-1, 0, -1, 1, 1], [-1, 1, -1, 0, 0]),
        ([-1, -1, -1], [-1, -1, -1]),
        ([0], [0]),
    ],
)
def test_largest_first(labels, expected):
    padded = jnp.array(labels + [-1] * (7 - len(labels)))
    assert _largest_first(padded).tolist() == expected + [-1] * (7 - len(expected))


@pytest.mark.slow
def test_weights_of_zero_leave_nothing_defined(layer):
    """Embeddings without direction are at distance 1 by convention, which is no measure of anything."""
    none = Layer(0)
    none.w_in[:, [0, 2]] = 0
    found, directions = clusterer()(none.inputs, none.input_of, none.reference, none.w_in)
    for measure in (*found.measures[:4], found.silhouette, found.coordinates_share, found.cohesion):
        assert np.isnan(measure[[0, 2]]).all()
    assert np.isfinite(found.measures.mean_distance[[1, 3]]).all()
    assert found.measures.n_examples[0] == (none.input_of[0] >= 0).sum()
    first = int(found.measures.n_clusters[0])  # one feature: no pair of random inputs is nearer
    assert not directions[:first].any() and directions[first:].any(axis=1).sum() == len(directions) - 2 * first


def test_embeddings_on_one_line_have_two_directions(layer):
    """With a single weight that is not zero: distances are 0 and 2, nothing between, and rounding makes no clusters."""
    one = Layer(0)
    one.w_in[:, 3] = 0
    one.w_in[2, 3] = 1.7
    found, _ = clusterer()(one.inputs, one.input_of, one.reference, one.w_in)
    rows = one.input_of[3][one.input_of[3] >= 0]
    assert same_partition(found.label[3, : len(rows)], (one.inputs[rows, 2] > 0).astype(int))
    assert found.measures.n_clusters[3] == 2 and found.measures.intra_cluster_distance[3] == 0
    np.testing.assert_allclose(found.measures.inter_cluster_distance[3], 2, rtol=1e-6)
