"""Whole tiny runs: made once, read again, interrupted, and refused."""

import functools
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stage_stores import layers_of, store_of
from tiny_gpt2 import D_MLP, N_LAYERS
from world import DEAD, EXAMPLES, KEEP, N_SEQUENCES, SEQ_LEN, a_run

from nejax.errors import UserError
from nejax.models.formats.weights import load_weights, save_weights
from nejax.pipeline.passes.histogram import N_BINS
from nejax.pipeline.run.constants import N_REFERENCE
from nejax.pipeline.run.directory import DamagedStore, RunDirectory, Store, unpack_text
from nejax.pipeline.run.settings import Settings
from nejax.pipeline.stages.collect import COLLECT
from nejax.pipeline.stages.features import FEATURES
from nejax.pipeline.stages.inputs import INPUTS
from nejax.pipeline.stages.run import Run
from nejax.pipeline.stages.similar import SIMILAR
from nejax.pipeline.stages.tokens import TOKENS

STORES = [
    "tokens-0000",
    "collect",
    *(f"inputs-{layer:02d}" for layer in range(N_LAYERS)),
    "inputs",
    *(f"features-{layer:02d}" for layer in range(N_LAYERS)),
    "similar",
]


def everything(run: Run) -> dict[str, Store]:
    """Run what is not done; all stores."""
    features = layers_of(run)
    stores = {
        "tokens-0000": run.directory.load("tokens-0000"),
        "collect": store_of(run, COLLECT),
        "inputs": store_of(run, INPUTS),
    }
    for layer, store in enumerate(features):
        stores[f"inputs-{layer:02d}"] = run.directory.load(f"inputs-{layer:02d}")
        stores[f"features-{layer:02d}"] = store
    if run.settings.similar.n:
        stores["similar"] = store_of(run, SIMILAR)
    return stores


def facts(run: Run) -> dict[str, Any]:
    """What the manifest says of every stage, the digests of the stores among it, but not the time it took."""
    manifest = json.loads((run.directory.path / "manifest.json").read_text())
    return {
        stage: {name: value for name, value in facts.items() if name != "seconds"}
        for stage, facts in manifest["stages"].items()
    }


def assert_identical(a: dict[str, Store], b: dict[str, Store]) -> None:
    assert a.keys() == b.keys() == set(STORES)
    for stage in a:
        assert a[stage].keys() == b[stage].keys()
        for name in a[stage]:
            x, y = np.asarray(a[stage][name]), np.asarray(b[stage][name])
            assert (x.dtype, x.shape, x.tobytes()) == (y.dtype, y.shape, y.tobytes()), f"{stage} {name}"


@pytest.fixture(scope="module")
def settings(plain_settings) -> Settings:
    return plain_settings


@pytest.fixture(scope="module")
def finished(settings, features_done, tmp_path_factory) -> Run:
    run = a_run(shutil.copytree(features_done, tmp_path_factory.mktemp("finished") / "run"), settings)
    everything(run)
    return run


@pytest.fixture(scope="module")
def stores(finished) -> dict[str, Store]:
    return everything(finished)


# --- a whole run


def test_every_store_has_its_arrays(finished, stores):
    assert set(facts(finished)) == {*STORES, "tokens"}
    assert stores["tokens-0000"]["tokens"].shape == (N_SEQUENCES, SEQ_LEN)
    names = unpack_text(stores["tokens-0000"]["documents"])
    assert len(names) == stores["tokens-0000"]["document"].max() + 1 and all(name.endswith(".txt") for name in names)
    assert stores["collect"]["activation"].shape == (N_LAYERS, D_MLP, KEEP)
    assert stores["collect"]["n_fired"].shape == stores["collect"]["m4"].shape == (N_LAYERS, D_MLP)
    assert stores["inputs"]["sequence"].shape == (N_LAYERS, D_MLP, EXAMPLES)
    assert stores["inputs"]["window"].shape == (N_LAYERS, D_MLP, EXAMPLES, 41)
    assert stores["inputs"]["reference"].shape[:2] == (N_LAYERS, N_REFERENCE)
    assert stores["inputs"]["histogram"].shape == (N_LAYERS, D_MLP, N_BINS)
    assert (stores["inputs"]["histogram"].sum(axis=2) == facts(finished)["inputs"]["sampled_tokens"]).all()
    for layer in range(N_LAYERS):
        features = stores[f"features-{layer:02d}"]
        assert features["merges"].shape == (D_MLP, EXAMPLES - 1, 4)
        assert features["label"].shape == features["central"].shape == (D_MLP, EXAMPLES)
        assert features["coordinates"].shape == (D_MLP, EXAMPLES, 2) and features["coordinates"].dtype == np.float16
        n_features = int(features["n_clusters"].sum())
        assert features["directions"].shape[0] == len(features["min_similarity"]) == n_features
        assert features["directions"].dtype == np.float16
        assert stores["inputs"]["input_of"][layer].max() < len(stores[f"inputs-{layer:02d}"]["inputs"])


