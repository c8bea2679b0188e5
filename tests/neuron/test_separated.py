import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from distance_cases import cosine_distances, padded
from jax import lax

import nejax
from nejax.errors import UserError
from nejax.neuron.clustering.separated import Separated
from nejax.neuron.defaults import MIN_SUPPORT, RESOLUTION, least_separation

N = 40


@jax.jit
def separated_of(distances, mask, unrelated):
    """Of many neurons, one after the other."""

    def of_neuron(each):
        distances, mask, unrelated = each
        return nejax.separated(distances, nejax.average_linkage(distances, mask), unrelated)

    return lax.map(of_neuron, (distances, mask, unrelated))


def separated(distances, mask, unrelated=1.0) -> Separated:
    return separated_of(distances, mask, np.full(len(distances), unrelated, np.float32))


def features_in_noise(rng, n_features, n, noise, d=64, n_outliers=0):
    """Distances of rows around random directions, and which direction each row is of (-1: of none)."""
    feature = np.sort(np.arange(n - n_outliers) % max(n_features, 1))
    centres = np.linalg.qr(rng.normal(size=(d, d)))[0][: max(n_features, 1)]
    rows = centres[feature] + noise * rng.normal(size=(len(feature), d)) / np.sqrt(d)
    rows = np.concatenate([rows, rng.normal(size=(n_outliers, d)) / np.sqrt(d)])
    return cosine_distances(rows), np.concatenate([feature, np.full(n_outliers, -1)])


def separation_of(similarity, a, b):
    """Separation and distance of directions of two groups, and the similarity within each."""
    a_a, a_b, b_a, b_b = (similarity[np.ix_(i, j)] for i in (a, b) for j in (a, b))
    own = [(s.sum(axis=1) - np.diag(s)) / (len(s) - 1) for s in (a_a, b_b)]
    t_a, t_b = own[0] - a_b.mean(axis=1), b_a.mean(axis=1) - own[1]
    spread = (((t_a - t_a.mean()) ** 2).sum() + ((t_b - t_b.mean()) ** 2).sum()) / (len(a) + len(b))
    within = [mean.mean() for mean in own]
    cosine = a_b.mean() / np.sqrt(max(within[0], 1e-3) * max(within[1], 1e-3))
    return (t_a.mean() - t_b.mean()) / np.sqrt(spread), 1 - cosine, within


def inner(similarity, group, unrelated):
    """A group without what is beyond its reach."""
    inside = similarity[np.ix_(group, group)]
    score = (inside.sum(axis=1) - np.diag(inside)) / max(len(group) - 1, 1)
    return [i for i, mine in zip(group, score, strict=True) if 1 - mine <= (1 - score.mean() + unrelated) / 2]


def strength(similarity, a, b, unrelated):
    a, b = inner(similarity, a, unrelated), inner(similarity, b, unrelated)
    if min(len(a), len(b)) < MIN_SUPPORT:
        return 0
    separation, distance, _ = separation_of(similarity, a, b)
    return min(separation / least_separation(min(len(a), len(b))), distance / (RESOLUTION * unrelated))


def slowly(distances, unrelated):
    """The rule as it is described, in float64, group by group."""
    n = len(distances)
    similarity = 1 - distances.astype("f8")
    z = nejax.to_scipy(nejax.average_linkage(distances))
    members = {i: [i] for i in range(n)}
    parts: dict[int, list[list[int]]] = {i: [] for i in range(n)}  # of a node that does not split, none
    for k, (left, right, _, _) in enumerate(z):
        a, b = members.pop(int(left)), members.pop(int(right))
        parts_a, parts_b = parts.pop(int(left)), parts.pop(int(right))
        large = [len(side) >= MIN_SUPPORT for side in (a, b)]
        splits = parts_a or parts_b or (all(large) and strength(similarity, a, b, unrelated) > 1)
        members[n + k], parts[n + k] = a + b, []
        if splits:
            parts[n + k] = (parts_a or [a] * large[0]) + (parts_b or [b] * large[1])
    (root,) = parts
    groups = parts[root] or [members[root]]
    while len(groups) > 1:
        pairs = [
            (strength(similarity, groups[i], groups[j], unrelated), i, j) for j in range(len(groups)) for i in range(j)
        ]
        weakest, i, j = min(pairs)
        if weakest > 1:
            break
        groups[i] = groups[i] + groups.pop(j)
    np.fill_diagonal(similarity, 0)
    for _ in range(2):
        inside = np.array([[i in group for group in groups] for i in range(n)], float)
        score = similarity @ inside / np.maximum(inside.sum(0) - inside, 1)
        within = (score * inside).sum(0) / inside.sum(0)
        nearest = np.argmax(score / np.sqrt(np.maximum(within, 1e-3)), axis=1)
        reached = 1 - score[np.arange(n), nearest] <= ((1 - within + unrelated) / 2)[nearest]
        groups = [np.flatnonzero(reached & (nearest == c)).tolist() for c in range(len(groups))]
        groups = [group for group in groups if len(group) >= MIN_SUPPORT]
        if not groups:
            break
    labels = np.full(n, -1)
    for c, group in enumerate(sorted(groups, key=min)):
        labels[group] = c
    return labels


KINDS = [(k, noise, n_outliers) for k in (0, 1, 2, 3, 5) for noise in (0.3, 0.8, 1.5, 3.0) for n_outliers in (0, 4)]


