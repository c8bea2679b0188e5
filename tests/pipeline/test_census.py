"""The census against a look at all tokens at once: every neuron, band and feature by itself, in float64."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_collect import Interruption, from_number, interrupted_after, with_nan
from tiny_gpt2 import D_MLP, D_MODEL, DEAD, N_LAYERS, RULE, random_model

from nejax.errors import UserError
from nejax.neuron._kernels import one_kernel
from nejax.neuron.assignment import assign
from nejax.neuron.embeddings import embedding_distances
from nejax.pipeline.passes import census_tiles, stream
from nejax.pipeline.passes.census_tiles import EDGES, N_BANDS
from nejax.pipeline.run.checkpoints import Checkpoints
from nejax.pipeline.stages.census import Census, census


def some_features(model, seen) -> dict[str, object]:
    """From none to 6 features a neuron, each the direction of what some token gives; one of them has no direction.

    Each minimum is a quantile of the cosines to the features of the other tokens at the same place.
    """
    rng = np.random.default_rng(0)
    n_features = rng.integers(0, 7, (N_LAYERS, D_MLP))
    n_features[2, 4:] = rng.integers(0, 2, D_MLP - 4)  # layers differ
    n_features[1, 7] = 13
    directions, minimum = [], []
    for layer, of_layer in enumerate(n_features):
        x, w = seen.mlp_input[layer, :, 2], np.repeat(np.asarray(model.input_weights())[layer].T, of_layer, axis=0)
        embeddings = x * w[:, None]
        embeddings /= np.linalg.norm(embeddings, axis=2, keepdims=True)
        directions.append(embeddings[np.arange(len(w)), rng.integers(0, len(x), len(w))].astype(np.float16))
        cosines = np.einsum("fnd,fd->fn", embeddings, directions[-1].astype(np.float32))
        minimum += [np.quantile(row, rng.uniform(0.3, 0.98)) for row in cosines]
    directions[0][3] = 0
    return {"n_features": n_features, "directions": directions, "min_similarity": np.float32(minimum)}


def mean_of_pairs(distances: np.ndarray, members: np.ndarray) -> float:
    """The mean distance of two of them."""
    n = members.sum()
    return distances[np.ix_(members, members)].sum() / (n * (n - 1)) if n > 1 else np.nan


def all_at_once(model, sequences, seen, features) -> tuple[Census, np.ndarray]:
    """Every mean distance from its pairs, every feature from `assign`; and the maxima."""
    can_peak = RULE.allowed_in(sequences)
    x, activation = seen.mlp_input[:, can_peak], seen.activation[:, can_peak]
    w_in, maximum = np.asarray(model.input_weights()), activation.max(axis=1)
    fires = activation > 0
    fraction = np.where(fires, activation / np.maximum(maximum, 1e-30)[:, None], 0)
    band = np.where(fires, np.clip(np.searchsorted(EDGES, fraction, side="left") - 1, 0, N_BANDS - 1), -1)
    count = np.stack([(band == b).sum(axis=1) for b in range(N_BANDS)], axis=2)
    by_band, of_all = np.full((N_LAYERS, D_MLP, N_BANDS), np.nan), np.full((N_LAYERS, D_MLP), np.nan)
    excited, mass, neuron_mass = [], [], np.zeros((N_LAYERS, D_MLP))
    for layer, neuron in np.ndindex(N_LAYERS, D_MLP):
        w, of_neuron = w_in[layer, :, neuron], band[layer, :, neuron]
        distances = np.asarray(embedding_distances(x[layer], w), "f8")
        for b in range(N_BANDS):
            by_band[layer, neuron, b] = mean_of_pairs(distances, of_neuron == b)
        of_all[layer, neuron] = mean_of_pairs(distances, of_neuron >= 0)
        before = features["n_features"][layer, :neuron].sum()
        rows = slice(before, before + features["n_features"][layer, neuron])
        first = features["n_features"][:layer].sum()
        minimum = features["min_similarity"][first + rows.start : first + rows.stop]
        found = np.asarray(assign(x[layer], w, features["directions"][layer][rows], minimum).feature)
        found = np.where(of_neuron >= 0, found, -1)
        positive = np.maximum(activation[layer, :, neuron].astype("f8"), 0)
        for feature in range(len(minimum)):
            excited.append((found == feature).mean())
            mass.append(positive[found == feature].sum() / positive.sum() if positive.any() else np.nan)
        neuron_mass[layer, neuron] = positive[found >= 0].sum() / positive.sum() if positive.any() else np.nan
    expected = Census(count, by_band, of_all, np.array(excited), np.array(mass), neuron_mass, int(can_peak.sum()))
    return expected, maximum


def assert_close(found: Census, expected: Census, n_ties: int = 0) -> None:
    """Counts are the same but for tokens that rounding moves over an edge, at most `n_ties` in each field."""
    assert found.n_tokens == expected.n_tokens
    assert np.abs(found.band_count - expected.band_count).sum() <= n_ties
    moved = found.band_count != expected.band_count
    for name in ("band_mean_distance", "corpus_mean_distance"):
        got, wanted = getattr(found, name), getattr(expected, name)
        same = ~(moved if got.ndim == 3 else moved.any(axis=2))
        # 1 - |S/n|^2 in float32: off by 3e-7 at most here, whatever its size
        np.testing.assert_allclose(got[same], wanted[same], rtol=1e-5, atol=1e-6, err_msg=name)
    differ = np.abs(found.frequency - expected.frequency) > 1e-9
    assert differ.sum() <= n_ties
    # shares of all of a neuron's activation: a token just above 0 is as exact as the sum, not as itself; 3e-8 measured
    np.testing.assert_allclose(found.coverage[~differ], expected.coverage[~differ], rtol=1e-5, atol=3e-7)
    if not differ.any():
        np.testing.assert_allclose(found.neuron_coverage, expected.neuron_coverage, rtol=1e-5, atol=3e-7)


def assert_identical(a: Census, b: Census) -> None:
    for name, x, y in zip(Census._fields, a, b, strict=True):
        np.testing.assert_array_equal(x, y, err_msg=name)


@pytest.fixture(scope="module")
def features(model, seen):
    return some_features(model, seen)


@pytest.fixture(scope="module")
def expected_and_maximum(model, sequences, seen, features):
    return all_at_once(model, sequences, seen, features)


@pytest.fixture(scope="module")
def expected(expected_and_maximum) -> Census:
    return expected_and_maximum[0]


@pytest.fixture(scope="module")
def options(expected_and_maximum, features):
    return {**features, "maximum": expected_and_maximum[1], "rule": RULE}


@pytest.fixture(scope="module")
def taken(model, sequences, options) -> Census:
    """In batches of 7, the last of 2."""
    return census(model, from_number(sequences), batch_size=7, **options)


def test_the_corpus_of_these_tests_is_worth_it(expected, features):
    """All bands hold something, some hold too little; features are excited, or not, and there are many a neuron."""
    assert (expected.band_count.sum(axis=(0, 1)) > 100).all()
    assert np.isnan(expected.band_mean_distance[expected.band_count < 2]).all() and (expected.band_count == 1).any()
    assert ((expected.frequency > 0.02) & (expected.frequency < 0.3)).sum() > 50 and (expected.frequency == 0).any()
    assert all((expected.band_count[dead] == 0).all() for dead in DEAD)
    assert ((expected.neuron_coverage > 0.05) & (expected.neuron_coverage < 0.95)).sum() > 25


def test_all_fields_are_those_of_all_tokens_at_once(taken, expected):
    assert_close(taken, expected)
    assert taken.band_count.dtype == np.int64 and taken.band_mean_distance.dtype == np.float32


def test_the_coverage_of_a_neuron_is_the_sum_over_its_features(taken, features):
    first = np.concatenate([[0], features["n_features"].ravel().cumsum()])
    for i, wanted in enumerate(taken.neuron_coverage.ravel()):
        of_features = taken.coverage[first[i] : first[i + 1]]
        if np.isnan(wanted):
            assert np.isnan(of_features).all()
        else:
            np.testing.assert_allclose(of_features.sum(), wanted, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("batch_size", [1, 64])
def test_the_batch_size_does_not_matter(batch_size, model, sequences, options, expected):
    assert_close(census(model, from_number(sequences), batch_size=batch_size, **options), expected, n_ties=2)


@pytest.mark.slow
@pytest.mark.parametrize("width", [1, 5, 16])
def test_nor_does_the_width_of_the_blocks(width, model, sequences, options, expected, monkeypatch):
    monkeypatch.setattr(census_tiles, "_WIDTH_ON_CPU", width)
    assert_close(census(model, from_number(sequences), batch_size=8, **options), expected, n_ties=2)


@pytest.mark.slow
def test_other_backends_compute_the_same(model, sequences, options, expected, monkeypatch):
    for module in (census_tiles, one_kernel):
        monkeypatch.setattr(module, "on_cpu", lambda: False)
    jax.clear_caches()
    found = census(model, from_number(sequences), batch_size=8, **options)
    jax.clear_caches()
    assert_close(found, expected, n_ties=2)


def test_one_compilation_serves_all_batches(model, sequences, options, traces):
    census(model, from_number(sequences), batch_size=5, **options)
    assert len(traces) == 1


def test_progress_adds_up_to_the_real_tokens(model, sequences, options):
    told = []
    census(model, from_number(sequences), batch_size=7, progress=told.append, **options)
    assert sum(told) == sequences.length.sum() and len(told) == 6


def test_a_model_without_features_still_has_bands(model, sequences, options, expected):
    nothing = {
        "n_features": np.zeros((N_LAYERS, D_MLP), int),
        "directions": [np.zeros((0, D_MODEL), np.float16)] * N_LAYERS,
        "min_similarity": np.zeros(0, np.float32),
    }
    found = census(model, from_number(sequences), batch_size=7, **(options | nothing))
    assert len(found.frequency) == len(found.coverage) == 0
    fires = expected.band_count.any(axis=2)
    assert (found.neuron_coverage[fires] == 0).all() and np.isnan(found.neuron_coverage[~fires]).all()
    np.testing.assert_array_equal(found.band_count, expected.band_count)


def test_zero_embeddings_fire_but_are_in_no_pair_and_in_no_feature(sequences, options, expected):
    """A neuron that reads nothing, and fires by its bias alone."""
    model = random_model()
    kernel, bias = np.array(model.blocks.mlp_in.kernel[...]), np.array(model.input_bias())
    kernel[0, :, 6], bias[0, 6] = 0, 2
    model.blocks.mlp_in.kernel, model.blocks.mlp_in.bias = nnx.Param(jnp.asarray(kernel)), nnx.Param(jnp.asarray(bias))
    maximum = options["maximum"].copy()
    maximum[0, 6] = 2
    anything = np.full_like(options["min_similarity"], -1)
    found = census(
        model,
        from_number(sequences),
        batch_size=7,
        **(options | {"maximum": maximum, "min_similarity": anything}),
    )
    assert found.band_count[0, 6].tolist() == [0, 0, 0, 0, found.n_tokens]
    assert np.isnan(found.band_mean_distance[0, 6]).all() and np.isnan(found.corpus_mean_distance[0, 6])
    assert found.neuron_coverage[0, 6] == 0


def test_no_sequences_say_nothing(model, options):
    found = census(model, lambda start: iter(()), batch_size=4, **options)
    assert found.n_tokens == 0 and not found.band_count.any() and (found.frequency == 0).all()
    assert np.isnan(found.band_mean_distance).all() and np.isnan(found.coverage).all()


def test_activations_that_are_not_finite_stop_it(model, sequences, options):
    with pytest.raises(UserError, match=r"not finite .* in layer\(s\) 1, 2; "):
        census(with_nan(model, 1), from_number(sequences), batch_size=7, **options)


@pytest.mark.parametrize(("interruptions", "n_saved"), [((1,), 0), ((3,), 2), ((3, 3), 4)])
def test_an_interrupted_census_goes_on_to_the_same_bits(
    interruptions, n_saved, model, sequences, options, tmp_path, monkeypatch
):
    monkeypatch.setattr(stream, "LOOK_EVERY", 2)
    uninterrupted = census(model, from_number(sequences), batch_size=7, **options)
    saving = {"checkpoints": Checkpoints(tmp_path / "partial", 0.0), "batch_size": 7, **options}
    for n_batches in interruptions:
        with pytest.raises(Interruption):
            census(model, from_number(sequences), progress=interrupted_after(n_batches), **saving)
    told = []
    assert_identical(census(model, from_number(sequences), progress=told.append, **saving), uninterrupted)
    assert sum(told) == sequences.length[7 * n_saved :].sum(), "it goes on from its last checkpoint"


@pytest.mark.slow
def test_the_number_of_devices_does_not_matter(options, expected, tmp_path):
    """Three devices: neither 7 rows nor 16 dimensions divide by three."""
    code = (
        "import pickle, sys, numpy as np, jax\n"
        "from test_census import *\n"
        "from tiny_gpt2 import random_sequences\n"
        "from nejax.pipeline.run.devices import mesh_of\n"
        "options = pickle.load(open(f'{sys.argv[1]}/options.pickle', 'rb'))\n"
        "for n in (1, 3):\n"
        "    on = {'batch_size': 7, 'mesh': mesh_of(jax.devices()[:n])}\n"
        "    found = census(random_model(), from_number(random_sequences()), **on, **options)\n"
        "    np.savez(f'{sys.argv[1]}/{n}.npz', *found)"
    )
    (tmp_path / "options.pickle").write_bytes(pickle.dumps(options))
    here = Path(__file__).parent
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, [here, *here.parents[:2]])),
        "JAX_NUM_CPU_DEVICES": "3",
    }
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, check=True)
    for n in (1, 3):
        assert_close(Census(*np.load(tmp_path / f"{n}.npz").values()), expected, n_ties=2)
