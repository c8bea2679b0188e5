"""What must hold of every function of one neuron: padding, order and `jit`; see `contract_cases` for more."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from distance_cases import same_partition

from nejax.neuron.clustering.average_linkage import average_linkage, cut
from nejax.neuron.clustering.connected_components import connected_components
from nejax.neuron.clusters import central_examples, cohesion, feature_directions, feature_similarity
from nejax.neuron.embeddings import embedding_distances, neuron_embeddings
from nejax.neuron.polysemanticity import polysemanticity

D_MODEL, HEIGHT = 16, 0.5


def analyse(x, w, mask):
    """Everything there is to know of one neuron."""
    distances = embedding_distances(x, w)
    linkage = average_linkage(distances, mask)
    labels = cut(linkage, HEIGHT)
    directions = feature_directions(x, w, labels)
    return {
        "embeddings": neuron_embeddings(x, w),
        "heights": linkage.merges[:, 2],
        "labels": labels,
        "components": connected_components(distances, HEIGHT, mask),
        "measures": jnp.stack(polysemanticity(distances, labels)),
        "cohesion": cohesion(distances, labels),
        "centres": central_examples(distances, labels),
        "directions": directions,
        "similarity": feature_similarity(x, w, directions),
    }


def neuron(seed, n=11):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(3, D_MODEL))
    x = centres[rng.integers(0, 3, n)] + 0.7 * rng.normal(size=(n, D_MODEL))
    return x.astype("f4"), rng.normal(size=D_MODEL).astype("f4")


def assert_same(got, expected):
    for name in expected:
        # products of other shapes round differently: absolute differences of some 1e-7 in a cosine
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-5, atol=1e-6, err_msg=name)


run = jax.jit(analyse)


@pytest.mark.parametrize("seed", range(10))
def test_padded_is_unpadded(seed):
    x, w = neuron(seed)
    n, size = 18, len(x)
    expected = {name: np.asarray(value) for name, value in run(x, w, np.ones(size, bool)).items()}
    rows = np.sort(np.random.default_rng(seed).permutation(n)[:size])
    mask = np.zeros(n, bool)
    mask[rows] = True
    padded_x = np.full((n, D_MODEL), np.nan, "f4")
    padded_x[rows] = x
    got = {name: np.asarray(value) for name, value in run(padded_x, w, mask).items()}
    for name in ("labels", "components"):
        assert (got[name][~mask] == -1).all()
    assert (got["centres"][size:] == -1).all()
    got["heights"] = got["heights"][: size - 1]
    got["measures"] = got["measures"]
    got["similarity"] = got["similarity"][rows][:, :size]
    got["directions"] = got["directions"][:size]
    got["centres"] = np.where(got["centres"] >= 0, np.searchsorted(rows, got["centres"]), -1)[:size]
    for name in ("embeddings", "labels", "components", "cohesion"):
        got[name] = got[name][rows]
    assert_same(got, expected)
    assert len(set(expected["labels"])) > 1


@pytest.mark.parametrize("seed", range(10))
def test_the_order_of_the_examples_does_not_matter(seed):
    x, w = neuron(seed)
    mask = np.arange(len(x)) != 4
    order = np.random.default_rng(seed).permutation(len(x))
    expected = {name: np.asarray(value) for name, value in run(x, w, mask).items()}
    got = {name: np.asarray(value) for name, value in run(x[order], w, mask[order]).items()}
    np.testing.assert_allclose(got["heights"], expected["heights"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got["measures"], expected["measures"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got["cohesion"], expected["cohesion"][order], rtol=1e-5, atol=1e-6)
    for name in ("labels", "components"):
        assert same_partition(got[name], expected[name][order])
    for label, centre in enumerate(got["centres"]):
        if centre >= 0:
            before = expected["labels"][order[centre]]
            members = expected["labels"] == before
            # of two examples either may be the central one
            assert members.sum() == 2 or order[centre] == expected["centres"][before]
            np.testing.assert_allclose(got["directions"][label], expected["directions"][before], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_jit_is_python():
    x, w = neuron(0, n=4)
    mask = np.array([True, True, False, True])
    with jax.disable_jit():
        expected = analyse(jnp.asarray(x), jnp.asarray(w), jnp.asarray(mask))
    assert_same(run(x, w, mask), expected)


def test_a_loss_through_clusters_has_a_gradient():
    x, w = neuron(0)

    def loss(x):
        distances = embedding_distances(x, w)
        labels = cut(average_linkage(distances), HEIGHT)
        components = connected_components(distances, HEIGHT)
        within = polysemanticity(distances, labels).intra_cluster_distance
        return within + polysemanticity(distances, components).mean_distance

    gradient = jax.grad(loss)(jnp.asarray(x))
    assert np.isfinite(gradient).all()
    # a small step against the gradient moves no example to another cluster and lowers the distances
    assert loss(x - 1e-3 * gradient) < loss(x)


def test_eager_calls_compile_once_for_a_shape():
    rng = np.random.default_rng(0)
    distances = np.asarray(embedding_distances(*neuron(0, n=13)))
    before = {f: f.__wrapped__._cache_size() for f in (average_linkage, cut, connected_components, polysemanticity)}
    for share in (0.0, 0.4, 1.0):
        mask, height = rng.uniform(size=13) < share, float(rng.uniform())
        labels = cut(average_linkage(distances, mask), height)
        polysemanticity(distances, labels)
        connected_components(distances, height, mask)
    assert {f: f.__wrapped__._cache_size() - n for f, n in before.items()} == dict.fromkeys(before, 1)
