"""The benchmark with known answers: closed forms, labels, counts, and what fixed rules are known to find."""

import json
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from scripts import refusal, run

import nejax
from benchmarks.truth import intervals
from benchmarks.truth.arms import by_token, views_of
from benchmarks.truth.chimeras import Parent, chimera_units, find_parents, owners
from benchmarks.truth.model_inputs import ModelInputs, read_model
from benchmarks.truth.noise import GaussianNoise, RealNoise
from benchmarks.truth.planted import FAMILIES, Family, chosen_by, plant, random_features, weights_of
from benchmarks.truth.rules import RULES, large_only
from benchmarks.truth.scoring import scores_of
from benchmarks.truth.units import N_EXAMPLES, Unit, nearest_neighbour_accuracy
from nejax.pipeline.corpus.windows import Sequences

benchmark = partial(run, "benchmark")
PLAIN = FAMILIES[0]


def unit_of(label: list[int], x: np.ndarray, w: np.ndarray | None = None, n_features: int = 2) -> Unit:
    """A unit made by hand."""
    w = np.ones(x.shape[1], np.float32) if w is None else w
    reference = np.random.default_rng(1).standard_normal((N_EXAMPLES, x.shape[1])).astype(np.float32)
    return Unit("planted", "by hand", False, n_features, 0.0, 0, x.astype(np.float32), w, np.array(label), reference)


@pytest.mark.parametrize(("k", "noise"), [(2, 1.0), (8, 1.0), (4, 4.0)])
def test_distances_of_planted_features(k: int, noise: float):
    """With unit features of which the weights are the sum, in many dimensions.

    Within `1 - (K + 2) / (K + 2 + K s2)`, between `1 - 2 / (K + 2 + K s2)`.
    """
    rng = np.random.default_rng(0)
    within, between = [], []
    for _ in range(80):  # of one neuron the means vary by 0.03
        features = random_features(rng, k, 768)
        label = np.repeat(np.arange(k), 64 // k)
        x = features[label] + GaussianNoise(768, noise, rng).draw(rng, len(label))
        distances = np.asarray(nejax.embedding_distances(x.astype(np.float32), weights_of(features).astype(np.float32)))
        same, upper = label[:, None] == label, np.triu(np.ones_like(distances, bool), 1)
        within.append(distances[same & upper].mean())
        between.append(distances[~same & upper].mean())
    whole = k + 2 + k * noise
    assert np.mean(within) == pytest.approx(1 - (k + 2) / whole, abs=0.01)
    assert np.mean(between) == pytest.approx(1 - 2 / whole, abs=0.01)


@pytest.mark.parametrize("shared", [0.0, 0.3])
def test_every_feature_excites_its_neuron_alike(shared: float):
    features = random_features(np.random.default_rng(3), 5, 768, shared)
    np.testing.assert_allclose(features @ weights_of(features), 1, rtol=1e-12)
    cosines = (features @ features.T)[np.triu_indices(5, 1)]
    assert cosines.mean() == pytest.approx(shared, abs=0.03)


@pytest.mark.parametrize("options", [{}, {"spectrum": 1.0}, {"loud": np.eye(16)[3] * 9}, {"is_heavy": True}], ids=str)
def test_noise_of_chosen_tokens_is_that_of_all(options: dict):
    """What is drawn given its product with the weights has this product, and the covariance it would have had."""
    rng = np.random.default_rng(0)
    noise, w, n = GaussianNoise(16, 2.0, rng, **options), rng.standard_normal(16), 60_000
    tokens = noise.tokens(rng, n, w)
    x = tokens.at(np.arange(n))
    np.testing.assert_allclose(x @ w, tokens.along, atol=1e-9)
    np.testing.assert_allclose(np.cov(x.T) @ w, noise.covariance_times(w), atol=0.15)
    free = noise.draw(rng, n)
    total = np.trace(np.cov(free.T))
    assert total == pytest.approx(2.0 + noise.loud.sum(), rel=0.03)
    assert np.trace(np.cov(x.T)) == pytest.approx(total, rel=0.1)


def test_real_noise_is_centred_and_scaled():
    inputs = 5 + np.random.default_rng(0).standard_normal((500, 8)) * np.arange(8)
    x = RealNoise(inputs, 4.0).tokens(np.random.default_rng(1), 500, np.ones(8)).at(np.arange(500))
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-12)
    assert np.mean(np.sum(x**2, axis=1)) == pytest.approx(4.0)


def test_examples_are_the_strongest_above_a_fraction():
    assert chosen_by(np.array([1.0, 0.39, 0.41, -3.0, 0.7])).tolist() == [0, 4, 2]
    assert len(chosen_by(np.linspace(1, 2, 500))) == N_EXAMPLES