def test_what_stands_in_one_store_fits_what_stands_in_the_others(stores):
    """Each example is one of the best, its feature has a centre, and its neuron's weights give its activation."""
    best, chosen = stores["collect"], stores["inputs"]
    for layer, neuron in np.ndindex(N_LAYERS, D_MLP):
        places = {*zip(best["sequence"][layer, neuron], best["position"][layer, neuron], strict=True)}
        n = int((chosen["sequence"][layer, neuron] >= 0).sum())
        mine = [*zip(chosen["sequence"][layer, neuron, :n], chosen["position"][layer, neuron, :n], strict=True)]
        assert places.issuperset(mine) and len(set(mine)) == n
        features = stores[f"features-{layer:02d}"]
        assert features["n_examples"][neuron] == n
        label, k = features["label"][neuron], features["n_clusters"][neuron]
        assert sorted(set(label[:n].tolist())) == list(range(k)) and (label[n:] == -1).all()
        assert [label[centre] for centre in features["central"][neuron, :k]] == list(range(k))


def test_the_manifest_says_what_was_asked_and_what_was_found(finished, settings, stores):
    manifest = json.loads((finished.directory.path / "manifest.json").read_text())
    assert manifest["settings"] == settings.by_name()
    assert manifest["model"] == {"name": settings.model.name, "fingerprint": finished.loaded.fingerprint, "sides": 1}
    assert {"jax", "numpy", "python"} <= manifest["versions"].keys()
    assert all(manifest["stages"][stage]["seconds"] >= 0 for stage in STORES if not stage.startswith("inputs-"))
    said, tokens = facts(finished), stores["tokens-0000"]
    assert said["tokens"]["sequences"] == N_SEQUENCES
    assert said["tokens"]["tokens"] == (tokens["length"] - 1).sum()
    assert sum(said["tokens"]["skipped"].values()) == 2
    digest = hashlib.blake2b(tokens["tokens"].tobytes(), digest_size=16).hexdigest()
    assert said["tokens"]["fingerprint"] == digest
    n = sum(
        token not in finished.peak_rule.special
        for row, length in zip(tokens["tokens"], tokens["length"], strict=True)
        for token in row[1:length]
    )
    assert said["collect"]["peakable_tokens"] == n and (stores["collect"]["count"] == n).all()
    there = stores["inputs"]["sequence"] >= 0
    assert said["inputs"]["examples"] == there.sum()
    assert said["inputs"]["dead_neurons"] == (~there.any(axis=2)).sum() >= len(DEAD)
    n_inputs = [len(stores[f"inputs-{layer:02d}"]["inputs"]) for layer in range(N_LAYERS)]
    assert [said[f"inputs-{layer:02d}"]["distinct_inputs"] for layer in range(N_LAYERS)] == n_inputs
    assert stores["inputs"]["n_distinct"].tolist() == n_inputs
    for layer in range(N_LAYERS):
        features = stores[f"features-{layer:02d}"]
        assert said[f"features-{layer:02d}"]["features"] == features["n_clusters"].sum()
        alive = there[layer].any(axis=1)
        median = round(float(np.median(features["height"][alive])), 6) if alive.any() else None
        assert said[f"features-{layer:02d}"]["median_height"] == median


def test_dead_neurons_have_nothing(stores):
    for layer, neuron in DEAD:
        features = stores[f"features-{layer:02d}"]
        assert stores["collect"]["n_fired"][layer, neuron] == features["n_clusters"][neuron] == 0
        assert (stores["inputs"]["sequence"][layer, neuron] == -1).all() and (features["label"][neuron] == -1).all()
        assert np.isnan(features["mean_distance"][neuron])


# --- run again, resumed


def test_a_finished_run_is_read_without_its_model_or_its_corpus(finished, settings, stores, monkeypatch):
    for name in (
        "run.load_model",
        "run.open_corpus",
        "run.cut_documents",
        "collect.collect",
        "inputs.choose_examples",
        "inputs.revisit",
        "inputs.activation_histograms",
        "features.LayerClusterer",
        "similar.similar_features",
    ):
        refuse = functools.partial(pytest.fail, f"{name} was called")
        monkeypatch.setattr(f"nejax.pipeline.stages.{name}", lambda *_, refuse=refuse, **__: refuse())
    before = facts(finished)
    again = a_run(finished.directory.path, settings)
    assert_identical(everything(again), stores)
    assert facts(again) == before


