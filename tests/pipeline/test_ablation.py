"""What is left of peaks without earlier tokens, against one plain pass of the model for each peak and token."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny_gpt2 import D_MLP, D_MODEL, N_LAYERS, N_SEQUENCES, SEQ_LEN

from nejax.models.reading import LayerView
from nejax.pipeline.passes import ablation as ablation_module
from nejax.pipeline.passes.ablation import Peaks, activations_without, mean_less_padding

WINDOW, PADDING = 7, 3


@pytest.fixture(scope="module")
def peaks(sequences) -> Peaks:
    """At any place of any sequence, the first text token and the last included; many share a place."""
    rng = np.random.default_rng(0)
    sequence = np.sort(np.concatenate([rng.integers(0, N_SEQUENCES, 40), np.full(30, 2)]))
    position = np.array([rng.integers(1, sequences.length[i]) for i in sequence])
    position[:2], position[-1] = 1, sequences.length[sequence[-1]] - 1
    return Peaks(rng.integers(0, N_LAYERS, 70), rng.integers(0, D_MLP, 70), sequence, position)


@pytest.fixture(scope="module")
def plain(model) -> Callable:
    """Of one sequence, all activations, [n_layers, seq, d_mlp]; something is added to a token's first input."""

    def at(model, tokens, place, shift):
        def edit(name, value, layer):
            return jnp.where(layer == 0, value.at[:, place].add(shift), value) if name == "resid_pre" else value

        return model(tokens[None], reader=lambda view: view.activation, editor=edit)[1][:, 0]

    compiled = nnx.jit(at)
    return lambda tokens, place=0, shift=0.0: np.asarray(
        compiled(model, tokens.astype(np.int32), place, np.full(D_MODEL, shift, np.float32))
    )


def each(peaks: Peaks):
    """Every peak and every token that can be ablated before it."""
    for i, (layer, neuron, sequence, position) in enumerate(zip(*peaks, strict=True)):
        for offset in range(min(WINDOW, position - 1) + 1):
            yield i, offset, layer, neuron, sequence, position, position - offset


def replaced(tokens: np.ndarray, place: int) -> np.ndarray:
    return np.where(np.arange(len(tokens)) == place, PADDING, tokens)


def run(model, sequences, peaks, ablation, **options) -> np.ndarray:
    settings = {"n_layers": N_LAYERS, "window": WINDOW, "padding": PADDING, "batch_size": 5}
    return activations_without(model, peaks, sequences.tokens, ablation=ablation, **settings, **options)[0]


def assert_same(found: np.ndarray, expected: dict[tuple[int, int], float], rtol: float = 1e-5) -> None:
    there = np.full(found.shape, np.nan)
    for place, value in expected.items():
        there[place] = value
    np.testing.assert_allclose(found, there, rtol=rtol, atol=2e-6)  # float32 sums of activations near 2


def test_padding_is_one_pass_for_each_peak_and_token(model, sequences, peaks, plain):
    expected = {
        (i, offset): plain(replaced(sequences.tokens[sequence], place))[layer, position, neuron]
        for i, offset, layer, neuron, sequence, position, place in each(peaks)
    }
    assert_same(run(model, sequences, peaks, "padding"), expected)


@pytest.mark.slow
def test_deletion_moves_what_follows_forward_and_its_own_token_is_padded(model, sequences, peaks, plain):
    def without(tokens: np.ndarray, place: int, position: int) -> np.ndarray:
        if place == position:
            return plain(replaced(tokens, place))[:, position]
        return plain(np.append(np.delete(tokens, place), 0))[:, position - 1]

    expected = {
        (i, offset): without(sequences.tokens[sequence], place, position)[layer, neuron]
        for i, offset, layer, neuron, sequence, position, place in each(peaks)
    }
    assert_same(run(model, sequences, peaks, "deletion"), expected)


