"""Two runs that differ as planted: every difference is found, and explained only where two values are level."""

from typing import Any, NamedTuple

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from nejax.neuron.polysemanticity import Polysemanticity
from nejax.neuron.streaming.top_examples import TopExamples
from nejax.pipeline.compare.runs import MAY_JUMP, Layer, LayerComparison, compare_layer
from nejax.pipeline.corpus.windows import Sequences
from nejax.pipeline.passes.gather import WINDOW_AFTER, WINDOW_BEFORE
from nejax.pipeline.passes.select import Chosen, choose_examples
from nejax.pipeline.run.constants import CONTEXT
from nejax.pipeline.run.results import from_store, to_store
from nejax.pipeline.run.settings import Settings
from nejax.pipeline.stages.features import Features

N_NEURONS, N_SEQUENCES, SEQ_LEN, HEIGHT = 3, 20, 24, 0.3
SETTINGS = Settings.of(keep=12, examples=6, min_fraction=0.3, seq_len=SEQ_LEN, height=HEIGHT)
NEAR, FAR = 1e-6, 1e-3
"""Gaps between two activations, relative to the neuron's maximum, within and beyond the tolerance of 1e-5."""


UNREAD = dict.fromkeys((*Features._fields, *Polysemanticity._fields), np.zeros(0))
"""What a comparison does not look at."""


class World(NamedTuple):
    """All that goes on in a made-up layer: a run's stores follow from it."""

    activation: np.ndarray
    """[N_NEURONS, N_SEQUENCES] float64, at each sequence's peak."""
    position: np.ndarray
    """[N_NEURONS, N_SEQUENCES], of the peak."""
    around: np.ndarray
    """[N_NEURONS, N_SEQUENCES, SEQ_LEN] activation of all tokens."""
    embedding: np.ndarray
    """[N_NEURONS, N_SEQUENCES, 2], at the peak."""
    tokens: np.ndarray

    def copy(self) -> "World":
        return World(*(field.copy() for field in self))

    def set(self, neuron: int, sequence: int, activation: float) -> None:
        self.activation[neuron, sequence] = activation
        self.around[neuron, sequence, self.position[neuron, sequence]] = activation


@pytest.fixture
def world() -> World:
    """The peak of sequence i of any neuron is 1 - 0.05 i: 12 are kept, all above 0.3 x the maximum, 6 chosen."""
    rng = np.random.default_rng(0)
    activation = np.tile(1 - 0.05 * np.arange(N_SEQUENCES), (N_NEURONS, 1))
    position = rng.integers(CONTEXT, SEQ_LEN, (N_NEURONS, N_SEQUENCES))
    around = rng.uniform(-0.1, 0.04, (N_NEURONS, N_SEQUENCES, SEQ_LEN))
    np.put_along_axis(around, position[..., None], activation[..., None], axis=2)
    angle = rng.uniform(0, 2 * np.pi, (N_NEURONS, N_SEQUENCES))
    embedding = np.stack([np.cos(angle), np.sin(angle)], axis=2)
    tokens = np.arange(N_SEQUENCES * SEQ_LEN, dtype=np.int32).reshape(N_SEQUENCES, SEQ_LEN)
    return World(activation, position, around, embedding, tokens)


