"""The losses of a language model against NumPy float64, and the step that minimises any loss."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from model_files import VOCAB, write_model

from nejax.models.formats.weights import load_weights
from nejax.training.language_model import (
    TrainState,
    init_train_state,
    language_model_loss,
    make_train_step,
    next_token_losses,
    plain_loss,
    warmup_cosine,
)

LENGTH = np.array([6, 4, 1])


@pytest.fixture(scope="module")
def scored() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(0, 5, (3, 6, 11)).astype(np.float32), rng.integers(0, 11, (3, 6))


def expected_losses(logits: np.ndarray, tokens: np.ndarray, length: np.ndarray) -> np.ndarray:
    """`-log softmax`, entry by entry, in float64."""
    losses = np.zeros((tokens.shape[0], tokens.shape[1] - 1))
    for row in range(len(tokens)):
        for t in range(length[row] - 1):
            scores = logits[row, t].astype(np.float64)
            losses[row, t] = math.log(np.exp(scores).sum()) - scores[tokens[row, t + 1]]
    return losses


def test_next_token_losses(scored):
    logits, tokens = scored
    losses = jax.jit(next_token_losses)(jnp.asarray(logits), jnp.asarray(tokens), jnp.asarray(LENGTH))
    expected = expected_losses(logits, tokens, LENGTH)
    np.testing.assert_allclose(losses, expected, rtol=1e-5, atol=1e-6)
    assert not np.any(losses[1, 3:]) and not np.any(losses[2]) and np.all(expected[0] > 0)


def test_the_loss_is_the_mean_over_predicted_tokens_of_all_rows(scored):
    logits, tokens = scored
    loss = jax.jit(language_model_loss)(jnp.asarray(logits), jnp.asarray(tokens), jnp.asarray(LENGTH))
    expected = expected_losses(logits, tokens, LENGTH).sum() / (5 + 3 + 0)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_a_model_that_knows_nothing_needs_log2_of_the_vocabulary_in_bits(scored):
    _, tokens = scored
    loss = jax.jit(language_model_loss)(jnp.full((3, 6, 11), 7.0), jnp.asarray(tokens), jnp.asarray(LENGTH))
    np.testing.assert_allclose(loss / math.log(2), math.log2(11), rtol=1e-6)


def test_padding_has_no_part_in_the_loss_or_its_gradient(scored):
    logits, tokens = scored
    padded = np.arange(6) >= LENGTH[:, None]
    loss = jax.jit(jax.value_and_grad(language_model_loss))
    value, gradient = loss(jnp.asarray(logits), jnp.asarray(tokens), jnp.asarray(LENGTH))
    other = jnp.asarray(np.where(padded, (tokens + 1) % 11, tokens))
    assert loss(jnp.asarray(logits), other, jnp.asarray(LENGTH))[0] == value
    assert not np.any(np.asarray(gradient)[np.arange(6) >= LENGTH[:, None] - 1])
    np.testing.assert_allclose(np.asarray(gradient).sum(axis=-1), 0, atol=1e-7)


def test_a_step_is_that_of_plain_gradient_descent():
    """For `|p - batch|^2 / 2` the gradient is `p - batch`, so a step of rate 0.25 is known by hand."""
    step = make_train_step(plain_loss(lambda params, batch: 0.5 * jnp.sum((params["p"] - batch) ** 2)), optax.sgd(0.25))
    state = init_train_state({"p": jnp.array([3.0, -4.0, 0.0])}, optax.sgd(0.25))
    assert state.step == 0
    state, metrics = step(state, jnp.array([0.0, 0.0, 12.0]))
    assert (metrics["loss"], metrics["grad_norm"]) == (0.5 * 169, 13.0)
    np.testing.assert_allclose(state.params["p"], [2.25, -3.0, 3.0], rtol=1e-6)
    assert state.step == 1


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    """A function that teaches a tiny GPT-2 one batch by heart, and returns its last state and all losses."""
    graph, params = nnx.split(load_weights(write_model(tmp_path_factory.mktemp("model"))))
    tokens = jnp.asarray(np.random.default_rng(3).integers(0, VOCAB, (4, 12)))
    length = jnp.array([12, 12, 7, 2])

    def loss(params: nnx.State, batch: jax.Array) -> jax.Array:
        return language_model_loss(nnx.merge(graph, params)(batch)[0], batch, length)

    optimizer = optax.adamw(warmup_cosine(3e-2, 30, 2))
    step = make_train_step(plain_loss(loss), optimizer)

    def run() -> tuple[TrainState, list[float]]:
        state, losses = init_train_state(jax.tree.map(jnp.copy, params), optimizer), []
        for _ in range(30):
            state, metrics = step(state, tokens)
            losses.append(float(metrics["loss"]))
        return state, losses

    return run


@pytest.mark.slow
def test_training_learns_and_does_so_again_bit_by_bit(train):
    state, losses = train()
    assert state.step == 30
    assert losses[-1] < 0.5 * losses[0]
    other, other_losses = train()
    assert losses == other_losses
    jax.tree.map(np.testing.assert_array_equal, state, other)


def test_a_steps_state_is_donated_and_it_compiles_once():
    n_traces = 0

    def loss(params: jax.Array, batch: jax.Array) -> jax.Array:
        nonlocal n_traces
        n_traces += 1
        return jnp.sum(params * batch)

    step = make_train_step(plain_loss(loss), optax.adam(0.1))
    state = init_train_state(jnp.ones(5), optax.adam(0.1))
    for i in range(3):
        before, (state, _) = state, step(state, jnp.full(5, float(i)))
        assert before.params.is_deleted()
    assert n_traces == 1


def test_warmup_and_cosine():
    schedule = warmup_cosine(2.0, n_steps=110, n_warmup=10)
    expected = {0: 0.0, 5: 1.0, 10: 2.0, 60: 2.0 * (1 + 0.01) / 2, 110: 0.02, 500: 0.02}
    for step, rate in expected.items():
        np.testing.assert_allclose(schedule(step), rate, rtol=1e-5, atol=1e-7)
