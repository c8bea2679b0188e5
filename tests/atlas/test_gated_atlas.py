"""The atlas of a model with gated neurons: both sides of a neuron are of one activation, the other way round."""

from pathlib import Path

import numpy as np
import pytest
from flax import nnx
from small_run import make_corpus

from nejax.atlas.atlas import Atlas, open_atlas
from nejax.atlas.build import atlas_of
from nejax.atlas.summary import summarize
from nejax.models.families.llama import Llama, LlamaConfig
from nejax.models.formats.tokens import train_tokenizer
from nejax.models.formats.weights import save_weights
from nejax.pipeline.stages.run import Run, Settings

pytestmark = pytest.mark.slow

N_LAYERS, D_MLP, SEQ_LEN = 2, 20, 16
CONFIG = LlamaConfig(300, SEQ_LEN, 16, N_LAYERS, 4, 2, 4, D_MLP, tied_head=True)


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    """Of a tiny model with random weights."""
    folder = tmp_path_factory.mktemp("gated")
    corpus = make_corpus(folder / "corpus")
    texts = [file.read_text(encoding="utf-8") for file in sorted(Path(corpus).iterdir())]
    tokenizer = train_tokenizer(texts, vocab_size=300, n_positions=SEQ_LEN)
    save_weights(Llama(CONFIG, rngs=nnx.Rngs(params=0)), folder / "model", tokenizer)
    settings = Settings.of(model=str(folder / "model"), corpus=str(corpus), seq_len=SEQ_LEN, keep=8, examples=6)
    run = Run(folder / "run", settings, quiet=True, batch_size=4)  # as in `test_gated_run.py`
    atlas_of(run)
    return open_atlas(run.directory.path)


def test_both_sides_are_of_one_activation(gated):
    assert (gated.sides, gated.d_mlp, gated.n_neurons) == (2, 2 * D_MLP, 2 * D_MLP * N_LAYERS)
    for place in np.ndindex(N_LAYERS, D_MLP):
        one, other = gated.neuron(*place), gated.neuron(*place, "negative")
        assert (one.number, other.number) == (place[1], place[1])
        # Sums of the same numbers with other signs: float32 rounds them alike.
        for name, sign in (("mean", -1), ("variance", 1), ("skewness", -1), ("kurtosis", 1)):
            assert getattr(other, name) == pytest.approx(sign * getattr(one, name), rel=1e-5, abs=1e-7), name
        assert one.max_activation > 0 > -other.max_activation
        assert one.firing_rate + other.firing_rate == pytest.approx(1, abs=1e-3)  # but for activations of exactly 0
        # What is lowest in the sample, here all tokens, is the other side's highest.
        assert one.lowest_activation == pytest.approx(-other.max_activation, rel=1e-5)
        assert other.lowest_activation == pytest.approx(-one.max_activation, rel=1e-5)


def test_examples_of_both_sides_are_positive_and_different_tokens(gated):
    for place in np.ndindex(N_LAYERS, D_MLP):
        one, other = gated.neuron(*place), gated.neuron(*place).other_side
        peaks = [{(example.sequence, example.position) for example in side.examples} for side in (one, other)]
        assert peaks[0] and peaks[1] and not peaks[0] & peaks[1]
        for example in (*one.examples, *other.examples):
            assert example.activation > 0
            assert example.activations[example.peak] == pytest.approx(example.activation, rel=2**-11 + 1e-5)


def test_the_summary_names_gated_neurons(gated):
    summary = summarize(gated)
    assert "2 layers of 20 gated neurons, each with a positive and a negative side" in summary
    assert "  neurons   40, counted as 80 sides, none of them dead" in summary
