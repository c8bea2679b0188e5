"""The nearest features of other neurons, against all pairs in float64; ties, blocks, and inputs at the edges."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nejax.errors import UserError
from nejax.pipeline.passes import similar
from nejax.pipeline.passes.similar import Similar, similar_features

D, K = 16, 5


def brute_force(inputs: np.ndarray, neuron: np.ndarray, k: int, threshold: float) -> Similar:
    """Every pair in float64; a stable sort leaves the lower of equally similar ones first."""
    x = inputs.astype(np.float64)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    x = np.divide(x, length, out=np.zeros_like(x), where=length > 0)
    cosine = x @ x.T
    cosine[(neuron[:, None] == neuron) | (cosine <= threshold)] = -np.inf
    feature = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
    similarity = np.take_along_axis(cosine, feature, axis=1)
    feature = np.where(np.isinf(similarity), -1, feature)
    missing = ((0, 0), (0, k - feature.shape[1]))
    return Similar(
        np.pad(feature, missing, constant_values=-1),
        np.pad(np.where(np.isinf(similarity), np.nan, similarity), missing, constant_values=np.nan),
    )


def signs(n: int, seed: int) -> np.ndarray:
    """Rows of 1 and -1: their cosines are multiples of 1/8 exactly, so a great many are equal."""
    return np.random.default_rng(seed).choice(np.array([-1, 1], np.float32), (n, D))


def assert_same(found: Similar, expected: Similar) -> None:
    assert (found.feature.dtype, found.similarity.dtype) == (np.int32, np.float32)
    np.testing.assert_array_equal(found.feature, expected.feature)
    np.testing.assert_array_equal(found.similarity, expected.similarity)


@pytest.fixture(params=["one block", "many blocks"])
def blocks(request, monkeypatch):
    if request.param == "many blocks":
        monkeypatch.setattr(similar, "N_ROWS", 70)
        monkeypatch.setattr(similar, "N_COLUMNS", 150)


@pytest.mark.parametrize("n", [3, 64, 333])
def test_all_pairs(n, blocks):
    rng = np.random.default_rng(n)
    inputs = rng.normal(size=(n, 24)).astype(np.float32) + 0.5
    neuron = np.sort(rng.integers(0, 40, n))
    done: list[int] = []
    found = similar_features(inputs, neuron, k=K, threshold=0.3, progress=done.append)
    expected = brute_force(inputs, neuron, K, 0.3)
    # float32 sums of 24 products: off by 2e-7 at most here
    np.testing.assert_allclose(found.similarity, expected.similarity, rtol=1e-6)
    np.testing.assert_array_equal(found.feature, expected.feature)
    assert sum(done) == n * n


@pytest.mark.parametrize("n", [40, 333])
def test_of_equally_similar_ones_the_lower_id_comes_first(n, blocks):
    inputs, neuron = signs(n, 0), np.random.default_rng(1).integers(0, 30, n)  # neurons in no order
    assert_same(similar_features(inputs, neuron, k=20, threshold=0.2), brute_force(inputs, neuron, 20, 0.2))


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_neurons_and_any_repeats(data):
    """Few different rows, so that most groups of features hold the same similarities."""
    n = 80
    inputs = signs(6, 2)[data.draw(st.lists(st.integers(0, 5), min_size=n, max_size=n))]
    inputs *= 2.0 ** np.float32(data.draw(st.integers(-100, 100)))
    neuron = np.array(data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n)))
    threshold = data.draw(st.sampled_from([-1.0, -0.5, 0.0, 0.5, 0.99]))
    assert_same(similar_features(inputs, neuron, k=K, threshold=threshold), brute_force(inputs, neuron, K, threshold))


@pytest.mark.slow
def test_copies_of_a_neuron_find_each_other():
    """Neurons 0 and 1 have three features each, the latter's inputs nearly those of the former; ten others differ."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 64))
    inputs = np.concatenate([x, x + 0.01 * rng.normal(size=x.shape), rng.normal(size=(10, 64))]).astype(np.float32)
    neuron = np.concatenate([[0, 0, 0, 1, 1, 1], np.arange(2, 12)])
    found = similar_features(inputs, neuron, k=1, threshold=0.9)
    assert found.feature[:, 0].tolist() == [3, 4, 5, 0, 1, 2] + [-1] * 10
    assert (found.similarity[:6] > 0.999).all()


