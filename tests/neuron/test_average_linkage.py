import jax
import jax.numpy as jnp
import numpy as np
import pytest
from distance_cases import DISTINCT, TIED, clustered, gaussian, padded, uniform
from jax import lax
from jax.extend.core import jaxprs_in_params
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from nejax.errors import UserError
from nejax.neuron.clustering.average_linkage import Linkage, average_linkage, cut, to_scipy

map_linkage = jax.jit(lambda *batch: lax.map(lambda each: average_linkage(*each), batch))
vmap_linkage = jax.jit(jax.vmap(average_linkage))
cut_at_all = jax.jit(jax.vmap(cut, (None, 0)))


def scipy_linkage(distances):
    return hierarchy.linkage(squareform(distances.astype("f8"), checks=False), "average")


def replay(z, distances):
    """For each merge: the exact mean distance of its two clusters, and the two least ones of all at that time."""
    n = len(distances)
    members = {leaf: [leaf] for leaf in range(n)}
    current = distances.astype("f8").copy()  # mean distances between clusters, each in the slot of a member
    np.fill_diagonal(current, np.inf)
    slot = {leaf: leaf for leaf in range(n)}
    result = []
    for k, (a, b, _, count) in enumerate(z):
        a, b = int(a), int(b)
        assert a < b
        pairs = np.sort(current[np.triu_indices(n, 1)])
        exact = distances[np.ix_(members[a], members[b])].mean(dtype="f8")
        result.append((exact, pairs[0], pairs[1] if len(pairs) > 1 else np.inf))
        na, nb = len(members[a]), len(members[b])
        assert count == na + nb
        i, j = slot.pop(a), slot.pop(b)
        row = (na * current[i] + nb * current[j]) / (na + nb)
        current[i], current[:, i] = row, row
        current[i, i] = current[j] = current[:, j] = np.inf
        members[n + k], slot[n + k] = members.pop(a) + members.pop(b), i
    assert len(members) == 1
    return np.array(result).reshape(-1, 3)


def assert_valid(z, distances):
    """The height of every merge is the mean distance of its clusters, and no pair of clusters was nearer."""
    exact, least, _ = replay(z, distances).T
    np.testing.assert_allclose(z[:, 2], exact, rtol=0, atol=1e-5)
    np.testing.assert_allclose(z[:, 2], least, rtol=0, atol=1e-5)
    assert (np.diff(z[:, 2]) >= 0).all()


def batch_of_cases(kinds, n_cases, n, seed):
    """Cases of every kind and of every size from 1 to n, padded to n with rows anywhere."""
    rng = np.random.default_rng(seed)
    sizes = [1, 2, 3, n] + rng.integers(2, n + 1, n_cases - 4).tolist()
    cases = [kinds[i % len(kinds)](rng, size) for i, size in enumerate(sizes)]
    distances, masks = zip(*(padded(rng, case, n) for case in cases), strict=True)
    return cases, np.array(distances), np.array(masks)


def of_neuron(batch, i):
    return jax.tree.map(lambda leaf: np.asarray(leaf)[i], batch)


@pytest.mark.parametrize(("linkage", "n_cases"), [(map_linkage, 200), (vmap_linkage, 100)])
def test_equal_to_scipy(linkage, n_cases):
    """Where the nearest pair is nearest by more than float32 can blur, there is one answer: SciPy's."""
    cases, distances, masks = batch_of_cases(DISTINCT, n_cases, 40, seed=n_cases)
    result = linkage(distances, masks)
    n_unambiguous = 0
    for i, case in enumerate(cases):
        assert result.n_merges[i] == len(case) - 1
        if len(case) == 1:
            continue
        z, expected = to_scipy(of_neuron(result, i)), scipy_linkage(case)
        assert hierarchy.is_valid_linkage(z)
        assert_valid(z, case)
        _, least, second = replay(expected, case).T
        if (second - least > 2e-6).all():
            n_unambiguous += 1
            np.testing.assert_array_equal(z[:, [0, 1, 3]], expected[:, [0, 1, 3]])  # so every cut is the same
            np.testing.assert_allclose(z[:, 2], expected[:, 2], rtol=1e-5, atol=1e-6)
    assert n_unambiguous > 0.8 * n_cases


@pytest.mark.parametrize(("linkage", "n_cases"), [(map_linkage, 200), (vmap_linkage, 200)])
def test_with_ties_one_of_the_right_answers_is_given(linkage, n_cases):
    cases, distances, masks = batch_of_cases(TIED, n_cases, 40, seed=n_cases)
    result = linkage(distances, masks)
    for i, case in enumerate(cases):
        if len(case) > 1:
            assert_valid(to_scipy(of_neuron(result, i)), case)


def test_float64_is_kept():
    rng = np.random.default_rng(0)
    distances = gaussian(rng, 40).astype("f8") + 1e-9 * uniform(rng, 40)
    with jax.enable_x64(True):
        linkage = average_linkage(jnp.asarray(distances))
        np.testing.assert_allclose(to_scipy(linkage), scipy_linkage(distances), rtol=1e-13)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_rows(n):
    distances = uniform(np.random.default_rng(n), n)
    linkage = average_linkage(distances)
    assert linkage.merges.shape == (n - 1, 4)
    assert linkage.n_merges == n - 1
    if n > 1:
        np.testing.assert_allclose(to_scipy(linkage), scipy_linkage(distances), rtol=1e-6)
    assert cut(linkage, 3.0).tolist() == [0] * n
    assert cut(linkage, -1.0).tolist() == list(range(n))