def run_of(world: World, settings: Settings = SETTINGS) -> Layer:
    """What a run stores of it."""
    order = np.argsort(-world.activation, axis=1, kind="stable")[:, : settings.examples.keep]
    columns = (np.take_along_axis(field, order, axis=1) for field in (world.activation, world.position))
    activation, position = columns
    kept = TopExamples(activation.astype(np.float32), order.astype(np.int32), position.astype(np.int32))
    chosen, _, _ = choose_examples(
        TopExamples(*(field[None] for field in kept)),
        [Sequences(world.tokens, *(np.zeros(len(world.tokens), np.int32) for _ in Sequences._fields[1:]))],
        selection=settings.examples.selection,
        n_examples=settings.examples.n,
        min_fraction=settings.examples.min_fraction,
        max_repeats=settings.examples.max_repeats,
    )
    chosen = Chosen(*(field[0] for field in chosen))
    padded = np.pad(world.around, ((0, 0), (0, 0), (WINDOW_BEFORE, WINDOW_AFTER)), constant_values=np.nan)
    rows = np.arange(N_NEURONS)[:, None, None]
    windows = padded[rows, chosen.sequence[..., None], chosen.position[..., None] + np.arange(41)].astype(np.float16)
    windows[chosen.sequence < 0] = np.nan
    split = [features_of(world.embedding[j], chosen.sequence[j]) for j in range(N_NEURONS)]
    stored = {name: np.array([neuron[name] for neuron in split]) for name in split[0]}
    return Layer(
        kept,
        n_fired=(world.around > 0).sum(axis=(1, 2)),
        count=np.full(N_NEURONS, float(N_SEQUENCES * SEQ_LEN)),
        mean=world.around.mean(axis=(1, 2)),
        m2=world.around.var(axis=(1, 2)) * N_SEQUENCES * SEQ_LEN,
        chosen=chosen,
        window=windows,
        features=from_store(Features, UNREAD | stored),
    )


def features_of(embedding: np.ndarray, sequence: np.ndarray) -> dict[str, Any]:
    """One neuron's features by SciPy, as the stage stores them."""
    n, m = len(sequence), int((sequence >= 0).sum())
    unit = embedding[sequence[:m]] / np.linalg.norm(embedding[sequence[:m]], axis=1, keepdims=True)
    pairs = squareform(1 - unit @ unit.T, checks=False)
    z = linkage(pairs, "average") if m > 1 else np.zeros((0, 4))
    label = fcluster(z, HEIGHT, "distance") - 1 if m > 1 else np.zeros(m, int)
    merges = np.full((n - 1, 4), np.inf)
    z[:, :2] += np.where(z[:, :2] >= m, n - m, 0)
    merges[: len(z)] = z
    same = squareform(label[:, None] == label, checks=False)
    return {
        "merges": merges,
        "n_merges": len(z),
        "height": HEIGHT,
        "label": np.pad(label, (0, n - m), constant_values=-1),
        "n_clusters": label.max(initial=-1) + 1,
        "max_distance": pairs.max() if m > 1 else np.nan,
        "mean_distance": pairs.mean() if m > 1 else np.nan,
        "intra_cluster_distance": pairs[same].mean() if same.any() else np.nan,
        "inter_cluster_distance": pairs[~same].mean() if (~same).any() else np.nan,
        "silhouette": 0.0,
    }


def compared(a: World | Layer, b: World | Layer, tokens: np.ndarray | None = None, **changes: Any) -> LayerComparison:
    settings = SETTINGS.but(**changes)
    tokens = a.tokens if isinstance(a, World) else tokens
    runs = (run_of(run, settings) if isinstance(run, World) else run for run in (a, b))
    assert tokens is not None
    return compare_layer(*runs, settings, tokens, tolerance=1e-5)


def unexplained(found: LayerComparison) -> list[int]:
    assert found.kept and found.chosen and found.features
    return [found.kept.unexplained, found.chosen.unexplained, found.features.unexplained]


def near_ties(found: LayerComparison) -> list[int]:
    assert found.kept and found.chosen and found.features
    return [found.kept.near_ties, found.chosen.near_ties, found.features.near_ties]


# --- nothing, and next to nothing


def test_a_run_is_the_same_as_itself(world):
    found = compared(world, world)
    assert set(found.values) == {0.0} and found.beyond == 0
    assert found.neurons == found.same_examples == found.same_features == N_NEURONS
    assert near_ties(found) == unexplained(found) == [0, 0, 0]
    assert (found.overlap.jaccard == 1).all() and (found.overlap.rand_index == 1).all()
    assert (found.overlap.n_features == 0).all() and (found.overlap.mean_distance == 0).all()