@pytest.mark.slow
def test_the_same_input_is_of_similarity_one_whatever_its_scale(blocks):
    """And such features come in order of id, though rounding differs from block to block."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(7, 768)).astype(np.float32)
    inputs = x[np.arange(280) % 7] * rng.lognormal(size=(280, 1)).astype(np.float32)
    found = similar_features(inputs, np.arange(280), k=30, threshold=0.5)
    assert (found.similarity == 1).all()
    for feature, listed in enumerate(found.feature):
        assert listed.tolist() == [other for other in range(feature % 7, 280, 7) if other != feature][:30]


def test_nothing_to_find():
    nothing = Similar(np.full((4, 3), -1, np.int32), np.full((4, 3), np.nan, np.float32))
    inputs = signs(4, 4)
    assert_same(similar_features(inputs, np.zeros(4, int), k=3, threshold=-1.0), nothing)  # all of one neuron
    different = np.eye(4, D, dtype=np.float32)
    assert_same(similar_features(different, np.arange(4), k=3, threshold=0.0), nothing)
    assert_same(
        similar_features(different[:1], np.zeros(1, int), k=3, threshold=-1.0), Similar(*(f[:1] for f in nothing))
    )
    assert_same(
        similar_features(different[:0], np.zeros(0, int), k=3, threshold=-1.0), Similar(*(f[:0] for f in nothing))
    )


def test_more_are_asked_for_than_there_are():
    inputs, neuron = signs(6, 5), np.array([0, 0, 1, 2, 2, 2])
    found = similar_features(inputs, neuron, k=50, threshold=-2.0)
    assert_same(found, brute_force(inputs, neuron, 50, -2.0))
    assert (found.feature >= 0).sum(axis=1).tolist() == [4, 4, 5, 3, 3, 3]


def test_a_similarity_must_be_above_the_threshold():
    inputs = np.array([[1, 1, 1, 1], [1, 1, 1, -1]], np.float32)  # cosine 1/2
    for threshold, listed in ((0.5, [-1, -1]), (np.nextafter(np.float32(0.5), 0).item(), [1, 0])):
        assert similar_features(inputs, np.arange(2), k=1, threshold=threshold).feature[:, 0].tolist() == listed


def test_inputs_of_zeros_have_no_direction():
    inputs = np.zeros((4, 4), np.float32)
    inputs[2:] = 1
    found = similar_features(inputs, np.arange(4), k=3, threshold=-0.5)
    np.testing.assert_array_equal(found.similarity, [[0, 0, 0], [0, 0, 0], [1, 0, 0], [1, 0, 0]])
    assert (similar_features(inputs, np.arange(4), k=3, threshold=0.0).feature[:2] == -1).all()


def test_inputs_whose_squares_overflow_or_vanish():
    inputs = np.array([[1, 1], [3e38, 3e38], [1e-37, 1e-37], [-3e38, 3e38]], np.float32)
    found = similar_features(inputs, np.arange(4), k=3, threshold=0.9)
    assert found.feature.tolist() == [[1, 2, -1], [0, 2, -1], [0, 1, -1], [-1, -1, -1]]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_inputs_that_are_not_finite_are_refused(value):
    inputs = signs(5, 6)
    inputs[3, 2] = value
    with pytest.raises(UserError, match="the inputs of features are not all finite"):
        similar_features(inputs, np.arange(5), k=2, threshold=0.0)


def best_of_bins(operand: jax.Array, k: int, *, recall_target: float) -> tuple[jax.Array, jax.Array]:
    """What an accelerator does (arXiv 2206.14286): the best of each bin is kept, and of those the best `k`.

    One of the best `k` is lost if a better one is in its bin: of `(k - 1) / (1 - recall)` bins, with the probability
    `1 - recall` at most.
    """
    n_bins = max(k, min(operand.shape[1], int(np.ceil((k - 1) / (1 - recall_target)))))
    missing = -operand.shape[1] % n_bins
    bins = jnp.pad(operand, ((0, 0), (0, missing)), constant_values=-jnp.inf).reshape(len(operand), -1, n_bins)
    found, at = jax.lax.top_k(bins.max(axis=1), k)
    row_in_bin = jnp.take_along_axis(bins.argmax(axis=1), at, axis=1)
    return found, jnp.minimum(row_in_bin * n_bins + at, operand.shape[1] - 1)


@pytest.fixture(params=["as it is here", "as on an accelerator"])
def approximate(request, monkeypatch):
    """How `approx_max_k` works: on CPU it sorts everything, and misses nothing."""
    similar._merge_on.cache_clear()
    if request.param == "as on an accelerator":
        monkeypatch.setattr(jax.lax, "approx_max_k", best_of_bins)
    yield request.param
    similar._merge_on.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize("recall", [0.5, 0.8, 0.95])
def test_recall_below_one(recall, approximate, blocks):
    """As many of the true neighbours are found as were asked for, and nothing that is found is wrong."""
    rng = np.random.default_rng(7)
    inputs, neuron = rng.normal(size=(700, D)).astype(np.float32), np.arange(700) // 3
    found = similar_features(inputs, neuron, k=20, threshold=0.4, recall=recall)
    expected = brute_force(inputs, neuron, 20, 0.4)
    n_true = (expected.feature >= 0).sum()
    n_found = sum(
        len(set(listed[listed >= 0]) & set(true[true >= 0]))
        for listed, true in zip(found.feature, expected.feature, strict=True)
    )
    assert n_true > 5000
    if approximate == "as on an accelerator":
        assert n_found >= recall * n_true
        assert n_found < n_true or recall > 0.9  # a small block has a bin for each of its features
    else:
        assert n_found == n_true
    assert_pairs_are_right(found, inputs, neuron, 0.4)


def assert_pairs_are_right(found: Similar, inputs: np.ndarray, neuron: np.ndarray, threshold: float) -> None:
    """Each a feature of another neuron, listed once, with its own similarity, above the threshold, best first."""
    cosine = brute_force(inputs, neuron, len(inputs), -2.0)
    for feature, (listed, similarity) in enumerate(zip(*found, strict=True)):
        there = listed >= 0
        assert there[: there.sum()].all() and np.isnan(similarity[~there]).all() and (listed[~there] == -1).all()
        listed, similarity = listed[there], similarity[there]
        assert len(set(listed)) == len(listed) and (neuron[listed] != neuron[feature]).all()
        of_other = dict(zip(cosine.feature[feature], cosine.similarity[feature], strict=True))
        # float32 sums of 16 products
        np.testing.assert_allclose(similarity, [of_other[other] for other in listed], rtol=1e-6)
        assert (similarity > threshold).all() and (np.diff(similarity) <= 0).all()


def test_recall_below_one_with_ties_and_little_to_find(approximate):
    """Of equally similar ones that are found the lower id comes first; nothing is made up where there is nothing."""
    inputs, neuron = signs(300, 8), np.arange(300) // 4
    found = similar_features(inputs, neuron, k=20, threshold=0.4, recall=0.9)
    assert_pairs_are_right(found, inputs, neuron, 0.4)
    same = found.similarity[:, :-1] == found.similarity[:, 1:]
    assert same.sum() > 100 and (found.feature[:, :-1][same] < found.feature[:, 1:][same]).all()
    few = similar_features(signs(6, 5), np.array([0, 0, 1, 2, 2, 2]), k=50, threshold=-2.0, recall=0.9)
    assert_pairs_are_right(few, signs(6, 5), np.array([0, 0, 1, 2, 2, 2]), -2.0)


def test_the_recall_that_is_asked_for_is_the_one_that_is_sought(monkeypatch):
    asked: list[float] = []

    def approx_max_k(operand: jax.Array, k: int, *, recall_target: float) -> tuple[jax.Array, jax.Array]:
        asked.append(recall_target)
        return best_of_bins(operand, k, recall_target=recall_target)

    similar._merge_on.cache_clear()
    monkeypatch.setattr(jax.lax, "approx_max_k", approx_max_k)
    search = functools.partial(similar_features, signs(40, 9), np.arange(40), k=3, threshold=0.0)
    for recall in (0.7, 1.0, 0.9):
        search(recall=recall)
    similar._merge_on.cache_clear()
    assert asked == [0.7, 0.9]


@pytest.mark.parametrize("recall", [0.0, -0.5, 1.01, np.nan])
def test_a_recall_that_is_no_share_is_refused(recall):
    with pytest.raises(UserError, match="expected a share above 0, at most 1"):
        similar_features(signs(5, 6), np.arange(5), k=2, threshold=0.0, recall=recall)


def test_queries_are_rows_of_the_whole(blocks):
    """In any order, some twice; what is counted is what is compared."""
    inputs, neuron = signs(333, 10), np.arange(333) // 2
    whole = similar_features(inputs, neuron, k=K, threshold=0.2)
    for queries in (np.array([332, 0, 7, 7, 150]), np.arange(100, 290), np.array([], int)):
        done: list[int] = []
        found = similar_features(inputs, neuron, k=K, threshold=0.2, queries=queries, progress=done.append)
        assert_same(found, Similar(*(values[queries] for values in whole)))
        assert sum(done) == len(queries) * 333


@pytest.mark.parametrize("queries", [[5], [-1, 2]])
def test_queries_that_are_no_features_are_refused(queries):
    with pytest.raises(UserError, match="expected ids of features, 0 to 4"):
        similar_features(signs(5, 6), np.arange(5), k=2, threshold=0.0, queries=np.array(queries))


@pytest.mark.slow
def test_the_number_of_devices_does_not_matter(tmp_path):
    """Three cores that are devices of their own; 64 features do not divide by three."""
    code = (
        "import sys, numpy as np, jax; jax.config.update('jax_num_cpu_devices', 3)\n"
        "from nejax.pipeline.passes.similar import similar_features\n"
        "from nejax.pipeline.run.devices import mesh_of\n"
        "inputs = np.random.default_rng(0).normal(size=(64, 24)).astype(np.float32)\n"
        "for n in (1, 3):\n"
        "    mesh = mesh_of(jax.devices()[:n])\n"
        "    found = similar_features(inputs, np.arange(64) // 2, k=9, threshold=0.1, mesh=mesh)\n"
        "    np.savez(f'{sys.argv[1]}/{n}.npz', *found)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, check=True)
    alone, together = (list(np.load(tmp_path / f"{n}.npz").values()) for n in (1, 3))
    np.testing.assert_array_equal(together[0], alone[0])
    np.testing.assert_allclose(together[1], alone[1], rtol=1e-6)
