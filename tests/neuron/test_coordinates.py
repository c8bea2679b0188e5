"""Principal coordinates against a singular value decomposition of the unit embeddings, in float64."""

import jax.numpy as jnp
import numpy as np
import pytest
from distance_cases import cosine_distances, padded
from hypothesis import given, settings
from hypothesis import strategies as st

from nejax.neuron.coordinates import principal_coordinates
from nejax.neuron.embeddings import embedding_distances

N, D = 40, 50


def examples(seed: int, n_clusters: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Inputs in a few loose groups, and weights; the first variances of the embeddings are far apart."""
    rng = np.random.default_rng(seed)
    centres = 2 * rng.normal(size=(n_clusters, D))
    x = centres[rng.integers(0, n_clusters, N)] + rng.normal(size=(N, D))
    return x.astype("f4"), rng.normal(size=D).astype("f4")


def units_of(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    embeddings = x.astype("f8") * w
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


def oracle(units: np.ndarray) -> tuple[np.ndarray, float]:
    """Scores on two axes, the example farthest out on the positive side; their share of the variance."""
    u, s, _ = np.linalg.svd(units - units.mean(axis=0), full_matrices=False)
    variances = s**2
    assert min(variances[0] - variances[1], variances[1] - variances[2]) > 1e-3 * variances[0], "axes must be distinct"
    scores = u[:, :2] * s[:2]
    farthest = np.abs(scores).argmax(axis=0)
    return scores * np.sign(scores[farthest, [0, 1]]), variances[:2].sum() / variances.sum()


def assert_is_oracle(found, units: np.ndarray) -> None:
    scores, share = oracle(units)
    n = len(units)
    # In 60 problems of 4 to 100 examples the coordinates are off by at most 2.4e-7 over the relative gap between
    # variances, the share by 1.8e-7: distances are float32, and known to 1e-7.
    np.testing.assert_allclose(found.coordinates[:n], scores, rtol=1e-5, atol=5e-6)
    np.testing.assert_allclose(found.share, share, rtol=1e-6)
    assert np.isnan(found.coordinates[n:]).all()


@pytest.mark.parametrize(("seed", "n"), [(0, N), (1, 4), (2, 25), (3, 11), (4, 39)])
def test_coordinates_are_the_scores_of_the_unit_embeddings(seed, n):
    """Masked rows hold anything: there is one compilation for all numbers of examples."""
    x, w = examples(seed)
    x[n:] = np.nan
    found = principal_coordinates(embedding_distances(x, w), np.arange(N) < n)
    assert found.coordinates.dtype == found.share.dtype == jnp.float32
    assert_is_oracle(found, units_of(x[:n], w))


def test_padding_changes_nothing():
    distances = np.asarray(embedding_distances(*examples(5)))[:13, :13]
    whole, mask = padded(np.random.default_rng(0), distances, N)
    found, plain = principal_coordinates(whole, mask), principal_coordinates(distances)
    np.testing.assert_allclose(found.coordinates[mask], plain.coordinates, atol=2e-6)
    np.testing.assert_allclose(found.share, plain.share, rtol=1e-6)


@settings(max_examples=10, deadline=None)
@given(order=st.permutations(range(N)))
def test_the_order_of_examples_does_not_matter(order):
    x, w = examples(6)
    distances = np.asarray(embedding_distances(x, w))
    found, plain = principal_coordinates(distances[np.ix_(order, order)]), principal_coordinates(distances)
    np.testing.assert_allclose(found.coordinates, plain.coordinates[np.array(order)], atol=5e-6)
    np.testing.assert_allclose(found.share, plain.share, rtol=1e-6)


def test_a_plane_keeps_all_distances():
    """Directions on a circle and masked rows between them: two axes show everything."""
    angle = np.random.default_rng(7).uniform(0, 2 * np.pi, N)
    distances, mask = cosine_distances(np.stack([np.cos(angle), np.sin(angle)], axis=1)), np.arange(N) % 3 > 0
    found = principal_coordinates(np.where(mask[:, None] & mask, distances, np.nan), mask)
    placed = np.asarray(found.coordinates, "f8")
    chords = ((placed[:, None] - placed[None]) ** 2).sum(axis=-1)
    np.testing.assert_allclose(chords[np.ix_(mask, mask)], 2 * distances[np.ix_(mask, mask)], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.share, 1, rtol=1e-6)
    np.testing.assert_allclose(placed[mask].mean(axis=0), 0, atol=1e-6)
    assert np.isnan(placed[~mask]).all()


@pytest.mark.parametrize(
    ("distances", "coordinates", "share"),
    [
        (np.zeros((1, 1)), [[0, 0]], np.nan),
        (np.zeros((3, 3)), [[0, 0]] * 3, np.nan),
        (4 * np.finfo("f4").eps * (1 - np.eye(3)), [[0, 0]] * 3, np.nan),  # identical, but for rounding
        ([[0, 0.5], [0.5, 0]], [[0.5, 0], [-0.5, 0]], 1),
        ([[0, 2], [2, 0]], [[1, 0], [-1, 0]], 1),  # opposite
        ([[0, 1, 1], [1, 0, 0], [1, 0, 0]], np.sqrt(2) * np.array([[2 / 3, 0], [-1 / 3, 0], [-1 / 3, 0]]), 1),
    ],
)
def test_examples_that_need_no_plane(distances, coordinates, share):
    found = principal_coordinates(np.array(distances, "f4"))
    np.testing.assert_allclose(found.coordinates, coordinates, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found.share, share, rtol=1e-6)


def test_without_examples_there_is_nothing():
    found = principal_coordinates(np.ones((3, 3), "f4"), np.zeros(3, bool))
    assert np.isnan(found.coordinates).all() and np.isnan(found.share)


def test_zero_embeddings_are_directions_of_their_own():
    """At distance 1 from all others: as far as a direction that no other has a part of."""
    x, w = examples(8)
    x[[3, 9]] = 0
    with np.errstate(invalid="ignore"):
        units = np.nan_to_num(units_of(x, w))
    own = np.zeros((N, 2))
    own[[3, 9], [0, 1]] = 1
    assert_is_oracle(principal_coordinates(embedding_distances(x, w)), np.hstack([units, own]))


def test_equal_variances_are_shared_out():
    """Eight directions at right angles: seven equal variances, of which any two axes show 2 / 7."""
    found = principal_coordinates(np.ones((8, 8), "f4") - np.eye(8, dtype="f4"))
    assert np.isfinite(found.coordinates).all()
    np.testing.assert_allclose(found.share, 2 / 7, rtol=1e-6)
    # Unit vectors, on which rounding decides: not more exact than the seven variances are equal.
    np.testing.assert_allclose(found.coordinates.T @ found.coordinates, np.eye(2), atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_of_examples_equally_far_out_the_first_is_on_the_positive_side(seed):
    """Two pairs of examples, identical but for rounding, which does not decide."""
    other = np.array([0, 1, 1, 0])
    distances = 0.7 * (other[:, None] != other) + 1e-6 * np.random.default_rng(seed).random((4, 4))
    found = principal_coordinates(distances.astype("f4")).coordinates[:, 0]
    half = np.sqrt(0.7 / 2)
    np.testing.assert_allclose(found, [half, -half, -half, half], atol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_gives_nan_and_only_where_it_counts(bad):
    distances, mask = np.array(embedding_distances(*examples(9))), np.arange(N) != 4
    expected = principal_coordinates(distances, mask)
    distances[2, 4] = bad
    found = principal_coordinates(distances, np.ones(N, bool))
    assert np.isnan(found.coordinates).all() and np.isnan(found.share)
    np.testing.assert_array_equal(principal_coordinates(distances, mask).coordinates, expected.coordinates)


def test_what_no_directions_are_apart_gives_nan():
    """Two groups, nearer to each other than each is within: the variance between them would be negative."""
    group = np.arange(8) % 2
    found = principal_coordinates((group[:, None] == group).astype("f4") - np.eye(8, dtype="f4"))
    assert np.isnan(found.coordinates).all() and np.isnan(found.share)