@functools.cache
def a_batch():
    """Neurons with 0 to 5 features, in every noise, some with outliers, padded with rows anywhere."""
    rng = np.random.default_rng(5)
    cases = [features_in_noise(rng, k, int(rng.integers(36, N + 1)), noise, n_outliers=out) for k, noise, out in KINDS]
    rows, masks = zip(*(padded(rng, distances, N) for distances, _ in cases), strict=True)
    return cases, np.array(rows), np.array(masks)


@pytest.mark.slow
def test_equal_to_the_rule_done_slowly():
    cases, distances, masks = a_batch()
    found = separated(distances, masks)
    several = 0
    for i, (case, _) in enumerate(cases):
        labels = np.asarray(found.labels[i])
        assert (labels[~masks[i]] == -1).all()
        expected = slowly(case, 1.0)
        np.testing.assert_array_equal(labels[masks[i]], expected)
        several += expected.max() > 0
    assert several >= 12, several


@pytest.mark.slow
def test_the_same_side_by_side():
    _, distances, masks = a_batch()
    together = jax.jit(
        jax.vmap(lambda distances, mask: nejax.separated(distances, nejax.average_linkage(distances, mask), 1.0))
    )(distances[:8], masks[:8])
    for one, other in zip(separated(distances, masks), together, strict=True):
        np.testing.assert_allclose(np.asarray(one)[:8], other, rtol=1e-4)


def test_planted_features_are_found_and_outliers_are_in_none():
    cases, distances, masks = a_batch()
    labels = np.asarray(separated(distances, masks).labels)
    for i in np.flatnonzero([noise < 1 and k > 0 for k, noise, _ in KINDS]):
        found, feature = labels[i][masks[i]], cases[i][1]
        np.testing.assert_array_equal(found[feature < 0], -1)
        assert nejax.adjusted_rand_index(found[feature >= 0], feature[feature >= 0]) == 1


def test_what_speaks_for_a_feature():
    """Evidence is what the definition says, of the examples that were given to each feature."""
    cases, distances, masks = a_batch()
    found = separated(distances, masks)
    for i, (case, _) in enumerate(cases):
        labels, similarity = np.asarray(found.labels[i])[masks[i]], 1 - case.astype("f8")
        groups = [np.flatnonzero(labels == c).tolist() for c in range(labels.max() + 1)]
        for c, group in enumerate(groups):
            others = [separation_of(similarity, group, other) for other in groups if other is not group]
            for values, k in ((found.separation, 0), (found.direction_distance, 1)):
                expected = min((other[k] for other in others), default=np.nan)
                np.testing.assert_allclose(values[i, c], expected, rtol=2e-3)
            pairs = similarity[np.ix_(group, group)][np.triu_indices(len(group), 1)]
            np.testing.assert_allclose(found.reach[i, c], (1 - pairs.mean() + 1) / 2, atol=1e-5)
        assert np.isnan(found.reach[i, len(groups) :]).all()


@pytest.mark.slow
def test_noise_is_hardly_ever_several_features():
    """Inputs without any feature, those of them chosen that excite a random direction most."""
    rng, several, n_neurons = np.random.default_rng(0), 0, 150
    for d in (16, 64, 256):
        distances = []
        for _ in range(n_neurons // 3):
            w, x = rng.normal(size=d), rng.normal(size=(2000, d))
            distances.append(cosine_distances(x[np.argsort(-(x @ w))[:N]] * w))
        several += int(
            (separated(np.array(distances), np.ones((len(distances), N), bool)).labels.max(axis=1) > 0).sum()
        )
    assert several <= 0.05 * n_neurons


@pytest.mark.parametrize("value", [0.0, 1.0, np.nan])
def test_embeddings_without_a_cluster_to_tell(value):
    """All alike, all at right angles, undefined: one feature or none, whatever unrelated inputs are like."""
    distances = np.full((1, N, N), value, np.float32)
    np.einsum("bii->bi", distances)[:] = 0
    for unrelated in (0.0, 0.5, 1.0):
        labels = np.asarray(separated(distances, np.ones((1, N), bool), unrelated).labels)
        assert labels.max() <= 0
        if np.isnan(value):
            assert (labels == -1).all()


def test_rounding_is_no_feature():
    """Embeddings along one line: their distances are nothing but rounding."""
    rng = np.random.default_rng(1)
    distances = np.triu(1e-7 * rng.uniform(size=(1, N, N)), 1).astype(np.float32)
    labels = separated(distances + distances.swapaxes(1, 2), np.ones((1, N), bool), unrelated=1e-7).labels
    labels = np.asarray(labels)
    assert labels.max() <= 0


@pytest.mark.parametrize("n", [1, 2, 4])
def test_too_few_examples_for_a_feature(n):
    distances = jnp.zeros((n, n))
    assert (nejax.separated(distances, nejax.average_linkage(distances), 1.0).labels == -1).all()


def test_refusals():
    distances = jnp.zeros((6, 6))
    linkage = nejax.average_linkage(distances)
    with pytest.raises(UserError, match="min_support is 1; expected at least 2"):
        nejax.separated(distances, linkage, 1.0, min_support=1)
    with pytest.raises(UserError, match=r"linkage.*expected"):
        nejax.separated(distances, nejax.average_linkage(jnp.zeros((5, 5))), 1.0)