@pytest.mark.parametrize("n", [1, 2, 6])
@pytest.mark.parametrize("n_unmasked", [0, 1])
def test_everything_or_all_but_one_masked(n, n_unmasked):
    mask = np.arange(n) >= n - n_unmasked
    linkage = average_linkage(np.full((n, n), np.nan, "f4"), mask)
    assert linkage.n_merges == 0
    np.testing.assert_array_equal(linkage.merges, np.tile([-1, -1, np.inf, 0], (n - 1, 1)))
    assert cut(linkage, np.inf).tolist() == [-1] * (n - n_unmasked) + [0] * n_unmasked


def test_fillers_after_the_real_merges():
    distances, mask = padded(np.random.default_rng(0), uniform(np.random.default_rng(1), 4), 7)
    merges = np.asarray(average_linkage(distances, mask).merges)
    assert (merges[:3, :2] >= 0).all()
    np.testing.assert_array_equal(merges[3:], np.tile([-1, -1, np.inf, 0], (3, 1)))


def test_ties_go_to_the_lowest_row():
    linkage = average_linkage(np.ones((4, 4), "f4"))
    np.testing.assert_array_equal(linkage.merges, [[0, 1, 1, 2], [2, 4, 1, 3], [3, 5, 1, 4]])


def test_only_distances_above_the_diagonal_are_read():
    distances = uniform(np.random.default_rng(0), 9)
    for got, expected in zip(
        average_linkage(np.triu(distances, 1) + 7 * np.tri(9, dtype="f4")),
        average_linkage(distances),
        strict=True,
    ):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_distances_that_are_not_finite_give_no_answer(value):
    distances = uniform(np.random.default_rng(0), 6)
    distances[1, 4] = value
    linkage = average_linkage(distances)
    assert np.isnan(linkage.merges[:, 2]).all()
    assert cut(linkage, 0.5).tolist() == [-1] * 6
    with pytest.raises(UserError, match="NaN heights"):
        to_scipy(linkage)


def test_cut_is_fcluster():
    cases, distances, masks = batch_of_cases(DISTINCT + TIED, 60, 40, seed=40)
    result = vmap_linkage(distances, masks)
    n_clusters = set()
    for i, case in enumerate(cases):
        if len(case) == 1:
            continue
        linkage = of_neuron(result, i)
        z = to_scipy(linkage)
        exact = z[np.linspace(0, len(z) - 1, 10).astype(int), 2]  # a merge at just this height is made
        heights = np.concatenate([exact, np.linspace(-0.1, 2.1, 10)]).astype("f4")
        for height, labels in zip(heights, np.asarray(cut_at_all(linkage, heights)), strict=True):
            expected = hierarchy.fcluster(z, float(height), criterion="distance")
            _, first = np.unique(expected, return_index=True)
            order = {expected[row]: label for label, row in enumerate(np.sort(first))}
            np.testing.assert_array_equal(labels[linkage.mask], [order[label] for label in expected])
            assert (labels[~linkage.mask] == -1).all()
            n_clusters.add(len(order))
    assert len(n_clusters) > 20


def test_cut_of_the_longest_dendrogram():
    """Every merge adds one row to the one cluster: pointers are as long as they can be."""
    n = 257
    place = np.arange(n, dtype="f4")
    linkage = average_linkage(np.maximum(place[:, None], place[None, :]))
    z = to_scipy(linkage)
    np.testing.assert_array_equal(z[:, 3], np.arange(2, n + 1))
    assert cut(linkage, z[-1, 2]).tolist() == [0] * n
    assert cut(linkage, z[99, 2]).tolist() == [0] * 101 + list(range(1, n - 100))


def test_to_scipy_feeds_scipy():
    distances, mask = padded(np.random.default_rng(0), clustered(np.random.default_rng(1), 11), 20)
    z = to_scipy(average_linkage(distances, mask))
    assert hierarchy.is_valid_linkage(z)
    assert hierarchy.is_monotonic(z)
    assert sorted(hierarchy.dendrogram(z, no_plot=True)["leaves"]) == list(range(11))


def test_to_scipy_refuses_what_is_no_dendrogram():
    one = average_linkage(np.zeros((3, 3), "f4"), np.array([False, True, False]))
    with pytest.raises(UserError, match="1 unmasked rows"):
        to_scipy(one)
    with pytest.raises(UserError, match=r"linkage.merges have shape \(2, 2, 4\)"):
        to_scipy(Linkage(*(jnp.stack([leaf, leaf]) for leaf in one)))


@pytest.mark.parametrize("lanes", [(5,), (2, 5)])
def test_lockstep_needs_no_select_over_the_matrices(lanes):
    """Under `vmap` the loop's length must not depend on the neuron: else each step copies each matrix."""

    def loops(jaxpr):
        for eqn in jaxpr.eqns:
            assert eqn.primitive.name != "while", "a loop of as many steps as a neuron needs"
            if eqn.primitive.name == "scan":
                yield eqn
            for inner in jaxprs_in_params(eqn.params):
                yield from loops(inner)

    linkage = average_linkage
    for _ in lanes:
        linkage = jax.vmap(linkage)
    jaxpr = jax.make_jaxpr(linkage)(jnp.zeros((*lanes, 8, 8)), jnp.zeros((*lanes, 8), bool))
    (loop,) = loops(jaxpr.jaxpr)
    selected = [
        out.aval.shape
        for eqn in loop.params["jaxpr"].eqns
        if eqn.primitive.name in ("select_n", "jit", "pjit")
        for out in eqn.outvars
    ]
    assert selected, "the body has selects over rows"
    assert (*lanes, 8, 8) not in selected
