"""The map of a neuron's examples and the histogram of its activation, from the model to the opened atlas."""

import math
import sqlite3

import jax.numpy as jnp
import numpy as np
import pytest
from small_run import D_MLP, DEAD_LAYER, DEAD_NEURON, N_LAYERS, all_sequences
from stage_stores import layers_of, store_of

from nejax.atlas.atlas import Atlas
from nejax.atlas.neuron import Neuron
from nejax.models.families.gpt2 import GPT2
from nejax.pipeline.passes.histogram import N_BINS, sample_sequences
from nejax.pipeline.stages.inputs import INPUTS, inputs_of_layer
from nejax.pipeline.stages.run import Run


@pytest.fixture(scope="module")
def neurons(atlas: Atlas) -> list[Neuron]:
    """All of them."""
    return [atlas.neuron(layer, index) for layer in range(N_LAYERS) for index in range(D_MLP)]


@pytest.fixture(scope="module")
def sampled(run: Run) -> np.ndarray:
    """[n_layers, n_tokens, d_mlp] activations at the sampled tokens, from one plain pass."""
    sequences = all_sequences(run)
    can_peak, tokens = run.peak_rule.allowed_in(sequences), jnp.asarray(sequences.tokens)
    sample = sample_sequences(can_peak.sum(axis=1), can_peak.shape[1], run.settings.seed)
    _, activation = run.loaded.model(tokens[sample], reader=lambda view: view.activation)
    return np.asarray(activation)[:, can_peak[sample]]


def test_the_arrays_are_those_of_the_stores_without_empty_places(run: Run):
    chosen, found = store_of(run, INPUTS), layers_of(run)
    there = chosen["sequence"] >= 0
    coordinates, histogram = (
        np.load(run.directory.path / "atlas" / f"{name}.npy") for name in ("coordinates", "histogram")
    )
    in_stores = np.stack([store["coordinates"] for store in found])
    assert coordinates.dtype == in_stores.dtype == np.float16 and np.isnan(in_stores[~there]).all()
    np.testing.assert_array_equal(coordinates, in_stores[there])
    assert histogram.dtype == np.uint32 and histogram.shape == (N_LAYERS * D_MLP, N_BINS)
    np.testing.assert_array_equal(histogram, chosen["histogram"].reshape(-1, N_BINS))


def test_the_columns_are_those_of_the_stores(run: Run):
    database = sqlite3.connect(run.directory.path / "atlas" / "atlas.sqlite")
    rows = database.execute("SELECT lowest_activation, coordinates_share FROM neurons ORDER BY id").fetchall()
    ((n_tokens,),) = database.execute("SELECT value FROM meta WHERE key = 'n_sampled_tokens'").fetchall()
    database.close()
    lowest, share = np.array(rows, float).T
    np.testing.assert_array_equal(lowest, store_of(run, INPUTS)["lowest_activation"].ravel())
    np.testing.assert_array_equal(share, np.concatenate([store["coordinates_share"] for store in layers_of(run)]))
    assert int(n_tokens) == run.directory.manifest["stages"]["inputs"]["sampled_tokens"]


def test_coordinates_are_the_scores_of_the_unit_embeddings(neurons: list[Neuron], run: Run):
    """Against a decomposition in float64, from the stored inputs and the model's weights.

    float16 rounds by up to 2**-11 of a value. Where two variances are near to each other the axes depend on rounding:
    there only the share is looked at.
    """
    model: GPT2 = run.loaded.model
    w_in, input_of = np.asarray(model.input_weights(), np.float64), store_of(run, INPUTS)["input_of"]
    inputs = [inputs_of_layer(run, layer) for layer in range(N_LAYERS)]
    n_compared = 0
    for neuron in neurons:
        if neuron.n_examples < 3:
            continue
        rows = input_of[neuron.layer, neuron.index, : neuron.n_examples]
        embeddings = inputs[neuron.layer][rows] * w_in[neuron.layer, :, neuron.index]
        units = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
        u, s, _ = np.linalg.svd(units - units.mean(axis=0), full_matrices=False)
        variances = s**2
        if variances.sum() < 1e-6:
            assert math.isnan(neuron.coordinates_share)
            continue
        assert neuron.coordinates_share == pytest.approx(variances[:2].sum() / variances.sum(), rel=1e-5)
        if min(variances[0] - variances[1], variances[1] - variances[2]) > 0.01 * variances[0]:
            found, scores = np.array([example.coordinates for example in neuron.examples]), u[:, :2] * s[:2]
            scores *= np.sign((scores * found).sum(axis=0))
            np.testing.assert_allclose(found, scores, rtol=2**-11 + 1e-5, atol=1e-5)
            n_compared += 1
    assert n_compared > 80


def test_histograms_are_those_of_a_plain_pass(neurons: list[Neuron], sampled: np.ndarray):
    for neuron in neurons:
        values, histogram = sampled[neuron.layer, :, neuron.index].astype(float), neuron.histogram
        assert histogram.n_tokens == histogram.counts.sum() == len(values)
        assert (histogram.edges[0], histogram.edges[-1]) == (neuron.lowest_activation, neuron.max_activation)
        assert neuron.lowest_activation == pytest.approx(values.min(), rel=1e-5, abs=1e-6)
        assert len(histogram.edges) == len(histogram.counts) + 1 == N_BINS + 1
        np.testing.assert_allclose(np.diff(histogram.edges), np.ptp(histogram.edges) / N_BINS, atol=1e-12)
        reached = histogram.counts[::-1].cumsum()[::-1]
        # The activations come from passes of other shapes, by up to 1e-6 different.
        most, least = ((values[:, None] >= histogram.edges[1:-1] + shift).sum(axis=0) for shift in (-2e-6, 2e-6))
        assert (least <= reached[1:]).all() and (reached[1:] <= most).all()


def test_dead_neurons_have_a_histogram_and_no_map(atlas: Atlas):
    for place in (DEAD_NEURON, (DEAD_LAYER, 63)):
        neuron = atlas.neuron(*place)
        assert neuron.lowest_activation == neuron.max_activation == 0
        assert neuron.histogram.edges.tolist() == [0] * (N_BINS + 1)
        assert neuron.histogram.counts.tolist() == [0] * (N_BINS - 1) + [neuron.histogram.n_tokens]
        assert math.isnan(neuron.coordinates_share)
