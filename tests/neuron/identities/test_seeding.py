from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from distance_cases import padded
from kmeans_cases import keys_of

from nejax.neuron.clustering.seeding import seed_labels

pytestmark = pytest.mark.slow  # most of the time goes to compilation


def squared_distances(x):
    return np.square(x[..., :, None, :] - x[..., None, :, :]).sum(axis=-1).astype("f4")


def seeds_of(squared, mask, keys, max_clusters):
    squared, mask = jnp.asarray(squared), jnp.asarray(mask)
    one = lambda key: seed_labels(squared, mask, key=key, max_clusters=max_clusters, n_restarts=1)[:, 0]  # noqa: E731
    return np.asarray(jax.jit(jax.vmap(one))(keys))


def test_every_row_has_the_label_of_its_nearest_seed():
    squared = squared_distances(np.random.default_rng(0).normal(size=(12, 3)))
    found = seeds_of(squared, np.ones(12, bool), keys_of(20), 12)
    for labels in found:
        seeds = np.argsort(labels[-1])  # of twelve, every row is its own
        assert sorted(labels[-1]) == list(range(12))
        for c in range(12):
            np.testing.assert_array_equal(labels[c], squared[seeds[: c + 1]].argmin(axis=0))
    assert len({tuple(np.argsort(labels[-1])) for labels in found}) == 20
    np.testing.assert_array_equal(seeds_of(squared, np.ones(12, bool), keys_of(20), 5), found[:, :5])


def test_padded_is_unpadded_even_where_seeds_are_as_good():
    """Of few rows, two are often each the nearest to the other: as seeds they leave the same sum of distances."""
    rng, n_cases = np.random.default_rng(0), 200  # with the least sum taken as it is, nine of them differ
    squared = squared_distances(rng.normal(size=(n_cases, 12, 5)))
    full, mask = map(np.array, zip(*(padded(rng, each, 17) for each in squared), strict=True))
    full = np.where(mask[:, :, None] & mask[:, None, :], full, 0)
    run = jax.jit(jax.vmap(lambda *given: seed_labels(*given[:2], key=given[2], max_clusters=11, n_restarts=1)[:, 0]))
    expected = np.asarray(run(squared, np.ones((n_cases, 12), bool), keys_of(n_cases)))
    got = np.asarray(run(full, mask, keys_of(n_cases)))
    for i in range(n_cases):
        np.testing.assert_array_equal(got[i][:, mask[i]], expected[i])
        assert (got[i][:, ~mask[i]] == -1).all()


@pytest.mark.parametrize("n_distinct", [1, 3])
def test_there_are_no_more_seeds_than_distinct_rows(n_distinct):
    x = np.random.default_rng(0).normal(size=(n_distinct, 3))[np.arange(9) % n_distinct]
    labels = seeds_of(squared_distances(x), np.ones(9, bool), keys_of(10), 6)
    assert (labels[:, -1].max(axis=1) == n_distinct - 1).all()
    np.testing.assert_array_equal(
        labels[:, n_distinct:], np.repeat(labels[:, n_distinct - 1 : n_distinct], 6 - n_distinct, axis=1)
    )


def test_the_draws_are_those_of_greedy_kmeans_plus_plus():
    """The first seed is any row; the second the better of the others if it is drawn at all; of equals, the first."""
    place = np.array([0, 1, 4, 0])
    mask = np.arange(4) < 3
    squared = squared_distances(place[:, None]) * (mask[:, None] & mask)
    n = 6000
    labels = seeds_of(squared, mask, keys_of(n), 3)
    seeds = np.argsort(labels[:, -1, :3], axis=1)  # the row that became the first, second, third
    count = Counter(map(tuple, seeds[:, :2].tolist()))
    expected = {
        (0, 2): 1 - (1 / 17) ** 5,  # squared distances 1 and 16: the far one leaves 1, the near one 9
        (1, 2): 1 - (1 / 10) ** 5,
        (2, 0): 16 / 25,  # either leaves the other at a squared distance of 1
        (2, 1): 9 / 25,
    }
    for pair, chance in expected.items():
        deviation = np.sqrt(n * chance / 3 * (1 - chance / 3))
        assert abs(count[pair] - n * chance / 3) <= 4 * deviation