def test_rounding_changes_values_by_as_much_as_it_is(world):
    other = world.copy()
    other.activation[1] *= 1 + 4e-6
    found = compared(world, other)
    np.testing.assert_allclose(found.values.activation, 4e-6, rtol=0.1)  # of 1, in float32
    assert found.beyond == 0 and found.same_features == N_NEURONS
    assert near_ties(found) == unexplained(found) == [0, 0, 0]


@pytest.mark.parametrize(("name", "size"), [("activation", 2e-5), ("height", 3e-5), ("mean_distance", 2e-4)])
def test_a_value_further_off_than_the_tolerance_is_unexplained(name, size, world):
    a, b = run_of(world), run_of(world)
    if name == "activation":
        b.kept.activation[2, 5] += size
    else:
        to_store(b.features)[name][2] += size
    found = compared(a, b, world.tokens)
    np.testing.assert_allclose(getattr(found.values, name), size, rtol=1e-2)
    assert found.beyond == 1 and unexplained(found) == [0, 0, 0]


def test_a_number_in_one_run_and_none_in_the_other_are_infinitely_far_apart(world):
    a, b = run_of(world), run_of(world)
    to_store(b.features)["mean_distance"][0] = np.nan
    to_store(a.features)["silhouette"][:2] = to_store(b.features)["silhouette"][:2] = np.nan
    found = compared(a, b, world.tokens)
    assert found.values.mean_distance == np.inf and found.beyond == 1 and found.values.silhouette == 0


def test_values_that_may_jump_are_said_and_not_held_against_a_run(world):
    assert set(MAY_JUMP) <= set(compared(world, world).values._fields)
    a, b = run_of(world), run_of(world)
    to_store(b.features)["silhouette"][0] = 0.5
    found = compared(a, b, world.tokens)
    assert found.values.silhouette == 0.5 and found.beyond == 0


# --- examples: each plant is a near-tie with a small gap, and unexplained with a large one


def level(world: World, j: int, s: int, t: int, gap: float) -> World:
    """Another run, in which s and t have changed places: half a gap above and below their mean in either run."""
    other = world.copy()
    middle = (world.activation[j, s] + world.activation[j, t]) / 2
    world.set(j, s, middle + gap / 2)
    world.set(j, t, middle - gap / 2)
    other.set(j, s, middle - gap / 2)
    other.set(j, t, middle + gap / 2)
    return other


@pytest.mark.parametrize(
    ("s", "t", "kept", "chosen"),
    [
        (2, 3, 1, 1),  # two that are chosen
        (5, 6, 1, 2),  # the last chosen, and the next
        (8, 9, 1, 0),  # two that are kept only
    ],
)
def test_examples_that_change_places(s, t, kept, chosen, world):
    for gap, explained in ((NEAR, near_ties), (FAR, unexplained)):
        a = world.copy()
        b = level(a, 1, s, t, gap)
        found = compared(a, b)
        assert explained(found) == [kept, chosen, 0]
        assert sum(near_ties(found)) + sum(unexplained(found)) == kept + chosen
        assert found.kept and found.kept.neurons == 1
        assert found.same_examples == N_NEURONS - (chosen == 2)


def test_the_last_of_those_kept(world):
    """Each of two is in one run only. Its value in the other run is not stored; that of the weakest there is."""
    a = world.copy()
    b = level(a, 1, 11, 12, NEAR)
    assert near_ties(compared(a, b)) == [2, 0, 0] and unexplained(compared(a, b)) == [0, 0, 0]
    b.set(1, 11, -1)
    b.set(1, 12, a.activation[1, 11] - FAR)
    assert unexplained(compared(a, b)) == [2, 0, 0]


def test_an_example_at_the_fraction_of_the_maximum(world):
    for gap, explained in ((NEAR, near_ties), (FAR, unexplained)):
        a = world.copy()
        a.activation[0, 3:] = 0.1
        b = a.copy()
        a.set(0, 4, 0.3 + gap)
        b.set(0, 4, 0.3 - gap)
        assert explained(compared(a, b)) == [1, 1, 0]
        assert sum(near_ties(compared(a, b, selection="top"))) == 0, "no rule looks at the fraction"