def test_planted_neurons():
    unit = plant(PLAIN, 4, 64, 0.25, seed=1)
    assert unit.x.shape == (N_EXAMPLES, 64) and unit.reference.shape == (N_EXAMPLES, 64)
    activation = unit.x @ unit.w
    assert (np.diff(activation) <= 1e-5).all() and activation[-1] > 0.4 * activation[0]
    assert set(unit.label) == {0, 1, 2, 3} and unit.answer[1] == 4
    again = plant(PLAIN, 4, 64, 0.25, seed=1)
    assert np.array_equal(unit.x, again.x) and not np.array_equal(unit.x, plant(PLAIN, 4, 64, 0.25, seed=2).x)
    assert set(plant(PLAIN, 0, 64, 1.0, seed=1).label) == {-1}
    # rates: the rarest of two has a fiftieth of the other's
    sizes = np.bincount(plant(Family("", rarest=1 / 50), 2, 64, 0.25, seed=1).label, minlength=2)
    assert sizes[0] >= 58
    outliers = plant(Family("", outliers=0.25), 1, 64, 0.25, seed=1)
    assert (outliers.label[:48] == 0).all() and (outliers.label[48:] == -1).sum() > 8
    mixed = plant(Family("", mixed=0.5), 2, 64, 0.01, seed=1)
    cosine = mixed.x @ mixed.x.T / np.outer(*2 * [np.linalg.norm(mixed.x, axis=1)])
    both = mixed.label < 0
    assert 15 < both.sum() < 50
    for feature in (0, 1):  # halfway between the two
        assert cosine[np.ix_(both, mixed.label == feature)].mean() == pytest.approx(0.7, abs=0.06)


def test_rules_with_known_answers():
    """By the closed forms features are 0.56 and 0.80 apart, and 0.89 with noise that puts 0.73 between equals."""
    units = [plant(PLAIN, k, 768, noise, seed=1) for k, noise in ((2, 0.25), (4, 1.0), (4, 4.0), (1, 0.25))]
    views = views_of(units, "neuron embeddings")
    fixed, five = (RULES[name](views) for name in ("fixed 0.5", "k-means, k = 5"))
    assert [int(labels.max()) + 1 for labels in fixed[[0, 1, 3]]] == [2, 4, 1] and fixed[2].max() > 40
    assert (five.max(axis=1) == 4).all()
    scores = scores_of(units, fixed)
    assert [s.is_right for s in scores] == [True, True, False, True]
    assert [s.is_split for s in scores] == [False, False, True, False]
    assert scores[1].ari == 1 and np.isnan(scores[3].ari)
    np.testing.assert_allclose(views.unrelated, 1, atol=0.03)
    assert (views.calibrated < views.unrelated).all()
    shuffled = views_of(units, "shuffled dimensions")
    assert nearest_neighbour_accuracy(views.distances[1], units[1]) == 1
    assert nearest_neighbour_accuracy(shuffled.distances[1], units[1]) < 0.6


def test_counts_at_the_edge_of_support():
    x = np.eye(4)[np.repeat([0, 1, 2, 3], [10, 6, 4, 2])]
    unit = unit_of([*np.repeat([0, 1, 2], [10, 6, 4]), -1, -1], x)
    assert unit.answer == (1, 2, 3) and unit.is_supported.sum() == 16
    found = np.stack([np.pad(np.array(labels), (0, N_EXAMPLES - 22), constant_values=-1) for labels in (
        np.repeat([0, 1, 2, 3], [10, 6, 4, 2]), np.repeat([0, 1, 2, -1], [10, 6, 4, 2]), np.zeros(22), np.arange(22),
    )])  # fmt: skip
    scores = scores_of([unit] * 4, found.astype(int))
    assert [s.found for s in scores] == [4, 3, 1, 22]
    assert [s.is_right for s in scores] == [False, True, True, False]
    assert [s.is_split for s in scores] == [True, False, False, True]
    assert [s.ari for s in scores[:3]] == [1, 1, 0] and scores[1].unassigned == pytest.approx(2 / 22)
    assert [s.is_apart for s in scores] == [False, False, False, True]
    large = scores_of([unit] * 4, large_only(found.astype(int)))
    assert [s.found for s in large] == [2, 2, 1, 0]


def test_intervals():
    """Wilson's for 8 of 10 is 0.490 to 0.943; a median of equals has no width."""
    np.testing.assert_allclose(intervals.of_share(8, 10), (0.4902, 0.9433), atol=1e-4)
    np.testing.assert_allclose([intervals.of_share(0, 10)[0], intervals.of_share(10, 10)[1]], [0, 1], atol=1e-12)
    assert intervals.of_median(np.full(7, 0.5)) == (0.5, 0.5)
    low, high = intervals.of_median(np.linspace(0, 1, 101))
    assert 0.3 < low < 0.5 < high < 0.7


