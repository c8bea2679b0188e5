"""The second pass against a gather from all inputs and activations at once."""

import numpy as np
import pytest
from tiny_gpt2 import D_MLP, D_MODEL, DEAD, N_LAYERS, N_SEQUENCES, SEQ_LEN, SPECIAL

from nejax.pipeline.corpus.windows import Sequences
from nejax.pipeline.passes import gather as revisit_module
from nejax.pipeline.passes.gather import Revisited, random_positions, revisit
from nejax.pipeline.passes.select import Chosen

N_EXAMPLES = 5


def visit(model, sequences: Sequences, chosen: Chosen, reference: np.ndarray, **options) -> Revisited:
    """With each sequence asked for once, in ascending order."""
    asked = []

    def take(numbers: np.ndarray) -> Sequences:
        asked.extend(numbers.tolist())
        return Sequences(*(field[numbers] for field in sequences))

    found = revisit(model, take, chosen, reference, seq_len=SEQ_LEN, **options)
    assert asked == sorted(set(asked))
    return found


def draw(can_peak: np.ndarray, n: int, seed: int) -> np.ndarray:
    return random_positions(can_peak.sum(axis=1), lambda numbers: can_peak[numbers], n, seed)


@pytest.fixture(scope="module")
def chosen(seen, sequences) -> Chosen:
    """For each neuron up to five real places, strongest first, many of them shared; some neurons have none."""
    rng = np.random.default_rng(0)
    shape = N_LAYERS, D_MLP, N_EXAMPLES
    sequence, position, activation = np.full(shape, -1, "i4"), np.zeros(shape, "i4"), np.full(shape, np.nan, "f4")
    for layer, neuron in np.ndindex(N_LAYERS, D_MLP):
        rows = rng.choice(N_SEQUENCES - 6, rng.integers(0, N_EXAMPLES + 1), replace=False)  # the last 6 hold none
        columns = np.array([rng.integers(min(4, sequences.length[row])) for row in rows], int)
        columns = np.where(rng.random(len(rows)) < 0.5, columns, sequences.length[rows] - 1)
        values = seen.activation[layer, rows, columns, neuron]
        order = np.argsort(-values)
        for field, found in zip((sequence, position, activation), (rows, columns, values), strict=True):
            field[layer, neuron, : len(rows)] = found[order]
    sequence[tuple(zip(*DEAD, strict=True))] = -1
    return Chosen(sequence, np.where(sequence < 0, 0, position), np.where(sequence < 0, np.nan, activation))


@pytest.fixture(scope="module")
def can_peak(sequences) -> np.ndarray:
    position = np.arange(SEQ_LEN)
    return (position > 0) & (position < sequences.length[:, None]) & ~np.isin(sequences.tokens, SPECIAL)


@pytest.fixture(scope="module")
def reference(can_peak) -> np.ndarray:
    return draw(can_peak, 12, seed=1)


@pytest.fixture(scope="module")
def revisited(model, sequences, chosen, reference) -> Revisited:
    """In batches of 8: several, the last smaller."""
    return visit(model, sequences, chosen, reference, batch_size=8)


def each_example(chosen: Chosen):
    """Index `(layer, neuron, rank)`, sequence and position of every example there is."""
    for index in zip(*np.nonzero(chosen.sequence >= 0), strict=True):
        yield tuple(map(int, index)), int(chosen.sequence[index]), int(chosen.position[index])


def assert_inputs_and_windows(found: Revisited, chosen: Chosen, reference, seen, sequences) -> None:
    before, after = revisit_module.WINDOW_BEFORE, revisit_module.WINDOW_AFTER
    assert found.input_of.dtype == np.int32 and found.input_of.shape == chosen.sequence.shape
    assert found.window.dtype == np.float16 and found.window.shape == (*chosen.sequence.shape, before + 1 + after)
    n_equal = n_values = 0
    for (layer, neuron, rank), sequence, position in each_example(chosen):
        x = found.inputs[layer][found.input_of[layer, neuron, rank]]
        np.testing.assert_allclose(x, seen.mlp_input[layer, sequence, position], rtol=1e-5, atol=1e-6)
        window = found.window[layer, neuron, rank]
        for offset in range(-before, after + 1):
            at, value = position + offset, window[before + offset]
            if not 0 <= at < sequences.length[sequence]:
                assert np.isnan(value)
                continue
            wanted = np.float16(seen.activation[layer, sequence, at, neuron])
            # Both round to float16: a last bit of float32 may tip the last bit of float16, and no more.
            assert abs(np.float32(value) - np.float32(wanted)) <= np.spacing(np.abs(wanted))
            n_equal, n_values = n_equal + (value == wanted), n_values + 1
    assert n_equal > 0.999 * n_values > 600
    empty = chosen.sequence < 0
    assert (found.input_of[empty] == -1).all() and np.isnan(found.window[empty]).all()
    for layer in range(N_LAYERS):
        np.testing.assert_allclose(
            found.reference[layer], seen.mlp_input[layer, reference[:, 0], reference[:, 1]], rtol=1e-5, atol=1e-6
        )


def test_inputs_and_windows_are_those_of_the_full_pass(revisited, chosen, reference, seen, sequences):
    assert_inputs_and_windows(revisited, chosen, reference, seen, sequences)


def test_a_short_window_inside_the_sequence(model, sequences, chosen, reference, seen, monkeypatch):
    """And with another batch size, larger than the corpus."""
    monkeypatch.setattr(revisit_module, "WINDOW_BEFORE", 2)
    monkeypatch.setattr(revisit_module, "WINDOW_AFTER", 3)
    found = visit(model, sequences, chosen, reference, batch_size=64)
    assert_inputs_and_windows(found, chosen, reference, seen, sequences)


