"""Histograms of activations against `numpy.histogram` of activations read plainly, and of known ones."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny_gpt2 import D_MLP, DEAD, N_LAYERS, N_SEQUENCES, RULE, SEQ_LEN

from nejax.models.reading import LayerView
from nejax.pipeline.corpus.windows import Sequences
from nejax.pipeline.passes import histogram as histogram_module
from nejax.pipeline.passes.histogram import N_BINS, Histograms, activation_histograms, sample_sequences

SAMPLE = np.array([0, 1, 4, 5, 11, 12, 13, 20, 36])


def rows(sequences: Sequences, sample: np.ndarray = SAMPLE) -> Sequences:
    """Those of the sample."""
    return Sequences(*(field[sample] for field in sequences))


@pytest.fixture(scope="module")
def can_peak(sequences) -> np.ndarray:
    return RULE.allowed_in(sequences)


@pytest.fixture(scope="module")
def highest(seen, can_peak) -> np.ndarray:
    """Over the corpus, [n_layers, d_mlp]."""
    return np.where(can_peak[..., None], seen.activation, -np.inf).max(axis=(1, 2))


@pytest.fixture(scope="module")
def found(model, sequences, can_peak, highest) -> Histograms:
    return activation_histograms(model, rows(sequences), can_peak[SAMPLE], highest, batch_size=4)


def test_histograms_are_those_of_the_activations_read_plainly(found, seen, can_peak, highest):
    assert found.counts.dtype == np.uint32 and found.counts.shape == (N_LAYERS, D_MLP, N_BINS)
    assert found.lowest.dtype == np.float32 and found.n_tokens == can_peak[SAMPLE].sum()
    assert (found.counts.sum(axis=-1) == found.n_tokens).all()
    activation = seen.activation[:, SAMPLE][:, can_peak[SAMPLE]]
    np.testing.assert_allclose(found.lowest, activation.min(axis=1), rtol=1e-5, atol=1e-6)
    n_exact = 0
    for place in np.ndindex(N_LAYERS, D_MLP):
        values = activation[place[0], :, place[1]].astype("f8")
        ends = float(found.lowest[place]), float(highest[place])
        inner = np.linspace(*ends, N_BINS + 1)[1:-1]
        reached = found.counts[place][::-1].cumsum()[::-1][1:]
        # The activations come from other passes, by up to 1e-6 different: only near an edge may that matter.
        most, least = ((values[:, None] >= inner + shift).sum(axis=0) for shift in (-2e-6, 2e-6))
        assert (least <= reached).all() and (reached <= most).all()
        if np.array_equal(least, most):
            assert np.array_equal(found.counts[place], np.histogram(values.clip(*ends), N_BINS, ends)[0])
            n_exact += 1
    assert n_exact > 50, "of 72 neurons, two of them dead"


@pytest.mark.slow
def test_the_batch_size_does_not_matter_and_each_pass_is_compiled_once(
    model, sequences, can_peak, highest, found, traces
):
    told = []
    again = activation_histograms(model, rows(sequences), can_peak[SAMPLE], highest, batch_size=7, progress=told.append)
    assert traces == [(7, SEQ_LEN)] * 2
    assert len(told) == 4 and sum(told) == 2 * sequences.length[SAMPLE].sum()
    np.testing.assert_allclose(again.lowest, found.lowest, rtol=1e-5, atol=1e-6)
    # Where a value is within rounding of an edge, it may change sides.
    assert (again.counts != found.counts).sum() <= 4 and again.n_tokens == found.n_tokens


def test_a_dead_neuron_has_all_tokens_in_the_last_bin(found):
    for place in DEAD:
        assert found.lowest[place] == 0
        assert found.counts[place].tolist() == [0] * (N_BINS - 1) + [found.n_tokens]


# --- activations that are exactly known


class Table(nnx.Module):
    """A model whose activations are a token's row of a table, layer by layer."""

    def __init__(self, table: np.ndarray):
        self.table = nnx.Param(jnp.asarray(table))

    def input_weights(self) -> jnp.ndarray:
        return jnp.zeros((self.table.shape[0], 2, self.table.shape[2]))

    def __call__(self, tokens, *, reader):
        rows = [jnp.take(layer, tokens, axis=0) for layer in self.table[...]]
        views = [LayerView(jnp.int32(i), *[row] * 7) for i, row in enumerate(rows)]
        return None, jnp.stack([reader(view) for view in views])