def test_of_repeats_at_the_same_height_other_ones_are_chosen(world):
    """Three with the same text: two stand. Which ones, decides an order in which no other example takes part."""
    for gap, explained in ((NEAR, near_ties), (FAR, unexplained)):
        a = world.copy()
        a.position[0, [1, 3, 4]] = 12
        for s in (3, 4):
            a.tokens[s, 5:13] = a.tokens[1, 5:13]
        assert 4 not in run_of(a).chosen.sequence[0]
        b = level(a, 0, 3, 4, gap)
        assert explained(compared(a, b)) == [1, 2, 0]


def test_spread_over_the_ranks_one_more_example_moves_others(world):
    for gap, explained in ((NEAR, near_ties), (FAR, unexplained)):
        a = world.copy()
        a.activation[0, 11:] = -0.1
        b = a.copy()
        a.set(0, 11, gap)
        b.set(0, 11, -gap)
        found = compared(a, b, selection="quantiles")
        assert found.chosen and found.chosen.near_ties + found.chosen.unexplained > 2
        assert explained(found)[0] == 1 and explained(found)[1] == sum(found.chosen[1:])


@pytest.mark.parametrize("s", [2, 9], ids=["chosen", "kept only"])
def test_a_peak_at_another_place_of_its_sequence(s, world):
    """Level in both runs' windows; where the windows say otherwise, or the peaks differ, it is unexplained."""
    a = world.copy()
    a.position[0, s], top = 10, a.activation[0, s]
    a.around[0, s] = -0.1
    b = a.copy()
    b.position[0, s] = 15
    for one, other, peak in ((a, b, 10), (b, a, 15)):
        one.around[0, s, peak] = top
        other.around[0, s, peak] = top - NEAR
    moved = 2 if s == 2 else 0  # chosen: its old place is in one run only, and the new one in the other
    assert near_ties(compared(a, b)) == [1, moved, 0] and sum(unexplained(compared(a, b))) == 0
    lower = b.copy()
    lower.set(0, s, top - FAR)
    assert unexplained(compared(a, lower))[0] == 1
    a.around[0, s, 15] = top - 0.1
    assert unexplained(compared(a, b)) == ([1, 2, 0] if s == 2 else [0, 0, 0]), "a window is stored of the chosen only"


def test_an_example_that_is_lost_is_found_missing(world):
    """Sequence 2 is not in the other run; the next one takes the last place of the kept, another that of the chosen."""
    other = world.copy()
    other.activation[1, 2] = -1
    found = compared(world, other)
    assert unexplained(found) == [2, 2, 0] and near_ties(found) == [0, 0, 0]


def test_a_choice_that_does_not_follow_from_what_was_kept_is_unexplained(world):
    a, b = run_of(world), run_of(world)
    b.chosen.sequence[0, 3], b.chosen.position[0, 3] = 15, 3
    found = compared(a, b, world.tokens)
    assert unexplained(found) == [0, 2, 0] and near_ties(found) == [0, 0, 0]


def test_a_near_tie_does_not_excuse_what_else_has_changed(world):
    b = level(world, 0, 5, 6, NEAR)
    b.activation[0, 2] = -1
    found = compared(world, b)
    assert unexplained(found)[0] == 2 and near_ties(found)[0] == 1
    assert near_ties(found)[1] == 0 and unexplained(found)[1] > 0


def test_what_does_not_fire_is_not_looked_at(world):
    a = world.copy()
    a.activation[2] = -0.01 - 0.001 * np.arange(N_SEQUENCES)
    a.activation[0, 4:] = np.linspace(-0.01, -0.1, N_SEQUENCES - 4)
    b = a.copy()
    b.activation[2] *= 2
    b.activation[0, [7, 8]] = b.activation[0, [8, 7]]
    found = compared(a, b)
    assert near_ties(found) == unexplained(found) == [0, 0, 0] and found.beyond == 0
    assert found.neurons == 2 and np.isnan(found.overlap.jaccard[2]) and np.isnan(found.overlap.n_features[2])