def test_owners_of_examples():
    """A parent's: at least half as active as its maximum, all others at most a quarter, and its token."""
    empty = Sequences(*(np.zeros((1, 1), np.int32) for _ in Sequences._fields))
    inputs = ModelInputs(
        *("by hand", (0,), np.zeros((1, 1, 1, 2), np.float16), np.eye(2)[None], np.zeros((1, 2))),
        *(jax.nn.relu, empty, np.ones((1, 1), bool), str),
    )
    family = Parent(0, 7, 1.0, 2.0), Parent(1, 9, 1.0, 4.0)
    x = np.array([[1.0, 0.0], [1.0, 1.1], [0.9, 0.0], [0.5, 4.0], [1.0, 0.0], [-9.0, 2.0]])
    assert owners(inputs, 0, family, x, np.array([7, 7, 7, 9, 9, 9])).tolist() == [0, -1, -1, 1, -1, 1]


@pytest.mark.slow
def test_a_chimera_of_two_neurons():
    """Of the bundled model: fires with either parent, half as much at least, at their tokens, and can be told apart."""
    inputs = read_model("gpt2-tiny", 256, 1)
    assert inputs.layers == (0,) and inputs.x.shape[2:] == (128, 256)
    parents = {parent.neuron: parent for parent in find_parents(inputs, 0)}
    assert parents and all(parent.purity >= 0.8 and parent.maximum > 0 for parent in parents.values())
    units = [unit for unit in chimera_units(inputs, 3) if unit.answer[1] == 2 and unit.n_features == 2]
    assert units
    for unit in units:
        family = [parents[int(name.split()[0].removeprefix("0."))] for name in unit.made_of]
        assert unit.token is not None and len({parent.token for parent in family}) == 2
        assert unit.token.tolist() == [family[label].token for label in unit.label]
        neurons = [parent.neuron for parent in family]
        alone = np.asarray(inputs.activate(unit.x @ inputs.w[0][:, neurons] + inputs.b[0][neurons]))
        share = alone / [parent.maximum for parent in family]
        assert (share[np.arange(len(share)), unit.label] >= 0.5).all() and (share.min(axis=1) <= 0.25).all()
        np.testing.assert_allclose(unit.w, sum(inputs.w[0][:, p.neuron] / p.maximum for p in family), rtol=1e-5)
        assert nearest_neighbour_accuracy(views_of([unit], "neuron embeddings").distances[0], unit) > 0.8


def test_by_token():
    unit = unit_of([0, 0, 1, 1], np.eye(4))._replace(token=np.array([5, 5, 3, 5]))
    assert by_token([unit])[0, :5].tolist() == [1, 1, 0, 1, -1]


@pytest.mark.slow
def test_the_benchmark(tmp_path: Path):
    done = benchmark("truth", "--quick", "--run=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {
        *("truth.json", "truth.txt", "truth_neurons.json", "truth_counts.png", "truth_noise.png", "truth_shares.png")
    }
    figures = json.loads((out / "truth.json").read_text())["figures"]
    some = [f for f in figures if "right" in f]
    assert {f["rule"] for f in some} == {*RULES, "token identity"}
    for f in some:
        for name in ("right", "split", "merged"):
            assert 0 <= f[f"{name}_from"] <= f[name] + 1e-9 and f[name] - 1e-9 <= f[f"{name}_to"] <= 1
        assert f["right"] + f["split"] + f["merged"] == pytest.approx(1)
    told = json.loads((out / "truth_neurons.json").read_text())
    neurons = told.pop("neurons")
    assert told == {"model": "gpt2-tiny", "sequences": 256, "repeats": 1, "quick": True}
    assert {neuron["source"] for neuron in neurons} == {"planted", "chimera"}
    pairs = [neuron for neuron in neurons if neuron["n_features"] == 2 and neuron["source"] == "chimera"]
    assert pairs and all(len(neuron["made_of"]) == 2 for neuron in pairs)
    seen = [neuron for neuron in pairs if neuron["features_counted"] == 2]
    assert seen and max(neuron["nearest_neighbour_accuracy"]["neuron embeddings"] for neuron in seen) > 0.9
    table = (out / "truth.txt").read_text()
    assert table.strip() in done.stdout and "Shuffled dimensions" in table


def test_a_source_that_is_not_there(tmp_path: Path):
    done = benchmark("truth", "--truth_sources=planted,invented", "--quick", cwd=tmp_path)
    assert "--truth_sources=invented: expected planted or chimera, or both" in refusal(done)


def test_without_scikit_learn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert "pip install -e '.[benchmark]'" in refusal(benchmark("truth", "--quick", cwd=tmp_path))