class Killed(BaseException):
    pass


def killing(stage: str, mark: Callable[..., None], marked: bool = True) -> Callable[..., None]:
    """Marks stages as done, and ends with one, before or after it is marked."""

    def kill(self: RunDirectory, name: str, facts: Any) -> None:
        if name != stage or marked:
            mark(self, name, facts)
        if name == stage:
            raise Killed

    return kill


@pytest.mark.slow
def test_killed_again_and_again_a_run_ends_with_the_same_bits(settings, finished, tmp_path, monkeypatch):
    """Killed with a store written and not yet marked, or just marked; the last finds everything half done."""
    mark = RunDirectory.mark
    for stage, marked in [
        ("tokens-0000", False),
        ("tokens-0000", True),
        ("tokens", False),
        ("tokens", True),
        ("collect", False),
        ("inputs-01", True),
        ("inputs", False),
        ("features-00", True),
        ("features-01", False),
        ("similar", False),
    ]:
        with monkeypatch.context() as patch:
            patch.setattr(RunDirectory, "mark", killing(stage, mark, marked))
            with pytest.raises(Killed):
                everything(a_run(tmp_path / "run", settings))
    last = a_run(tmp_path / "run", settings)
    assert "similar" not in facts(last) and "features-01" in facts(last)
    everything(last)
    assert facts(last) == facts(finished), "with the digests of all stores"


@pytest.mark.slow
def test_stages_run_one_by_one_give_the_same_bits(settings, finished, tmp_path, monkeypatch):
    for stage in (TOKENS, COLLECT, INPUTS):
        stage.of(a_run(tmp_path / "run", settings))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(RunDirectory, "mark", killing("features-00", RunDirectory.mark))
        FEATURES.of(a_run(tmp_path / "run", settings))
    last = a_run(tmp_path / "run", settings)
    assert "features-00" in facts(last) and "features-01" not in facts(last)
    everything(last)
    assert facts(last) == facts(finished)