# --- features


def at_angles(world: World, j: int, *degrees: float) -> World:
    """The chosen examples of a neuron at these angles from one another."""
    other = world.copy()
    angle = np.radians(degrees)
    other.embedding[j, : len(angle)] = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return other


# cos 45.5730 degrees = 0.7: a distance of 0.3, the cut
@pytest.mark.parametrize(("off", "explained"), [(1e-4, near_ties), (1e-1, unexplained)])
def test_a_merge_at_the_height_of_the_cut(off, explained, world):
    edge = np.degrees(np.arccos(1 - HEIGHT))
    a, b = (at_angles(world, 1, 0, edge + side, 180, 181, 182, 183) for side in (-off, off))
    found = compared(a, b)
    assert explained(found) == [0, 0, 1] and sum(near_ties(found)) + sum(unexplained(found)) == 1
    assert found.same_examples == N_NEURONS and found.same_features == N_NEURONS - 1
    assert found.overlap.rand_index[1] < 1 and found.overlap.n_features[1] == 1


@pytest.mark.parametrize(("off", "explained"), [((-1e-4, 1e-4), near_ties), ((-1, 3), unexplained)])
def test_two_pairs_equally_near_to_merge(off, explained, world):
    """B lies between A and C, as near to one as to the other; whichever it joins, the third stays out."""
    a, b = (at_angles(world, 1, -40, side, 40, 180, 181, 182) for side in off)
    runs = run_of(a), run_of(b)
    heights = [to_store(run.features)["merges"][1, :, 2] for run in runs]
    assert min(np.abs(np.concatenate(heights) - HEIGHT)) > 1e-2, "no merge is near the cut"
    found = compared(*runs, world.tokens)
    assert explained(found) == [0, 0, 1] and sum(near_ties(found)) + sum(unexplained(found)) == 1
    assert found.beyond == (explained is unexplained), "distances that are not the same are seen in the measures, too"


def test_a_near_tie_elsewhere_in_the_dendrogram_does_not_explain_a_change(world):
    """The three at 90 degrees merge in another order, and end as one; the two at 200 and 240 merge in one run only."""
    a, b = (at_angles(world, 1, 90, 91 + tie, 92, 200, far) for tie, far in ((-1e-4, 240), (1e-4, 250)))
    for run in (a, b):
        run.activation[1, 5:] = -1
    found = compared(a, b)
    assert unexplained(found) == [0, 0, 1]
    assert compared(a, at_angles(a, 1, 90, 91 + 1e-4, 92, 200, 240)).same_features == N_NEURONS


def test_a_label_that_the_dendrogram_does_not_explain(world):
    a, b = (run_of(at_angles(world, 1, 0, 5, 10, 180, 185, 190)) for _ in range(2))
    to_store(b.features)["label"][1] = [0, 0, 1, 1, 1, 1]
    assert unexplained(compared(a, b, world.tokens)) == [0, 0, 1]


def test_other_names_and_another_order_are_the_same_features(world):
    a = at_angles(world, 1, 0, 5, 10, 180, 185, 190)
    b = level(a, 1, 0, 4, NEAR)
    runs = run_of(a), run_of(b)
    to_store(runs[1].features)["label"][1] ^= 1
    assert not np.array_equal(*(run.chosen.sequence for run in runs))
    found = compared(*runs, world.tokens)
    assert found.same_features == N_NEURONS and near_ties(found)[2] == unexplained(found)[2] == 0


def test_without_a_cut_dendrogram_nothing_explains_another_division(world):
    edge = np.degrees(np.arccos(1 - HEIGHT))
    a, b = (at_angles(world, 1, 0, edge + side, 180, 181, 182, 183) for side in (-1e-4, 1e-4))
    assert unexplained(compared(a, b, clustering="components")) == [0, 0, 1]
