"""The importance stage of a whole tiny run: one plain pass for each example and token, resuming, bad tokens."""

import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from stage_stores import layers_of, store_of
from tiny_gpt2 import D_MLP
from world import a_run, tokenizer

from nejax.errors import UserError
from nejax.neuron.importance import token_importance
from nejax.pipeline.run.checkpoints import Checkpoints
from nejax.pipeline.run.directory import Store
from nejax.pipeline.run.settings import Settings
from nejax.pipeline.stages import importance as importance_module
from nejax.pipeline.stages.importance import IMPORTANCE, agreement_of, most_central, padding_token
from nejax.pipeline.stages.inputs import INPUTS
from nejax.pipeline.stages.run import Run
from nejax.pipeline.stages.tokens import TOKENS

WINDOW = 6


@pytest.fixture(scope="module")
def settings(plain_settings) -> Settings:
    return plain_settings.but(importance=True, importance_examples=2, importance_window=WINDOW)


@pytest.fixture(scope="module")
def run(settings, features_done, tmp_path_factory) -> Run:
    run = a_run(shutil.copytree(features_done, tmp_path_factory.mktemp("finished") / "run"), settings)
    store_of(run, IMPORTANCE)
    return run


@pytest.fixture(scope="module")
def store(run) -> Store:
    return store_of(run, IMPORTANCE)


def assert_identical(a: Store, b: Store) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert (a[name].dtype, a[name].tobytes()) == (b[name].dtype, b[name].tobytes()), name


@pytest.mark.slow
def test_the_importances_are_those_of_one_pass_for_each_example_and_token(run, store):
    """The worst difference of 1,000 importances is 4e-6: a part of float32's rounding of activations near 2."""
    model, chosen, padding = run.loaded.model, store_of(run, INPUTS), run.loaded.tokenizer.bos_token_id
    activations = nnx.jit(lambda model, tokens: model(tokens, reader=lambda view: view.activation)[1])
    n_layers, d_mlp, n_examples = chosen["sequence"].shape
    order = np.random.default_rng(0).permutation(len(store["example"]))[:40]
    for example, without in zip(store["example"][order], store["without"][order], strict=True):
        layer, neuron, rank = np.unravel_index(example, (n_layers, d_mlp, n_examples))
        sequence, position = (int(chosen[name][layer, neuron, rank]) for name in ("sequence", "position"))
        tokens = TOKENS.of(run).take(np.array([sequence])).tokens[0]
        offsets = np.arange(min(WINDOW, position - 1) + 1)
        rows = np.tile(tokens, (WINDOW + 2, 1)).astype(np.int32)
        rows[1 + offsets, position - offsets] = padding
        found = np.asarray(activations(model, jnp.asarray(rows)))[layer, :, position, neuron]
        of_one_by_one = np.asarray(token_importance(found[0], found[1 + offsets]))
        of_stage = np.asarray(token_importance(chosen["activation"][layer, neuron, rank], without))
        np.testing.assert_allclose(of_stage[: len(offsets)], of_one_by_one, atol=1e-5)
        assert np.isnan(without[len(offsets) :]).all()


@pytest.mark.slow
def test_the_examples_are_the_most_central_of_every_feature(run, store):
    chosen, expected = store_of(run, INPUTS), []
    for layer, found in enumerate(layers_of(run)):
        for neuron, feature in np.argwhere(found["central"] >= 0):
            own = np.flatnonzero(found["label"][neuron] == feature)
            own = sorted(own, key=lambda rank: -np.nan_to_num(found["cohesion"][neuron, rank]))[:2]
            assert own[0] == found["central"][neuron, feature]
            expected += [(layer * D_MLP + neuron) * chosen["sequence"].shape[2] + rank for rank in own]
    assert store["example"].tolist() == sorted(map(int, expected))


@pytest.mark.slow
def test_facts_say_what_it_took_and_how_the_ways_agree(run, store):
    facts = run.directory.manifest["stages"]["importance"]
    assert facts["examples"] == facts["compared"] == len(store["example"]) or facts["compared"] == 256
    assert facts["places"] <= facts["branches"] <= facts["tokens"]
    assert len(facts["agreement"]) == 6
    for pair in facts["agreement"].values():
        assert -1 <= pair["correlation"] <= 1
        assert 0 <= pair["same_token"] <= 1


