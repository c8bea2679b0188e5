import numpy as np
import pytest
from distance_cases import gaussian, padded

from nejax.neuron.clusters import central_examples, cohesion, feature_directions, feature_similarity
from nejax.neuron.embeddings import embedding_distances


def a_labeling(rng, n, size, n_clusters):
    distances, mask = padded(rng, gaussian(rng, size), n)
    return distances, np.where(mask, rng.integers(0, n_clusters, n), -1).astype("i4")


def mean_similarities(distances, labels):
    """Float64, one example at a time."""
    result = np.full(len(labels), np.nan)
    for i, label in enumerate(labels):
        others = [j for j, other in enumerate(labels) if other == label and j != i]
        if label >= 0 and others:
            result[i] = np.mean([1 - float(distances[i, j]) for j in others])
    return result


@pytest.mark.parametrize(("n", "size", "n_clusters"), [(1, 1, 1), (8, 8, 8), (40, 40, 3), (40, 25, 6), (40, 0, 1)])
def test_cohesion_and_central_examples(n, size, n_clusters):
    rng = np.random.default_rng(n + size)
    distances, labels = a_labeling(rng, n, size, n_clusters)
    expected = mean_similarities(distances, labels)
    np.testing.assert_allclose(cohesion(distances, labels), expected, rtol=1e-5, atol=1e-6)
    centres = np.asarray(central_examples(distances, labels))
    assert centres.dtype == np.int32
    for c, centre in enumerate(centres):
        members = np.flatnonzero(labels == c)
        if len(members) == 0:
            assert centre == -1
        else:
            assert centre == members[np.argmax(np.nan_to_num(expected[members]))]


def test_conventions():
    """A pair ties, and the lower row wins; an example alone has no cohesion, and is its own centre."""
    distances = np.array([[0, 1, 0.2, 1], [1, 0, 1, 1], [0.2, 1, 0, 1], [1, 1, 1, 0]], "f4")
    labels = np.array([1, 0, 1, -1])
    np.testing.assert_allclose(cohesion(distances, labels), [0.8, np.nan, 0.8, np.nan], rtol=1e-6)
    assert central_examples(distances, labels).tolist() == [1, 0, -1, -1]
    assert central_examples(distances, np.full(4, -1)).tolist() == [-1] * 4


def test_identical_examples_have_the_lowest_row_in_the_centre():
    assert central_examples(np.zeros((5, 5), "f4"), np.array([-1, 0, 0, 0, 0])).tolist() == [
        1,
        -1,
        -1,
        -1,
        -1,
    ]


def an_example_set(rng, n=12, d=20):
    x, w = (0.3 + rng.normal(size=(n, d))).astype("f4"), rng.normal(size=d).astype("f4")
    return x, w, rng.integers(-1, 4, n).astype("i4")


def test_feature_directions():
    x, w, labels = an_example_set(np.random.default_rng(0))
    x[labels == -1] = np.nan  # not read
    directions = np.asarray(feature_directions(x, w, labels))
    embeddings = x.astype("f8") * w
    units = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    for c, direction in enumerate(directions):
        mean = units[labels == c].sum(0)
        expected = mean / np.linalg.norm(mean) if (labels == c).any() else 0 * mean
        np.testing.assert_allclose(direction, expected, rtol=1e-5, atol=1e-6)
    assert (np.linalg.norm(directions, axis=1) > 0).tolist() == [c in labels for c in range(12)]


def test_directions_of_zero_and_opposite_embeddings_are_zero():
    x = np.array([[0, 0], [1, 2], [-1, -2]], "f4")
    np.testing.assert_array_equal(feature_directions(x, np.ones(2, "f4"), np.array([0, 1, 1])), np.zeros((3, 2)))


def test_similarity_is_the_formula_and_the_cosine():
    rng = np.random.default_rng(1)
    x, w, labels = an_example_set(rng)
    directions = feature_directions(x, w, labels)
    new = rng.normal(size=(9, 20)).astype("f4")
    similarity = np.asarray(feature_similarity(new, w, directions))
    exact_new, exact_w = new.astype("f8"), w.astype("f8")
    expected = exact_new @ (exact_w * np.asarray(directions, "f8")).T
    expected /= np.linalg.norm(exact_new * exact_w, axis=1, keepdims=True)
    np.testing.assert_allclose(similarity, expected, rtol=1e-5, atol=1e-6)
    assert np.abs(similarity).max() <= 1 + 1e-6


def test_the_direction_of_a_single_example_sees_distances():
    rng = np.random.default_rng(2)
    x, w, _ = an_example_set(rng)
    directions = feature_directions(x, w, np.arange(12))
    np.testing.assert_allclose(
        feature_similarity(x, w, directions), 1 - np.asarray(embedding_distances(x, w)), rtol=1e-5, atol=1e-6
    )


def test_zero_embeddings_and_zero_directions_are_similar_to_nothing():
    x = np.array([[0, 0], [1, 1]], "f4")
    similarity = feature_similarity(x, np.ones(2, "f4"), np.array([[1, 0], [0, 0]], "f4"))
    np.testing.assert_allclose(similarity, [[0, 0], [np.sqrt(0.5), 0]], rtol=1e-6)