@pytest.fixture(scope="module")
def known() -> tuple[np.ndarray, Sequences, np.ndarray]:
    """Whole numbers from -4 to 36 for [2 layers, 50 tokens, 6 neurons], sequences, and which positions count."""
    rng = np.random.default_rng(0)
    table = rng.integers(-4, 37, (2, 50, 6)).astype("f4")
    table[:, 1:3] = np.array([-4, 36])[:, None]  # both ends: edges are whole numbers
    table[1, :, 5] = 7
    tokens = rng.integers(1, 50, (9, 20)).astype("i4")
    tokens[:, 4:6] = 1, 2
    rows = np.arange(9, dtype="i4")
    return table, Sequences(tokens, np.full(9, 20, "i4"), rows, rows), rng.random((9, 20)) < 0.8


@pytest.mark.parametrize("batch_size", [1, 4, 16])
def test_tokens_on_edges_are_in_the_upper_bin_and_at_the_end_in_the_last(batch_size, known):
    table, sequences, can_peak = known
    can_peak = can_peak.copy()
    can_peak[:, 4:6] = True
    highest = table.max(axis=1)
    found = activation_histograms(Table(table), sequences, can_peak, highest, batch_size=batch_size)
    for layer, neuron in np.ndindex(2, 6):
        values = table[layer, sequences.tokens[can_peak], neuron]
        if (layer, neuron) == (1, 5):
            expected = [0] * 39 + [can_peak.sum()]
        else:
            expected = np.histogram(values, N_BINS, (-4, 36))[0]
            assert expected[-1] >= (values == 36).sum() > 5 and (expected > 0).sum() > 15
        assert found.counts[layer, neuron].tolist() == list(expected)
        assert found.lowest[layer, neuron] == values.min()


def test_the_lowest_activation_is_that_of_the_sample_and_the_highest_that_of_the_corpus(known):
    table, sequences, can_peak = known
    sample = np.array([3, 7])
    highest = np.full((2, 6), 100, "f4")
    found = activation_histograms(Table(table), rows(sequences, sample), can_peak[sample], highest, batch_size=4)
    values = table[:, sequences.tokens[sample][can_peak[sample]]]
    np.testing.assert_array_equal(found.lowest, values.min(axis=1))
    for layer, neuron in np.ndindex(2, 6):
        low, counts = found.lowest[layer, neuron], found.counts[layer, neuron]
        assert counts.tolist() == np.histogram(values[layer, :, neuron], N_BINS, (low, 100))[0].tolist()
        assert counts[-1] == 0


def test_what_exceeds_the_highest_by_rounding_is_in_the_last_bin(known):
    table, sequences, can_peak = known
    highest = np.nextafter(table.max(axis=1), -np.inf)
    found = activation_histograms(Table(table), sequences, can_peak, highest, batch_size=4)
    assert (found.counts.sum(axis=-1) == can_peak.sum()).all()
    top = (table[..., sequences.tokens[can_peak], :] == table.max(axis=1, keepdims=True)).sum(axis=1)
    assert (found.counts[..., -1] >= top).all() and (found.lowest <= highest).all()


# --- the sample


def test_a_sample_is_drawn_without_replacement_by_its_seed(can_peak, monkeypatch):
    assert sample_sequences(can_peak.sum(axis=1), can_peak.shape[1], 0).tolist() == list(range(N_SEQUENCES)), (
        "all there are"
    )
    monkeypatch.setattr(histogram_module, "MOST_TOKENS", 10 * SEQ_LEN + SEQ_LEN - 1)
    first = sample_sequences(can_peak.sum(axis=1), can_peak.shape[1], 0)
    assert len(first) == 10 and sorted(set(first.tolist())) == first.tolist()
    assert np.array_equal(first, sample_sequences(can_peak.sum(axis=1), can_peak.shape[1], 0))
    assert not np.array_equal(first, sample_sequences(can_peak.sum(axis=1), can_peak.shape[1], 1))
    drawn = np.bincount(
        np.concatenate([sample_sequences(can_peak.sum(axis=1), can_peak.shape[1], seed) for seed in range(400)])
    )
    # Binomial with 400 draws of probability 10 / 37: mean 108, standard deviation 9.
    assert len(drawn) == N_SEQUENCES and drawn.min() > 60 and drawn.max() < 156


def test_sequences_in_which_nothing_counts_are_not_drawn():
    can_peak = np.zeros((5, 10_000), bool)  # longer than the sample: one is drawn all the same
    can_peak[3, 17] = True
    assert [sample_sequences(can_peak.sum(axis=1), can_peak.shape[1], seed).tolist() for seed in range(3)] == [[3]] * 3