@pytest.mark.slow
@pytest.mark.parametrize("ablation", ["deletion", "mean", "gradient"])
def test_the_other_ways_are_stored_too(ablation, store, settings, features_done, tmp_path):
    changed = settings.but(importance_by=ablation)
    found = store_of(a_run(shutil.copytree(features_done, tmp_path / "run"), changed), IMPORTANCE)
    assert np.array_equal(np.isnan(found["without"]), np.isnan(store["without"]))
    same = np.isclose(found["without"], store["without"], rtol=1e-4, equal_nan=True)
    assert not same.all()


@pytest.mark.slow
def test_killed_and_run_again_it_ends_with_the_same_bits(run, store, settings, features_done, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    monkeypatch.setattr(importance_module, "PEAKS", 20)
    again = a_run(shutil.copytree(features_done, tmp_path / "run"), settings, checkpoint_seconds=0.0)
    save, saved = Checkpoints.save, []

    def save_and_die(self: Checkpoints, n: int, store: Store) -> None:
        save(self, n, store)
        saved.append(n)
        if len(saved) in (1, 3):
            raise Killed

    monkeypatch.setattr(Checkpoints, "save", save_and_die)
    for _ in range(2):
        with pytest.raises(Killed):
            store_of(again, IMPORTANCE)
    assert_identical(store_of(again, IMPORTANCE), store)
    assert saved == sorted(set(saved))
    assert not (tmp_path / "run" / "importance.partial").exists()
    before, after = (r.directory.manifest["stages"]["importance"] for r in (run, again))
    assert {**before, "seconds": 0, "blocks": 0} == {**after, "seconds": 0, "blocks": 0}


@pytest.mark.slow
def test_killed_and_run_again_with_other_settings_it_starts_anew(store, settings, features_done, tmp_path, monkeypatch):
    """What is not done may be asked for in another way; half of the old answer is no part of the new one."""

    class Killed(BaseException):
        pass

    def save_and_die(self: Checkpoints, n: int, store: Store) -> None:
        save(self, n, store)
        raise Killed

    monkeypatch.setattr(importance_module, "PEAKS", 20)
    shutil.copytree(features_done, tmp_path / "run")
    save = Checkpoints.save
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Checkpoints, "save", save_and_die)
        narrow = settings.but(importance_window=WINDOW - 2)
        store_of(a_run(tmp_path / "run", narrow, checkpoint_seconds=0.0), IMPORTANCE)
    assert_identical(store_of(a_run(tmp_path / "run", settings), IMPORTANCE), store)


@pytest.mark.parametrize("n", [1, 3])
def test_most_central_takes_the_first_by_cohesion(n):
    rng = np.random.default_rng(n)
    label = rng.integers(-1, 3, (20, 9)).astype(np.int32)
    cohesion = np.where(label < 0, np.nan, rng.integers(0, 4, (20, 9)) / 4).astype(np.float32)
    expected = np.zeros(label.shape, bool)
    for row, column in np.ndindex(label.shape):
        if label[row, column] >= 0:
            rivals = np.flatnonzero(label[row] == label[row, column])
            ahead = [(-cohesion[row, i], i) < (-cohesion[row, column], column) for i in rivals]
            expected[row, column] = sum(ahead) < n
    np.testing.assert_array_equal(most_central(label, cohesion, n), expected)


def test_agreement_is_of_what_both_have():
    a = np.array([[0.1, 0.9, np.nan], [0.0, 0.0, 0.0], [0.5, 0.2, 0.1]])
    b = np.array([[0.2, 0.8, 1.0], [0.4, 0.1, 0.0], [0.1, 0.3, 0.2]])
    there = ~np.isnan(a)
    expected = np.corrcoef(a[there], b[there])[0, 1]
    assert agreement_of(a, b) == {"correlation": round(expected, 4), "same_token": 0.5}
    assert agreement_of(a[:0], b[:0]) == {"correlation": None, "same_token": None}


@pytest.mark.slow
def test_a_padding_token_that_the_vocabulary_lacks_is_refused(settings, run, tmp_path):
    wrong = a_run(tmp_path, settings.but(padding_token="zebra crossing"))
    with pytest.raises(
        UserError, match=r"^padding_token='zebra crossing': expected one of the \d+ tokens of .*; this would be"
    ):
        IMPORTANCE.of(wrong)
    assert not (tmp_path / "collect").exists()  # nothing was computed first


def test_another_padding_token_is_used(settings, tmp_path):
    bos, cat = tokenizer().bos_token_id, tokenizer().encode(" cat")[-1]
    for token, expected in ((None, bos), (" cat", cat)):
        run = a_run(tmp_path / str(expected), settings.but(padding_token=token))
        assert padding_token(run) == expected
