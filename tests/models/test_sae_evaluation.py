"""The report of an SAE, on inputs where wrong formulas differ: imperfect reconstructions, means that are not zero."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from nejax.errors import UserError
from nejax.models.sae.architectures import ARCHITECTURES, SAE, TopKSAE
from nejax.models.sae.evaluation import evaluate_sae

D, N = 16, 60


def inputs(n: int = 900) -> np.ndarray:
    rng = np.random.default_rng(1)
    return (rng.normal(size=(n, D)) * np.linspace(0.2, 3, D) + np.linspace(-4, 7, D)).astype(np.float32)


def random_sae(kind: str = "standard", **arguments) -> SAE:
    """Every parameter is something."""
    own = {"k": 7} if kind == "topk" else {}
    sae = ARCHITECTURES[kind](D, N, **own, **arguments, rngs=nnx.Rngs(0))
    graph, state = nnx.split(sae)
    keys = iter(jax.random.split(jax.random.key(3), 10))
    state = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(next(keys), p.shape), state)
    return nnx.merge(graph, state)


@pytest.mark.parametrize("kind", list(ARCHITECTURES))
@pytest.mark.parametrize("normalize", ["none", "layer_norm"])
def test_every_number_against_numpy(kind, normalize):
    x, sae = inputs(), random_sae(kind, normalize=normalize)
    report = evaluate_sae(sae, x, n_examples=20, batch_size=256)
    latents, error = np.asarray(sae.encode(jnp.asarray(x))), x.astype(np.float64) - np.asarray(sae(jnp.asarray(x)))
    assert report.n_inputs == len(x)
    assert report.l0 == pytest.approx((latents > 0).sum(1).mean(), rel=1e-6)
    assert report.squared_error == pytest.approx((error**2).mean(), rel=1e-5)
    variance = ((x - x.mean(0, dtype=np.float64)) ** 2).sum()
    assert report.unexplained == pytest.approx((error**2).sum() / variance, rel=1e-5)
    assert report.numbers()["explained"] == pytest.approx(1 - report.unexplained)
    assert report.dead == ((latents > 0).sum(0) == 0).sum()
    assert (report.latents.n_fired == (latents > 0).sum(0)).all()
    distance = np.asarray(report.latents.measures.mean_distance)
    assert report.mean_distance == pytest.approx(np.nanmean(distance), rel=1e-5)
    clusters = np.asarray(report.latents.measures.n_clusters)[report.latents.n_fired > 0]
    assert report.n_clusters == pytest.approx(clusters.mean(), rel=1e-6)


def test_the_mean_alone_explains_nothing_and_everything_explains_all():
    x = inputs()
    sae = SAE(D, 2 * D, apply_b_dec_to_input=False, rngs=nnx.Rngs(0))
    both = np.concatenate([np.eye(D), -np.eye(D)]).astype(np.float32)
    sae.W_enc, sae.W_dec = nnx.Param(both.T), nnx.Param(both)
    assert evaluate_sae(sae, x, n_examples=20).unexplained == pytest.approx(0, abs=1e-9)
    sae.W_dec, sae.b_dec = nnx.Param(0 * both), nnx.Param(x.mean(axis=0))
    assert evaluate_sae(sae, x, n_examples=20).unexplained == pytest.approx(1, rel=1e-5)


def test_the_embedding_reads_the_input_without_the_bias_subtracted():
    x, sae = inputs(), random_sae()
    report = evaluate_sae(sae, x, n_examples=20)
    j = int(np.argmax(report.latents.n_fired))
    e = x[report.latents.first[j]].astype(np.float64) * np.asarray(sae.W_enc[...])[:, j]
    u = e / np.linalg.norm(e, axis=1, keepdims=True)
    mean = 1 - (u @ u.T)[np.triu_indices(20, 1)].mean()
    assert report.latents.measures.mean_distance[j] == pytest.approx(mean, rel=1e-4)


def test_constant_inputs_have_no_variance_to_explain():
    report = evaluate_sae(TopKSAE(D, N, k=3, rngs=nnx.Rngs(0)), np.ones((5, D), np.float32))
    assert np.isnan(report.unexplained) and report.l0 <= 3


def test_dead_latents_are_counted():
    sae = random_sae()
    sae.b_enc = nnx.Param(sae.b_enc[...].at[:9].set(-1e6))
    report = evaluate_sae(sae, inputs(), n_examples=20)
    assert report.dead >= 9 and (report.latents.n_fired[:9] == 0).all()


@pytest.mark.parametrize(
    ("x", "options", "said"),
    [
        (np.ones((3, 4)), {}, rf"x has shape \(3, 4\); expected \[n_inputs, d_in\] with d_in = {D}"),
        (np.ones(D), {}, rf"x has shape \({D},\)"),
        (np.ones((0, D)), {}, rf"x has shape \(0, {D}\)"),
        (np.ones((3, D)) * 1j, {}, "x has dtype complex128; expected numbers"),
        (np.ones((3, D)), {"n_examples": 0}, "n_examples is 0; expected at least 1"),
        (np.ones((3, D)), {"batch_size": 0}, "batch_size is 0; expected at least 1"),
    ],
)
def test_what_cannot_be_evaluated_on_is_refused(x, options, said):
    with pytest.raises(UserError, match=said):
        evaluate_sae(random_sae(), x, **options)


def test_lists_of_integers_are_inputs():
    x = np.arange(3 * D).reshape(3, D)
    reports = [evaluate_sae(random_sae(), given, n_examples=3).numbers() for given in (x.tolist(), x.astype("f4"))]
    np.testing.assert_equal(*reports)