def test_distinct_inputs_are_distinct_in_order_and_all_needed(revisited, chosen, reference):
    for layer in range(N_LAYERS):
        there = chosen.sequence[layer] >= 0
        places = {*zip(chosen.sequence[layer][there].tolist(), chosen.position[layer][there].tolist(), strict=True)}
        places = sorted(places | {*map(tuple, reference.tolist())})
        assert revisited.inputs[layer].shape == (len(places), D_MODEL)
        assert revisited.inputs[layer].dtype == np.float32
        assert len(places) < there.sum() + len(reference), "this test wants places that are shared"
        for neuron, rank in zip(*np.nonzero(there), strict=True):
            place = int(chosen.sequence[layer, neuron, rank]), int(chosen.position[layer, neuron, rank])
            assert revisited.input_of[layer, neuron, rank] == places.index(place)


def test_the_window_is_centred_on_the_chosen_activation(revisited, chosen):
    there = chosen.sequence >= 0
    centre = revisited.window[there][:, revisit_module.WINDOW_BEFORE].astype(np.float32)
    wanted = chosen.activation[there].astype(np.float16)
    assert (np.abs(centre - wanted) <= np.spacing(np.abs(wanted))).all()


def test_the_embedding_and_the_bias_make_the_pre_activation_and_that_the_activation(revisited, chosen, seen, model):
    w_in, b_in = (np.asarray(value, np.float64) for value in (model.input_weights(), model.input_bias()))
    for (layer, neuron, rank), sequence, position in each_example(chosen):
        x = revisited.inputs[layer][revisited.input_of[layer, neuron, rank]].astype(np.float64)
        z = (x * w_in[layer, :, neuron]).sum() + b_in[layer, neuron]
        np.testing.assert_allclose(z, seen.pre_activation[layer, sequence, position, neuron], rtol=1e-5, atol=1e-5)
        gelu = 0.5 * z * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))
        np.testing.assert_allclose(gelu, chosen.activation[layer, neuron, rank], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("batch_size", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_the_batch_size_does_not_matter_and_only_needed_sequences_are_run(
    batch_size, revisited, model, sequences, chosen, reference, traces
):
    told = []
    found = visit(model, sequences, chosen, reference, batch_size=batch_size, progress=told.append)
    assert np.array_equal(found.input_of, revisited.input_of)
    for a, b in zip(found.inputs, revisited.inputs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    a, b = found.window.astype("f4"), revisited.window.astype("f4")
    assert np.array_equal(np.isnan(a), np.isnan(b))
    there = ~np.isnan(b)
    assert (np.abs(a - b)[there] <= np.spacing(np.abs(revisited.window[there]))).all()

    needed = np.union1d(chosen.sequence[chosen.sequence >= 0], reference[:, 0])
    assert sum(told) == sequences.length[needed].sum() < sequences.length.sum()
    assert len(told) == -(-len(needed) // batch_size)
    assert traces == [(batch_size, SEQ_LEN)], "one compilation for all batches"


def test_a_layer_of_dead_neurons_has_the_reference_inputs_alone(model, sequences, chosen, reference, seen):
    dead = chosen.sequence.copy()
    dead[1] = -1
    found = visit(model, sequences, chosen._replace(sequence=dead), reference, batch_size=8)
    assert len(found.inputs[1]) == len(reference) and (found.input_of[1] == -1).all()
    np.testing.assert_array_equal(found.inputs[1], found.reference[1])


# --- random positions


def test_random_positions_are_places_for_a_peak_distinct_and_sorted(can_peak):
    drawn = draw(can_peak, 64, seed=0)
    assert drawn.shape == (64, 2) and drawn.dtype == np.int32
    assert can_peak[tuple(drawn.T)].all()
    places = [tuple(place) for place in drawn.tolist()]
    assert places == sorted(set(places))


def test_random_positions_are_drawn_from_all_places_in_order(can_peak):
    """By the same draw from one flat list of them, which a large corpus has no room for."""
    for seed in range(5):
        places = np.random.default_rng(seed).choice(np.flatnonzero(can_peak), size=64, replace=False)
        assert np.array_equal(draw(can_peak, 64, seed), np.stack(np.divmod(np.sort(places), SEQ_LEN), axis=1))


def test_random_positions_depend_on_the_seed_alone(can_peak):
    first = draw(can_peak, 30, seed=3)
    assert np.array_equal(first, draw(can_peak, 30, seed=3))
    assert not np.array_equal(first, draw(can_peak, 30, seed=4))


def test_every_place_is_as_likely():
    can_peak = np.zeros((4, 6), bool)
    can_peak[[0, 1, 1, 2, 3], [5, 0, 3, 2, 5]] = True
    counts = np.zeros(can_peak.shape)
    for seed in range(500):
        drawn = draw(can_peak, 2, seed)
        counts[tuple(drawn.T)] += 1
    # Binomial with 500 draws of probability 2/5: standard deviation 11.
    assert (counts[can_peak] > 150).all() and (counts[can_peak] < 250).all() and not counts[~can_peak].any()


@pytest.mark.parametrize("n", [3, 5, 100])
def test_with_fewer_places_than_asked_for_all_are_taken(n):
    can_peak = np.zeros((3, 4), bool)
    can_peak[[0, 2, 2], [1, 0, 3]] = True
    assert draw(can_peak, n, seed=0).tolist() == [[0, 1], [2, 0], [2, 3]]
    assert draw(np.zeros((3, 4), bool), n, seed=0).shape == (0, 2)
