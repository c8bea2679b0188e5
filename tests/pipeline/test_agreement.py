"""Agreement of two clusterings, against scikit-learn, neuron by neuron."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from nejax.pipeline.compare.agreement import agreement


@pytest.mark.parametrize("k", [1, 2, 3, 8])
def test_it_is_what_scikit_learn_says_of_each_neuron(k):
    rng = np.random.default_rng(k)
    neuron = np.sort(rng.integers(0, 40, 300))
    a = rng.integers(0, k, 300)
    b = np.where(rng.random(300) < 0.7, (a + 1) % 5, rng.integers(0, 5, 300))
    order = rng.permutation(300)
    found = agreement(neuron[order], a[order], b[order], n_neurons=41)
    for j in range(41):
        mine = neuron == j
        assert found.n[j] == mine.sum()
        expected = adjusted_rand_score(a[mine], b[mine]) if mine.sum() > 1 else np.nan
        np.testing.assert_allclose(found.rand_index[j], expected, rtol=0, atol=1e-6)
        together_a, together_b = (x[mine][:, None] == x[mine] for x in (a, b))
        assert found.same[j] == (together_a == together_b).all()


def test_the_names_of_clusters_do_not_matter_and_a_single_item_says_nothing():
    neuron = np.array([0, 0, 0, 1, 2, 2, 3, 3])
    a = np.array([0, 0, 1, 0, 0, 1, 0, 0])
    b = np.array([5, 5, -1, 3, 2, 4, 0, 1])
    found = agreement(neuron, a, b, n_neurons=5)
    assert found.same.tolist() == [True, True, True, False, True]
    np.testing.assert_array_equal(found.rand_index, [1, np.nan, 1, 0, np.nan])
    assert found.n.tolist() == [3, 1, 2, 2, 0]


def test_nothing_in_common():
    nothing = np.array([], int)
    found = agreement(nothing, nothing, nothing, n_neurons=2)
    assert found.n.tolist() == [0, 0] and np.isnan(found.rand_index).all()
