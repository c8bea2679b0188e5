"""The classifier against NumPy float64, and what its parts say of each other."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from mnist.mlp import MLP, cross_entropy
from nejax.training.language_model import init_train_state, make_train_step, plain_loss

D_IN, D_HIDDEN, N_CLASSES = 20, 7, 4


@pytest.fixture(scope="module")
def mlp() -> MLP:
    made = MLP(D_IN, D_HIDDEN, N_CLASSES, rngs=nnx.Rngs(3))
    rng = np.random.default_rng(0)
    made.b_in[...], made.b_out[...] = (jnp.asarray(rng.normal(size=n), jnp.float32) for n in (D_HIDDEN, N_CLASSES))
    return made


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(1).normal(0, 3, (50, D_IN)).astype(np.float32)


def test_every_part_is_that_of_numpy(mlp: MLP, x: np.ndarray):
    w_in, b_in, w_out, b_out = (np.asarray(p[...], np.float64) for p in (mlp.W_in, mlp.b_in, mlp.W_out, mlp.b_out))
    pre_activation = x @ w_in + b_in
    activation = np.maximum(pre_activation, 0)
    logits = activation @ w_out + b_out
    assert 0.2 < np.mean(activation > 0) < 0.8
    close = {"rtol": 1e-5, "atol": 1e-5}  # sums of 20 terms of size 1 that may cancel
    np.testing.assert_allclose(mlp.pre_activation(jnp.asarray(x)), pre_activation, **close)
    np.testing.assert_allclose(mlp.activation(jnp.asarray(x)), activation, **close)
    np.testing.assert_allclose(mlp(jnp.asarray(x)), logits, **close)
    labels = np.random.default_rng(2).integers(0, N_CLASSES, len(x))
    log_sum = np.log(np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)) + logits.max(axis=1)
    expected = np.mean(log_sum - logits[np.arange(len(x)), labels])
    np.testing.assert_allclose(cross_entropy(mlp, jnp.asarray(x), jnp.asarray(labels)), expected, rtol=1e-5)


def test_a_neuron_peaks_at_its_own_input_weights(mlp: MLP):
    """Of all inputs of one length, a neuron's pre-activation is highest along its column of weights."""
    columns = mlp.input_weights().T
    columns = columns / jnp.linalg.norm(columns, axis=1, keepdims=True)
    assert columns.shape == (D_HIDDEN, D_IN)
    found = mlp.pre_activation(columns)
    assert found.argmax(axis=0).tolist() == list(range(D_HIDDEN))


def test_the_effect_on_the_classes_is_what_a_step_changes(mlp: MLP, x: np.ndarray):
    rng = np.random.default_rng(4)
    directions = jnp.asarray(rng.normal(size=(9, D_HIDDEN)), jnp.float32)
    activation = mlp.activation(jnp.asarray(x))[0]
    changed = jax.vmap(lambda direction: mlp.logits(activation + direction))(directions) - mlp.logits(activation)
    np.testing.assert_allclose(mlp.class_effects(directions), changed, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(mlp.class_effects(jnp.eye(D_HIDDEN)), mlp.W_out[...])


def test_first_weights_are_uniform_within_one_over_the_root_of_the_fan_in():
    made = MLP(400, 300, 10, rngs=nnx.Rngs(0))
    for weights, fan_in in ((made.W_in[...], 400), (made.W_out[...], 300)):
        assert float(jnp.abs(weights).max()) <= fan_in**-0.5
        np.testing.assert_allclose(jnp.std(weights), (3 * fan_in) ** -0.5, rtol=0.05)
    assert not made.b_in[...].any() and not made.b_out[...].any()


def test_it_learns_what_no_linear_classifier_can():
    corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32) * 2 - 1
    x, labels = jnp.asarray(np.repeat(corners, 8, axis=0)), jnp.asarray(np.repeat([0, 1, 1, 0], 8))
    graph, params = nnx.split(MLP(2, 16, 2, rngs=nnx.Rngs(0)))
    optimizer = optax.adam(0.03)
    step = make_train_step(plain_loss(lambda p, batch: cross_entropy(nnx.merge(graph, p), *batch)), optimizer)
    state = init_train_state(params, optimizer)
    first = None
    for _ in range(200):
        state, metrics = step(state, (x, labels))
        first = first or float(metrics["loss"])
    assert first > 0.5 and float(metrics["loss"]) < 0.01
    assert (nnx.merge(graph, state.params)(x).argmax(axis=1) == labels).all()
