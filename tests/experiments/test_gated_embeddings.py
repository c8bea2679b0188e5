"""The judges of gated neurons' embeddings, against NumPy, SciPy, scikit-learn and finite differences."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import adjusted_rand_score, roc_auc_score

from gated.judges import EMBEDDINGS, Unit, auc, gradient_embeddings, judge
from nejax.neuron.embeddings import embedding_distances

N, D = 12, 10


def random_units(n: int) -> tuple[Unit, np.ndarray]:
    """Inputs in three directions, the token says which; the last examples are not there."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 3, (n, N))
    x = (rng.normal(size=(n, 3, D))[np.arange(n)[:, None], tokens] + rng.normal(0, 0.7, (n, N, D))).astype(np.float32)
    mask = np.arange(N) < rng.integers(6, N + 1, (n, 1))
    gate, up = rng.normal(size=(2, n, D)).astype(np.float32)
    reference = rng.normal(size=(n, 20, D)).astype(np.float32)
    return Unit(x, mask, gate, up, np.zeros((n, 2), np.float32), reference), tokens


@pytest.mark.parametrize("seed", range(3))
def test_auc_is_scikit_learns(seed: int):
    rng = np.random.default_rng(seed)
    distances, same = rng.integers(0, 9, 40) / 9, rng.random(40) < 0.3
    assert auc(distances, same) == pytest.approx(roc_auc_score(same, -distances), abs=1e-12)


def test_ranks_of_many_float32_values_are_exact():
    """SciPy keeps the type from 1.18 on: 20,000 ranks sum to 2e8, beyond float32's whole numbers."""
    rng = np.random.default_rng(0)
    distances, same = rng.random(20_000, np.float32), rng.random(20_000) < 0.5
    assert auc(distances, same) == pytest.approx(roc_auc_score(same, -distances.astype(float)), abs=1e-12)


def test_auc_without_a_pair_of_each_kind():
    assert np.isnan(auc(np.ones(3), np.ones(3, bool))) and np.isnan(auc(np.ones(3), np.zeros(3, bool)))
    assert auc(np.array([0.1, 0.9]), np.array([True, False])) == 1.0


def test_gradients_are_finite_differences():
    units, _ = random_units(1)
    unit = Unit(*(np.asarray(field[0], np.float64) for field in units))._replace(bias=np.array([0.3, -0.2]))

    def value(x: np.ndarray) -> np.ndarray:
        gate = x @ unit.gate + 0.3
        return gate / (1 + np.exp(-gate)) * (x @ unit.up - 0.2)

    steps = 1e-5 * np.eye(D)
    slopes = np.stack([(value(unit.x + step) - value(unit.x - step)) / 2e-5 for step in steps], axis=1)
    exact = Unit(*(jnp.asarray(field, jnp.float32) for field in unit))
    np.testing.assert_allclose(gradient_embeddings(exact, "silu"), unit.x * slopes, rtol=2e-4, atol=2e-4)  # float32


def test_every_measure_is_that_of_a_plain_loop():
    units, tokens = random_units(5)
    found = judge(units, tokens, "silu")
    assert tuple(found) == EMBEDDINGS
    for j in range(5):
        unit = Unit(*(jnp.asarray(field[j]) for field in units))
        there = np.asarray(unit.mask)
        pairs = np.triu_indices(int(there.sum()), 1)
        same = (tokens[j][there][:, None] == tokens[j][there])[pairs]
        by_gradient = np.asarray(embedding_distances(gradient_embeddings(unit, "silu"), jnp.ones(D)))
        by_gradient = by_gradient[np.ix_(there, there)][pairs]
        size = [np.linalg.norm(w) for w in (unit.gate, unit.up)]
        both = jnp.sqrt((unit.gate / size[0]) ** 2 + (unit.up / size[1]) ** 2)
        for name, w in zip(EMBEDDINGS, (unit.gate, unit.up, both), strict=True):
            distances = np.asarray(embedding_distances(unit.x, w))[np.ix_(there, there)][pairs]
            assert found[name].token_auc[j] == pytest.approx(roc_auc_score(same, -distances), abs=1e-9)
            correlation = spearmanr(distances, by_gradient).statistic
            assert found[name].gradient_correlation[j] == pytest.approx(correlation, abs=1e-9)
            assert 1 <= found[name].n_features[j] <= there.sum()


@pytest.mark.slow
def test_the_token_index_is_scikit_learns():
    """With inputs that are the token and nothing else, features are tokens; with those of no token, they are not."""
    units, tokens = random_units(4)
    rng = np.random.default_rng(1)
    one_each = rng.normal(size=(4, 3, D))[np.arange(4)[:, None], tokens].astype(np.float32)
    exact = judge(units._replace(x=one_each), tokens, "silu")
    for name in EMBEDDINGS:
        np.testing.assert_allclose(exact[name].token_auc, 1)
        assert adjusted_rand_score(tokens[0], tokens[0]) == 1
        assert (exact[name].n_features <= 3).all()
        np.testing.assert_allclose(exact[name].token_rand_index[exact[name].n_features == 3], 1)