@pytest.mark.slow
def test_mean_puts_the_mean_input_in_the_place(model, sequences, peaks, plain):
    real = np.arange(SEQ_LEN) < sequences.length[:, None]
    shift = mean_less_padding(model, sequences.tokens, real, PADDING)
    embedding = np.asarray(model.token_embedding.embedding[...], np.float64)
    mean = embedding[sequences.tokens[real]].mean(axis=0)
    np.testing.assert_allclose(shift, mean - embedding[PADDING], rtol=1e-5, atol=1e-7)
    expected = {
        (i, offset): plain(replaced(sequences.tokens[sequence], place), place, shift)[layer, position, neuron]
        for i, offset, layer, neuron, sequence, position, place in each(peaks)
    }
    assert_same(run(model, sequences, peaks, "mean", mean_shift=shift), expected)


@pytest.mark.slow
def test_gradient_is_the_slope_towards_padding(model, sequences, peaks, plain):
    """Central differences; half of the 1e-3 that a float32 slope is known to, over inputs that differ by about 1."""
    embedding = np.asarray(model.token_embedding.embedding[...])
    found, step = run(model, sequences, peaks, "gradient"), 1e-2
    for i, offset, layer, neuron, sequence, position, place in list(each(peaks))[::7]:
        tokens = sequences.tokens[sequence]
        towards = embedding[PADDING] - embedding[tokens[place]]
        up, here, down = (plain(tokens, place, t * towards)[layer, position, neuron] for t in (step, 0, -step))
        assert found[i, offset] == pytest.approx(here + (up - down) / (2 * step), abs=5e-4)
    assert np.array_equal(np.isnan(found), np.isnan(run(model, sequences, peaks, "padding")))


@pytest.mark.slow
@pytest.mark.parametrize("ablation", ["padding", "deletion"])
def test_how_branches_are_packed_does_not_matter(model, sequences, peaks, ablation, monkeypatch):
    whole = run(model, sequences, peaks, ablation)
    monkeypatch.setattr(ablation_module, "ROWS", 16)
    monkeypatch.setattr(ablation_module, "BLOCKS", 3)
    np.testing.assert_allclose(run(model, sequences, peaks, ablation), whole, rtol=1e-5, atol=2e-6)


def test_one_peak_where_nothing_is_before_it(model, sequences, plain):
    peak = Peaks(*(np.array([value]) for value in (2, 1, 4, 1)))
    found = run(model, sequences, peak, "padding")
    assert_same(found, {(0, 0): plain(replaced(sequences.tokens[4], 1))[2, 1, 1]})
    assert np.isnan(run(model, sequences, peak, "deletion")[0, 1:]).all()


def test_each_place_is_taken_away_once(model, sequences):
    """Two peaks at one place and one three tokens later: four places in common, no branch twice."""
    peaks = Peaks(np.array([0, 2, 1]), np.array([1, 2, 3]), np.array([0, 0, 0]), np.array([20, 20, 23]))
    settings = {"n_layers": N_LAYERS, "window": 4, "padding": PADDING}
    _, cost = activations_without(model, peaks, sequences.tokens, ablation="padding", **settings)
    assert cost.branches == 8  # 16 to 20, and 21 to 23
    assert cost.tokens == (5 + 4 + 3) + (5 + 4 + 3 + 2 + 1)  # 16 to 18 reach to 20, the others to 23


def test_the_readings_are_those_of_the_layers_views(model, sequences):
    """Of a branch that changes nothing: the activations of the sequence itself."""
    peaks = Peaks(np.array([1]), np.array([4]), np.array([0]), np.array([9]))
    tokens = sequences.tokens.copy()
    found, _ = activations_without(
        model, peaks, tokens, n_layers=N_LAYERS, window=0, ablation="padding", padding=int(tokens[0, 9])
    )

    def read(view: LayerView) -> jax.Array:
        return view.activation[0, 9, 4]

    expected = model(jnp.asarray(tokens[:1]), reader=read)[1][1]
    assert found[0, 0] == pytest.approx(float(expected), rel=1e-5)
