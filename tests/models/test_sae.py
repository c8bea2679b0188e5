"""The four architectures, their losses and their gradients, against formulas in NumPy float64."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from nejax.models.sae.architectures import (
    ARCHITECTURES,
    SAE,
    JumpReLUSAE,
    TopKSAE,
    fold_scale,
    make_sae_loss,
)
from nejax.models.sae.straight_through import jump_relu, step
from nejax.neuron.polysemanticity import neuron_embedding_loss
from nejax.training.language_model import TrainState, init_train_state, train_step

D_IN, D_SAE, K = 12, 30, 4
CASES = [(name, {"k": K} if name == "topk" else {}) for name in ARCHITECTURES]
CASES += [("topk", {"k": K, "rescale_acts_by_decoder_norm": True})]


def make(architecture: str, *, scale: float = 0.4, **options: Any) -> SAE:
    """An SAE with no parameter at 0 and decoder rows of different lengths."""
    sae = ARCHITECTURES[architecture](D_IN, D_SAE, rngs=nnx.Rngs(0), **options)
    rng = np.random.default_rng(0)
    for path, leaf in nnx.to_flat_state(nnx.state(sae)):
        values = rng.normal(0, scale, leaf.get_value().shape)
        if path == ("threshold",):
            values = np.abs(values) + 0.1
        setattr(sae, str(path[0]), nnx.Param(jnp.asarray(values, jnp.float32)))
    return sae


def inputs(n: int = 40, seed: int = 1) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(0.3, 1, (n, D_IN)), jnp.float32)


def weights_of(sae: SAE) -> dict[str, np.ndarray]:
    leaves = nnx.to_flat_state(nnx.state(sae))
    return {str(path[0]): np.asarray(leaf.get_value(), "f8") for path, leaf in leaves}


def largest(h: np.ndarray, k: int) -> np.ndarray:
    """`relu` of the k largest of each row, 0 elsewhere."""
    kept = np.zeros_like(h)
    for row, values in enumerate(h):
        index = np.argsort(-values)[:k]
        kept[row, index] = np.maximum(values[index], 0)
    return kept


class ByHand:
    """What an SAE does, in float64: its formulas written out once more."""

    def __init__(self, sae: SAE, x: jax.Array):
        self.x, self.w = np.asarray(x, "f8"), weights_of(sae)
        self.norms = np.linalg.norm(self.w["W_dec"], axis=1)
        self.read, undo = self.normalized(sae.normalize)
        centred = self.read - self.w["b_dec"] if sae.apply_b_dec_to_input else self.read
        self.h = centred @ self.w["W_enc"] + self.w.get("b_enc", self.w.get("b_gate", 0))
        decoder = self.w["W_dec"]
        match sae.architecture:
            case "standard":
                self.latents = np.maximum(self.h, 0)
            case "topk":
                rescale = isinstance(sae, TopKSAE) and sae.rescale_acts_by_decoder_norm
                self.latents = largest(self.h * self.norms if rescale else self.h, K)
                decoder = decoder / self.norms[:, None] if rescale else decoder
            case "jumprelu":
                self.latents = np.maximum(self.h, 0) * (self.h > self.w["threshold"])
            case "gated":
                magnitude = centred @ (self.w["W_enc"] * np.exp(self.w["r_mag"])) + self.w["b_mag"]
                self.latents = np.where(self.h > 0, np.maximum(magnitude, 0), 0)
        self.reconstruction = undo(self.latents @ decoder + self.w["b_dec"])

    def normalized(self, how: str):
        if how == "layer_norm":
            mean, std = self.x.mean(1, keepdims=True), self.x.std(1, ddof=1, keepdims=True)
            return (self.x - mean) / (std + 1e-5), lambda out: out * std + mean
        if how == "constant_norm_rescale":
            length = np.linalg.norm(self.x, axis=1, keepdims=True) / D_IN**0.5
            return self.x / length, lambda out: out * length
        return self.x, lambda out: out


# --- what they compute


NORMALIZED = [("none", True), ("none", False), ("layer_norm", True), ("constant_norm_rescale", False)]
EVERY = [("standard", {}, *how) for how in NORMALIZED]
EVERY += [(*case, *how) for case in CASES[1:] for how in NORMALIZED[::3]]


@pytest.mark.parametrize(("architecture", "own", "normalize", "subtract"), EVERY)
def test_latents_and_reconstructions(architecture: str, own: dict, normalize: Any, subtract: bool):
    sae, x = make(architecture, normalize=normalize, apply_b_dec_to_input=subtract, **own), inputs()
    expected = ByHand(sae, x)
    assert 0.05 < (expected.latents > 0).mean() < 0.8
    latents, reconstruction = jax.jit(lambda x: (sae.encode(x), sae(x)))(x)
    np.testing.assert_allclose(latents, expected.latents, rtol=1e-5, atol=3e-6)
    np.testing.assert_array_equal(latents > 0, expected.latents > 0)
    np.testing.assert_allclose(reconstruction, expected.reconstruction, rtol=1e-5, atol=1e-5)


def test_the_last_axis_is_the_input():
    sae, x = make("topk", k=K), inputs(24)
    np.testing.assert_allclose(sae(x.reshape(2, 3, 4, D_IN)), sae(x).reshape(2, 3, 4, D_IN), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(sae(x[0]), sae(x)[0], rtol=1e-5, atol=1e-6)


def test_equal_pre_activations_at_the_kth_place_all_fire():
    sae = TopKSAE(3, 5, k=2, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(sae.activate(jnp.array([[1.0, 3, 1, 1, 0]])), [[1, 3, 1, 1, 0]])
    np.testing.assert_array_equal(sae.activate(jnp.array([[-1.0, -3, 2, -1, -5]])), [[0, 0, 2, 0, 0]])


def test_impossible_arguments_are_refused():
    for k in (0, D_SAE + 1):
        with pytest.raises(ValueError, match=f"k={k}: expected 1 to {D_SAE}"):
            TopKSAE(D_IN, D_SAE, k=k, rngs=nnx.Rngs(0))


def test_the_first_weights():
    sae = SAE(D_IN, D_SAE, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(np.linalg.norm(sae.W_dec[...], axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(sae.W_enc[...], sae.W_dec[...].T)


@pytest.mark.parametrize(("architecture", "own"), CASES)
def test_a_scale_folded_in(architecture: str, own: dict):
    sae, x = make(architecture, **own), inputs()
    folded = fold_scale(sae, 0.3)
    of_latents = 1 / 0.3 if len(own) == 2 else 1  # where they count the decoder rows' lengths in
    np.testing.assert_allclose(folded.encode(x), of_latents * sae.encode(0.3 * x), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(folded(x), sae(0.3 * x) / 0.3, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="cannot be folded into an SAE with normalize='layer_norm'"):
        fold_scale(make(architecture, normalize="layer_norm", **own), 0.3)


# --- losses


def relu(values: np.ndarray) -> np.ndarray:
    return np.maximum(values, 0)


@pytest.mark.parametrize(("architecture", "own"), CASES[:4])
@pytest.mark.parametrize("normalize", ["none", "layer_norm"])
def test_losses_by_name(architecture: str, own: dict, normalize: Any):
    sae, x = make(architecture, normalize=normalize, **own), inputs()
    silent = np.arange(D_SAE) % 3 == 0
    losses, latents = jax.jit(lambda x, silent: sae.losses(x, silent=silent, embedding_rows=25))(x, jnp.asarray(silent))
    by_hand = ByHand(sae, x)
    w, h, norms, error = by_hand.w, by_hand.h, by_hand.norms, by_hand.x - by_hand.reconstruction
    expected = {"reconstruction": (error**2).mean()}
    if architecture == "topk":
        tried = largest(np.where(silent, h, -np.inf), D_IN // 2)
        expected["revival"] = ((error - tried @ w["W_dec"]) ** 2).mean() / (error**2).mean()
    else:
        below = relu(w.get("threshold", np.zeros(D_SAE)) - h)
        expected["revival"] = (below * norms * silent).sum(1).mean()
        counted = {"standard": by_hand.latents * norms, "jumprelu": h > w.get("threshold", 0), "gated": relu(h) * norms}
        expected["sparsity"] = counted[architecture].sum(1).mean()
    if architecture == "gated":
        expected["gate_reconstruction"] = ((by_hand.read - relu(h) @ w["W_dec"] - w["b_dec"]) ** 2).mean()
    read = jnp.asarray(by_hand.read[:25], jnp.float32)
    expected["neuron_embedding"] = neuron_embedding_loss(read, sae.W_enc[...], jnp.asarray(by_hand.latents[:25] > 0))
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(losses[name], value, rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(latents, by_hand.latents, rtol=1e-5, atol=3e-6)
    assert jax.eval_shape(lambda x: sae.losses(x)[0], x).keys() == expected.keys() - {"revival", "neuron_embedding"}


@pytest.mark.parametrize(("architecture", "own"), CASES[:4])
def test_revival_moves_silent_latents_only(architecture: str, own: dict):
    sae, x = make(architecture, **own), inputs()
    silent = jnp.arange(D_SAE) < 5
    graph, params = nnx.split(sae)

    def revival(params: Any, silent: jax.Array) -> jax.Array:
        return nnx.merge(graph, params).losses(x, silent=silent)[0]["revival"]

    value_and_grad = jax.jit(jax.value_and_grad(revival))
    _, gradient = value_and_grad(params, silent)
    moved = np.abs(gradient["W_enc"][...]).max(axis=0) > 0
    assert moved[:5].any() and not moved[5:].any()
    # a step against the gradient brings the silent ones nearer to firing
    if architecture != "topk":
        assert (np.asarray(gradient["b_gate" if architecture == "gated" else "b_enc"][...])[:5] <= 0).all()
        np.testing.assert_array_equal(gradient["W_dec"][...], 0)
    value, gradient = value_and_grad(params, jnp.zeros(D_SAE, bool))
    assert value == 0
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_gates_learn_by_a_decoder_that_they_do_not_move():
    """Were it moved, its rows would shrink without end: `r_mag` makes up for their length."""
    graph, params = nnx.split(make("gated"))

    def of_gates(params: Any) -> jax.Array:
        losses, _ = nnx.merge(graph, params).losses(inputs())
        return losses["gate_reconstruction"] + losses["sparsity"]

    gradient = jax.jit(jax.grad(of_gates))(params)
    for name in ("W_dec", "r_mag", "b_mag"):
        np.testing.assert_array_equal(gradient[name][...], 0)
    assert np.abs(gradient["W_enc"][...]).max() > 0 and np.abs(gradient["b_gate"][...]).max() > 0


# --- the straight-through gradients (Rajamanoharan et al. 2024, arXiv 2407.14435, equations 11 and 12)

H = np.array([[-0.5, 0.19, 0.21, 0.24, 0.26, 0.6], [0.3, 0.2, 0.1, 0.0, 0.28, 0.22]], "f4")
THRESHOLD = np.array([0.2, 0.2, 0.2, 0.2, 0.25, 0.2], "f4")
BANDWIDTH = 0.1
OF_OUTPUT = np.random.default_rng(0).normal(size=H.shape).astype("f4")


def kernel(h: np.ndarray) -> np.ndarray:
    """The rectangle: `K((h - threshold) / bandwidth)`."""
    u = (h - THRESHOLD) / BANDWIDTH
    return ((u > -0.5) & (u < 0.5)).astype("f8")


@pytest.mark.parametrize("function", [jump_relu, step])
def test_gradients_of_rows_that_are_spread_over_devices(function):
    """Each device has some rows and all thresholds: the gradient of these is the sum over the devices."""
    mesh = jax.make_mesh((jax.device_count(),), ("rows",))
    h, threshold = np.tile(H, (jax.device_count(), 1)), THRESHOLD

    def loss(h, threshold):
        return (function(h, threshold, BANDWIDTH) ** 2 * jnp.cos(h)).sum()

    def of_some(h, threshold):
        return jax.grad(loss, argnums=(0, 1))(h, threshold)

    spread = jax.shard_map(of_some, mesh=mesh, in_specs=(P("rows"), P()), out_specs=(P("rows"), P()))
    placed = [jax.device_put(value, NamedSharding(mesh, axes)) for value, axes in ((h, P("rows")), (threshold, P()))]
    for one, other in zip(spread(*placed), of_some(jnp.asarray(h), jnp.asarray(threshold)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_the_gradient_of_jump_relu():
    out, backward = jax.vjp(
        lambda h, threshold: jump_relu(h, threshold, BANDWIDTH), jnp.asarray(H), jnp.asarray(THRESHOLD)
    )
    of_h, of_threshold = backward(jnp.asarray(OF_OUTPUT))
    np.testing.assert_array_equal(out, np.where(H > THRESHOLD, H, 0))
    np.testing.assert_array_equal(of_h, OF_OUTPUT * (H > THRESHOLD))
    expected = -(THRESHOLD / BANDWIDTH) * (kernel(H) * OF_OUTPUT).sum(0)
    assert np.count_nonzero(expected) == 5
    np.testing.assert_allclose(of_threshold, expected, rtol=1e-5)


def test_the_gradient_of_the_step():
    out, backward = jax.vjp(lambda h, threshold: step(h, threshold, BANDWIDTH), jnp.asarray(H), jnp.asarray(THRESHOLD))
    of_h, of_threshold = backward(jnp.asarray(OF_OUTPUT))
    np.testing.assert_array_equal(out, H > THRESHOLD)
    np.testing.assert_array_equal(of_h, 0)
    np.testing.assert_allclose(of_threshold, -(kernel(H) * OF_OUTPUT).sum(0) / BANDWIDTH, rtol=1e-5)


def test_a_negative_threshold_lets_nothing_negative_through():
    h, threshold = jnp.array([[-0.3, 0.3]]), jnp.array([-0.5, -0.5])
    np.testing.assert_allclose(jump_relu(h, threshold, 0.1), [[0.0, 0.3]])
    assert jax.grad(lambda h: jump_relu(h, threshold, 0.1).sum())(h).tolist() == [[0.0, 1.0]]


def test_the_step_estimates_the_derivative_of_an_expectation():
    """Of the expected number of firings: minus the density of `h` at the threshold, 1 for a uniform one."""
    h = jnp.asarray(np.random.default_rng(0).uniform(0, 1, (200_000, 1)), jnp.float32)
    gradient = jax.grad(lambda threshold: step(h, threshold, 0.1).mean())(jnp.array([0.4]))
    np.testing.assert_allclose(gradient, [-1.0], rtol=0.03)  # 20,000 of them are within the kernel: 0.7% a deviation


# --- the loss to train by


@pytest.mark.parametrize(("architecture", "own"), CASES[:4])
def test_the_loss_is_the_weighted_sum(architecture: str, own: dict):
    sae, x = make(architecture, **own), inputs()
    graph, params = nnx.split(sae)
    weights = {"revival": 0.3, "neuron_embedding": jnp.float32(0.7), "reconstruction": 2.0}
    weights |= {} if architecture == "topk" else {"sparsity": 0.5}
    silence = jnp.arange(D_SAE, dtype=jnp.int32)
    loss = make_sae_loss(graph, weights, silent_after=10, embedding_fraction=0.25)
    value, (metrics, _) = jax.jit(loss)(params, x, silence)
    losses, latents = jax.jit(lambda x, silent: sae.losses(x, silent=silent, embedding_rows=10))(x, silence >= 10)
    assert metrics.keys() == losses.keys() | {"l0", "silent"}
    np.testing.assert_allclose(value, sum(weight * losses[name] for name, weight in weights.items()), rtol=1e-5)
    np.testing.assert_allclose(metrics["l0"], (np.asarray(latents) > 0).sum(1).mean(), rtol=1e-6)


def test_reconstruction_counts_once_and_what_has_no_weight_is_not_computed():
    sae, x = make("standard"), inputs()
    graph, params = nnx.split(sae)
    loss = make_sae_loss(graph, {"sparsity": 0.1, "revival": 0.0, "neuron_embedding": 0}, silent_after=10)
    value, (metrics, _) = loss(params, x, jnp.zeros(D_SAE, jnp.int32))
    assert metrics.keys() == {"reconstruction", "sparsity", "l0", "silent"}
    np.testing.assert_allclose(value, metrics["reconstruction"] + 0.1 * metrics["sparsity"], rtol=1e-6)


def test_silence_is_counted_in_inputs():
    sae = make("standard")
    sae.b_enc = nnx.Param(sae.b_enc[...].at[:4].set(-100.0))
    graph, params = nnx.split(sae)
    loss = jax.jit(make_sae_loss(graph, {}, silent_after=100))
    silence = jnp.zeros(D_SAE, jnp.int32)
    for batch, n in enumerate((40, 40, 40)):
        _, (metrics, silence) = loss(params, inputs(n, batch), silence)
        np.testing.assert_array_equal(silence[:4], 40 * (batch + 1))
        np.testing.assert_array_equal(silence[4:], 0)
        assert metrics["silent"] == (4 if batch == 2 else 0)


@pytest.mark.parametrize(("architecture", "name"), [("topk", "sparsity"), ("standard", "sparsty"), ("gated", "l0")])
def test_a_weight_of_no_loss_is_refused(architecture: str, name: str):
    graph, params = nnx.split(make(architecture, **({"k": K} if architecture == "topk" else {})))
    loss = make_sae_loss(graph, {name: 0.1}, silent_after=10)
    with pytest.raises(ValueError, match=f"an SAE of architecture {architecture} has no loss {name}"):
        loss(params, inputs(), jnp.zeros(D_SAE, jnp.int32))


# --- they learn


N_PLANTED, BATCH, N_STEPS = 24, 256, 1500


def planted(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """24 directions of 16 dimensions, and inputs that are sums of two of them, of lengths 0.5 to 1.5."""
    dictionary = rng.normal(size=(N_PLANTED, 16))
    dictionary /= np.linalg.norm(dictionary, axis=1, keepdims=True)
    chosen = rng.uniform(size=(64 * BATCH, N_PLANTED)).argsort(1)[:, :2]
    lengths = np.zeros(chosen.shape[:1] + (N_PLANTED,))
    np.put_along_axis(lengths, chosen, rng.uniform(0.5, 1.5, chosen.shape), 1)
    return dictionary, (lengths @ dictionary).astype("f4")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "own", "weights"),
    [
        ("standard", {}, {"sparsity": 0.03}),
        ("topk", {"k": 2}, {}),
        ("jumprelu", {"threshold": 0.1, "bandwidth": 0.2}, {"sparsity": 0.01}),
        ("gated", {}, {"sparsity": 0.06, "gate_reconstruction": 1.0}),
    ],
)
def test_a_planted_dictionary_is_found(architecture: str, own: dict, weights: dict):
    """Of the planted directions, 92 to 100% have a decoder row within 26 degrees; none has at the start."""
    dictionary, x = planted(np.random.default_rng(0))
    batches = jnp.asarray(x.reshape(64, BATCH, 16))
    graph, params = nnx.split(ARCHITECTURES[architecture](16, 32, rngs=nnx.Rngs(0), **own))
    loss = make_sae_loss(graph, weights | {"revival": 0.03}, silent_after=5000)
    optimizer = optax.adam(optax.cosine_decay_schedule(5e-3, N_STEPS))

    def found(params: Any) -> float:
        rows = np.asarray(nnx.merge(graph, params).W_dec[...])
        cosines = dictionary @ (rows / np.linalg.norm(rows, axis=1, keepdims=True)).T
        return (cosines.max(axis=1) > 0.9).mean()

    @jax.jit
    def trained(state: TrainState) -> tuple[TrainState, dict[str, jax.Array]]:
        one = lambda state, i: train_step(loss, optimizer, state, batches[i % 64])  # noqa: E731
        return jax.lax.scan(one, state, jnp.arange(N_STEPS))

    assert found(params) == 0
    state, metrics = trained(init_train_state(params, optimizer, jnp.zeros(32, jnp.int32)))
    assert found(state.params) > 0.85
    assert metrics["reconstruction"][-1] < 0.15 * x.var()
    assert 1.5 < metrics["l0"][-1] < 3.5


def test_thresholds_learn():
    """Of the JumpReLU's own sparsity loss: they rise where `h` is near them."""
    sae = JumpReLUSAE(D_IN, D_SAE, threshold=0.1, bandwidth=1.0, rngs=nnx.Rngs(0))
    graph, params = nnx.split(sae)
    gradient = jax.grad(lambda params: nnx.merge(graph, params).losses(inputs())[0]["sparsity"])(params)
    assert (np.asarray(gradient["threshold"][...]) < 0).all()
    np.testing.assert_array_equal(gradient["W_enc"][...], 0)
