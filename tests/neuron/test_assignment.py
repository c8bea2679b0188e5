"""Which feature an input excites: against loops in float64, and the minimum against mean distances themselves."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nejax
from nejax.errors import UserError
from nejax.neuron.assignment import assign, min_similarity, min_similarity_of_features
from nejax.neuron.clustering.average_linkage import average_linkage, cut
from nejax.neuron.clusters import cohesion, feature_directions
from nejax.neuron.embeddings import embedding_distances

D = 12


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def case(seed, m=200, k=5):
    rng = np.random.default_rng(seed)
    x, w = rng.normal(size=(m, D)).astype("f4"), rng.normal(size=D).astype("f4")
    return x, w, unit(rng.normal(size=(k, D))).astype("f4"), rng.uniform(0.1, 0.6, k).astype("f4")


def one_by_one(x, w, directions, minimum):
    """The definition, an input and a feature at a time in float64."""
    features, similarities = [], []
    for row in x.astype("f8") * w:
        cosines = [row @ c / np.linalg.norm(row) for c in directions.astype("f8")]
        reached = [f for f, cosine in enumerate(cosines) if cosine >= minimum[f]]
        features.append(max(reached, key=lambda f: cosines[f]) if reached else -1)
        similarities.append(cosines[features[-1]] if reached else max(cosines))
    return features, similarities


@pytest.mark.parametrize("seed", range(6))
def test_each_input_has_the_nearest_feature_whose_own_minimum_it_reaches(seed):
    x, w, directions, minimum = case(seed)
    features, similarities = one_by_one(x, w, directions, minimum)
    found = assign(x, w, directions, minimum)
    assert found.feature.dtype == jnp.int32
    np.testing.assert_array_equal(found.feature, features)
    # sums of 12 products in float32: off by 1e-7 at most
    np.testing.assert_allclose(found.similarity, similarities, rtol=1e-5, atol=3e-7)
    assert -1 in features and len(set(features)) >= 5
    nearest = np.argmax(unit(x * w) @ directions.T, axis=1)
    assert ((features != nearest) & (np.array(features) >= 0)).any(), "some miss the minimum of a nearer feature"


def test_one_minimum_for_all_and_its_default():
    x, w, directions, _ = case(0)
    expected = one_by_one(x, w, directions, [0.5] * 5)[0]
    for found in (
        assign(x, w, directions),
        assign(x, w, directions, 0.5),
        nejax.assign(x, w, directions, np.full(5, 0.5)),
    ):
        np.testing.assert_array_equal(found.feature, expected)
    assert (assign(x, w, directions, -1.0).feature >= 0).all()


def test_a_minimum_is_reached_by_what_is_equal_to_it_and_the_first_of_equal_features_is_taken():
    x, w = np.array([[3.0, 4.0]], "f4"), np.ones(2, "f4")
    directions = np.array([[0, 1], [1, 0], [1, 0]], "f4")
    similarity = assign(x, w, directions[1:2], -1.0).similarity[0]
    assert assign(x, w, directions[1:], np.array([similarity] * 2)).feature.tolist() == [0]
    assert assign(x, w, directions, np.array([0.81, similarity, similarity])).feature.tolist() == [1]
    assert assign(x, w, directions[1:], np.nextafter(similarity, 1)).feature.tolist() == [-1]


def test_zero_directions_and_zero_embeddings_are_never_assigned():
    x, w, directions, _ = case(1)
    x[3] = 0
    x[4], w[:6] = np.arange(D) < 6, 0  # no entry in common
    masked = np.concatenate([directions, np.zeros((3, D), "f4")])
    found, expected = assign(x, w, masked, -1.0), assign(x, w, directions, -1.0)
    np.testing.assert_array_equal(found.feature, expected.feature)
    np.testing.assert_allclose(found.similarity, expected.similarity, rtol=1e-6)
    assert np.flatnonzero(found.feature == -1).tolist() == [3, 4]
    assert found.similarity[3] == 0 == found.similarity[4]
    # nor does a zero direction stand for the nearest
    opposite = assign(x[:1], w, np.concatenate([-unit(x[:1] * w), np.zeros((2, D))]).astype("f4"), 0.5)
    assert opposite.feature.tolist() == [-1]
    np.testing.assert_allclose(opposite.similarity, [-1], rtol=1e-6)


@pytest.mark.parametrize("k", [0, 4])
def test_a_neuron_without_features(k):
    x, w, _, _ = case(2)
    found = assign(x, w, np.zeros((k, D), "f4"), -1.0)
    assert (found.feature == -1).all() and np.isnan(found.similarity).all()


def test_inputs_that_are_not_finite_excite_nothing():
    x, w, directions, _ = case(3)
    x[2, 1] = np.nan
    found = assign(x, w, directions, -1.0)
    assert found.feature[2] == -1 and np.isnan(found.similarity[2])
    assert (np.delete(found.feature, 2) >= 0).all()


@pytest.mark.parametrize(
    ("x", "w", "directions", "minimum", "said"),
    [
        ((3, D), (D,), (5, D + 1), (), r"directions have shape \(5, 13\); expected \[k, d\] with d = 12, as in x"),
        ((3, D), (D,), (5, D), (4,), r"min_similarity has shape \(4,\); expected one number, or one for each of 5"),
        ((3, D), (D,), (5, D), (1, 5), r"min_similarity has shape \(1, 5\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(x, w, directions, minimum, said):
    with pytest.raises(UserError, match=said):
        assign(*map(np.ones, (x, w, directions, minimum)))


# --- the least similarity


def examples_of_one_feature(seed, n):
    rng = np.random.default_rng(seed)
    return unit(rng.normal(size=D) + rng.uniform(0.1, 1.5) * rng.normal(size=(n, D)))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 30), height=st.floats(0.05, 0.95))
def test_the_minimum_is_where_the_mean_distance_to_the_examples_is_the_height(seed, n, height):
    u = examples_of_one_feature(seed, n)
    pairs = (u @ u.T)[np.triu_indices(n, 1)]
    minimum = float(min_similarity_of_features(height, pairs.mean() if n > 1 else np.nan, n))
    inputs = unit(u.mean(axis=0) + np.random.default_rng(seed + 1).normal(size=(200, D)) * 0.5)
    distance = 1 - (inputs @ u.T).mean(axis=1)
    similarity = inputs @ unit(u.mean(axis=0))
    # On the way from one to the other float32 rounds: what is nearer to the minimum than that may be either.
    sure = np.abs(similarity - minimum) > 1e-6 * (1 + minimum)
    np.testing.assert_array_equal((distance <= height)[sure], (similarity >= minimum)[sure])


def test_an_example_alone_asks_for_the_height_itself():
    np.testing.assert_allclose(
        min_similarity_of_features(np.float32([0.2, 0.7]), np.float32([np.nan, 0.3]), 1), [0.8, 0.3], 1e-6
    )


def test_clusters_alone_missing_or_masked():
    found = min_similarity([0.5, np.nan, 0.5, np.nan], [1, 0, 1, -1], 0.3)
    np.testing.assert_allclose(found, [0.7, 0.7 / np.sqrt(0.75), np.inf, np.inf], rtol=1e-6)


def test_examples_that_cancel_out_are_never_reached():
    assert min_similarity_of_features(0.3, -1.0, 2) == np.inf
    assert min_similarity_of_features(0.3, -0.5, 3) == np.inf


def test_the_examples_of_a_clustering_are_assigned_to_their_own_features():
    """Average linkage of three bundles of embeddings, told apart again from the directions alone."""
    rng = np.random.default_rng(0)
    bundle = rng.permutation(np.arange(60) % 3)
    x = (rng.normal(size=(3, D))[bundle] + 0.12 * rng.normal(size=(60, D))).astype("f4")
    w, height = rng.normal(size=D).astype("f4"), 0.3
    distances = embedding_distances(x, w)
    label = cut(average_linkage(distances), height)
    directions, similar = feature_directions(x, w, label), np.asarray(cohesion(distances, label))
    n = np.bincount(label)
    assert n.min() > 10 and len(n) == 3
    minimum = min_similarity(similar, label, height)[:3]
    mean = np.array([similar[np.asarray(label) == f].mean() for f in range(3)])
    np.testing.assert_allclose(minimum, min_similarity_of_features(np.full(3, height, "f4"), mean, n), rtol=1e-6)
    np.testing.assert_array_equal(assign(x, w, directions[:3], minimum).feature, label)
    # Other embeddings are as near to each bundle as chance has it: hardly ever near enough.
    assert (assign(rng.normal(size=(500, D)).astype("f4"), w, directions[:3], minimum).feature == -1).mean() > 0.8
