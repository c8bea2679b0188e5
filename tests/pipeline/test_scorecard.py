"""Losses with something else at a site, and units at levels of their maximum, against definitions written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny_gpt2 import D_MODEL, DEAD, RULE, random_model, random_sequences

from nejax.models.families.gpt2 import GPT2
from nejax.models.sae.architectures import SAE, TopKSAE
from nejax.models.sae.evaluation import read_by_encoder
from nejax.models.sae.hook_points import Site
from nejax.pipeline.corpus.windows import Sequences
from nejax.training.language_model import language_model_loss
from nejax.training.scorecard import (
    SpliceLosses,
    latents_of,
    measure_at_levels,
    neurons_of,
    splice_losses,
)
from nejax.training.site_inputs import SiteReader

SITE = Site(1, "mlp_output")


@pytest.fixture(scope="module")
def model() -> GPT2:
    return random_model()


@pytest.fixture(scope="module")
def sequences() -> Sequences:
    return Sequences(*(field[:12] for field in random_sequences()))


@pytest.fixture(scope="module")
def read(model) -> SiteReader:
    return SiteReader(model, SITE, rule=RULE)


@pytest.fixture(scope="module")
def inputs(read, sequences) -> np.ndarray:
    return read(sequences)


def constant(value: np.ndarray) -> SAE:
    """The SAE that has one answer to everything."""
    sae = SAE(D_MODEL, 8, rngs=nnx.Rngs(0))
    sae.W_dec, sae.b_dec = nnx.Param(jnp.zeros((8, D_MODEL))), nnx.Param(jnp.asarray(value))
    return sae


@pytest.fixture(scope="module")
def losses_with(model, sequences, read, inputs):
    def find(sae: SAE) -> SpliceLosses:
        where, mean = read.positions(sequences), inputs.mean(axis=0)
        return splice_losses(model, SITE, sae, sequences, where, mean, batch_size=5)

    return find


# --- losses


def test_an_sae_that_answers_with_zeros_or_the_mean_is_the_ablation(losses_with, inputs):
    zero, mean = losses_with(constant(np.zeros(D_MODEL, np.float32))), losses_with(constant(inputs.mean(axis=0)))
    assert zero.spliced == pytest.approx(zero.zero, rel=1e-6)
    assert mean.spliced == pytest.approx(mean.mean, rel=1e-6)
    assert len({round(value, 3) for value in (zero.clean, zero.zero, zero.mean)}) == 3
    assert zero.numbers()["recovered"] == pytest.approx(0, abs=1e-4)
    assert mean.numbers()["recovered_from_mean"] == pytest.approx(0, abs=1e-4)


def test_the_clean_loss_is_that_of_the_model_whatever_the_batches(losses_with, model, sequences):
    logits = jax.jit(lambda tokens: model(tokens)[0])(sequences.tokens)
    expected = language_model_loss(logits, jnp.asarray(sequences.tokens), jnp.asarray(sequences.length))
    assert losses_with(constant(np.ones(D_MODEL, np.float32))).clean == pytest.approx(float(expected), rel=1e-5)


# --- levels


def brute_force(x, w_in, activation, level, n_examples) -> list[float]:
    found = []
    for unit in range(w_in.shape[1]):
        values = activation[:, unit]
        first = np.flatnonzero(values > level * max(values.max(), 0))[:n_examples]
        e = x[first].astype(np.float64) * w_in[:, unit]
        e /= np.linalg.norm(e, axis=1, keepdims=True)
        found.append(1 - (e @ e.T)[np.triu_indices(len(first), 1)].mean() if len(first) > 1 else np.nan)
    return found


@pytest.mark.slow
def test_neurons_at_levels_are_those_of_a_loop(model, sequences):
    x = SiteReader(model, Site(1, "mlp_input"), rule=RULE)(sequences)
    units = neurons_of(model, 1)
    w_in, activation = np.asarray(units.w_in), np.asarray(units.activation(units.of, jnp.asarray(x)))
    expected = jax.nn.gelu(x @ w_in + np.asarray(model.input_bias()[1]), approximate=True)
    np.testing.assert_allclose(activation, expected, rtol=1e-5, atol=1e-5)
    levels = (0.0, 0.5)
    for level, found in zip(
        levels, measure_at_levels(x, units, levels=levels, n_examples=12, batch_size=64), strict=True
    ):
        distance = brute_force(x, w_in, activation, level, 12)
        # Measured: 2e-5 apart, from distances that are the difference of 1 and a cosine.
        np.testing.assert_allclose(found.measures.mean_distance, distance, rtol=1e-4, atol=1e-5)
        dead = next(neuron for layer, neuron in DEAD if layer == 1)
        assert found.n_fired[dead] == 0 and np.isnan(distance[dead])


@pytest.mark.slow
def test_latents_read_what_their_encoder_reads(inputs):
    sae = TopKSAE(D_MODEL, 20, k=3, normalize="layer_norm", rngs=nnx.Rngs(1))
    x, units = read_by_encoder(sae, inputs, batch_size=50), latents_of(sae)
    latents = np.asarray(units.activation(units.of, jnp.asarray(x)))
    np.testing.assert_allclose(latents, sae.encode(jnp.asarray(inputs)), rtol=1e-5, atol=1e-5)
    assert read_by_encoder(constant(inputs[0]), inputs) is inputs
    (found,) = measure_at_levels(x, units, levels=[0.25], n_examples=12)
    expected = brute_force(x, np.asarray(sae.W_enc[...]), latents, 0.25, 12)
    np.testing.assert_allclose(found.measures.mean_distance, expected, rtol=1e-4, atol=1e-5)