@pytest.mark.slow
def test_the_batch_size_changes_neither_examples_nor_features(settings, stores, batches_of_7, tmp_path):
    other = everything(a_run(shutil.copytree(batches_of_7, tmp_path / "run"), settings, batch_size=7))
    for name in ("sequence", "position", "input_of"):
        assert np.array_equal(other["inputs"][name], stores["inputs"][name]), name
    for layer in range(N_LAYERS):
        a, b = other[f"features-{layer:02d}"], stores[f"features-{layer:02d}"]
        for name in ("label", "central", "n_clusters"):
            assert np.array_equal(a[name], b[name]), name
        for name in ("height", "mean_distance", "max_distance", "cohesion"):
            np.testing.assert_allclose(a[name], b[name], rtol=1e-5, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(other["collect"]["activation"], stores["collect"]["activation"], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_folded_weights_change_the_inputs_and_not_the_examples(settings, stores, tmp_path):
    folded = everything(a_run(tmp_path / "run", settings.but(input_weights="folded")))
    same = folded["inputs"]["sequence"] == stores["inputs"]["sequence"]
    assert same.mean() > 0.99, "but for near-ties"
    np.testing.assert_allclose(folded["collect"]["activation"], stores["collect"]["activation"], rtol=1e-5, atol=1e-6)
    for layer in range(N_LAYERS):
        mean = folded[f"inputs-{layer:02d}"]["inputs"].mean(axis=1)
        np.testing.assert_allclose(mean, 0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "tolerance"), [("bfloat16", 2e-2), ("float16", 3e-3)])
def test_half_precision(precision, tolerance, settings, stores, bfloat16, tmp_path):
    if precision == "bfloat16":
        shutil.copytree(bfloat16, tmp_path / "run")
    half = everything(a_run(tmp_path / "run", settings.but(precision=precision)))
    a, b = half["collect"]["activation"], stores["collect"]["activation"]
    alive = b[..., 0] > 0
    # bfloat16 has 8 bits, float16 11: of maxima up to 2.1 the worst is off by 9e-3 and 1.8e-3.
    np.testing.assert_allclose(a[alive][:, 0], b[alive][:, 0], rtol=0, atol=tolerance)


# --- what is refused


def test_other_settings_are_refused_with_both_values(finished, settings):
    with pytest.raises(UserError) as error:
        a_run(finished.directory.path, settings.but(seed=1, height=0.5))
    assert "height is null there and 0.5 now; seed is 0 there and 1 now" in str(error.value)


def test_a_sequence_longer_than_the_models_positions_is_refused_and_binds_to_nothing(settings, tmp_path):
    """The directory holds no work yet: the mended command may use it."""
    run = a_run(tmp_path / "run", settings.but(seq_len=33))
    with pytest.raises(UserError, match=r"^seq_len=33: expected at most 32, as many positions as .* has"):
        TOKENS.of(run)
    assert facts(run) == {}
    assert TOKENS.of(a_run(tmp_path / "run", settings)).n_sequences == N_SEQUENCES


def test_another_model_under_the_same_name_is_refused_with_both_fingerprints(settings, tmp_path):
    model = shutil.copytree(settings.model.name, tmp_path / "model")
    mine = settings.but(model=str(model))
    first = a_run(tmp_path / "run", mine)
    TOKENS.of(first)
    changed = load_weights(model)
    changed.blocks.mlp_in.bias[...] = changed.input_bias() + 1
    save_weights(changed, model, first.loaded.tokenizer)
    second = a_run(tmp_path / "run", mine)
    with pytest.raises(UserError, match="was made with another model") as error:
        store_of(second, COLLECT)
    assert first.loaded.fingerprint in str(error.value) and "\n" not in str(error.value)
    assert set(facts(second)) == {"tokens-0000", "tokens"}


def test_a_model_in_which_nothing_fires_is_refused(settings, finished, tmp_path):
    model = load_weights(Path(settings.model.name))
    model.blocks.mlp_in.bias[...] = model.input_bias() * 0 - 100
    save_weights(model, tmp_path / "dead", finished.loaded.tokenizer)
    run = a_run(tmp_path / "run", settings.but(model=str(tmp_path / "dead")))
    with pytest.raises(UserError, match="no neuron fires anywhere"):
        store_of(run, INPUTS)
    assert set(facts(run)) == {"tokens-0000", "tokens", "collect"}, "what was computed is kept"


def test_a_damaged_store_is_one_line(finished, settings, tmp_path):
    path = shutil.copytree(finished.directory.path, tmp_path / "run")
    for file in (path / "collect").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    read_only = a_run(path, settings, is_finished=True)
    with pytest.raises(UserError, match=r".*/collect is damaged \(.*run the same command again") as error:
        COLLECT.of(read_only)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("damaged", "asked"),
    [
        ("tokens-0000", INPUTS),
        ("collect", COLLECT),
        ("inputs-01", FEATURES),
        ("inputs", FEATURES),
        ("features-00", SIMILAR),
    ],
)
def test_a_damaged_store_is_rebuilt(damaged, asked, finished, settings, stores, tmp_path, capsys):
    """Whoever asks for it, or for what is made of it; said once, and nothing else changes."""
    path = shutil.copytree(finished.directory.path, tmp_path / "run")
    manifest = json.loads((path / "manifest.json").read_text())
    undone = {asked.name, *(name for name in manifest["stages"] if name.startswith(f"{asked.name}-"))} - {damaged}
    manifest["stages"] = {name: of for name, of in manifest["stages"].items() if name not in undone or asked is COLLECT}
    (path / "manifest.json").write_text(json.dumps(manifest))
    for file in filter(Path.is_file, (path / damaged).rglob("*")):
        file.write_bytes(b"")
    run = a_run(path, settings)
    asked.of(run)
    said = [line for line in capsys.readouterr().err.splitlines() if "is damaged" in line]
    assert len(said) == 1 and f"{damaged} is damaged" in said[0] and said[0].endswith("rebuilding it.")
    assert_identical(everything(run), stores)
    assert {name: of["digest"] for name, of in facts(run).items() if "digest" in of} == {
        name: of["digest"] for name, of in facts(finished).items() if "digest" in of
    }


def test_a_store_that_is_damaged_again_is_refused(finished, settings, tmp_path, monkeypatch):
    """As on a broken disk: it is not tried for ever."""
    run = a_run(shutil.copytree(finished.directory.path, tmp_path / "run"), settings)
    monkeypatch.setattr("nejax.pipeline.run.directory.read_store", lambda *_: (_ for _ in ()).throw(ValueError("no")))
    with pytest.raises(DamagedStore, match="is damaged"):
        for _ in range(3):
            SIMILAR.of(run)
