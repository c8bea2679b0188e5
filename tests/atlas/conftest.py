"""A small finished run of a model with random weights, made once for all tests of the atlas."""

import random
from pathlib import Path

import jax.numpy as jnp
import pytest
from flax import nnx

from nejax.atlas.atlas import Atlas, open_atlas
from nejax.atlas.write import write_atlas
from nejax.models.gpt2 import GPT2, GPT2Config
from nejax.models.tokens import train_tokenizer
from nejax.models.weights import save_gpt2
from nejax.pipeline.stages import Run, Settings

DEAD_LAYER, DEAD_NEURON = 1, (0, 5)
"""A layer in which no neuron fires, and one dead neuron in a layer of living ones."""

_SENTENCES = [
    "The café on the corner was closed; naïve visitors waited for hours.",
    "She sent a party hat 🎉 and two rockets 🚀🚀 before lunch.",
    "def add(a, b):\n    return a + b\n",
    "Die Straße war nass, und die Häuser schliefen schon längst.",
    "東京は夜の七時です。",
    "Families 👩‍👩‍👧 came to the river, and the river was wide.",
    "for i in range(10):\n    print(i)\n",
    "Prices rose by 7% in May, and by 3.5% in June.",
]


def make_model(directory: Path) -> Path:
    """A GPT-2 of three layers with random weights, and a tokenizer of 300 tokens: many characters straddle tokens."""
    tokenizer = train_tokenizer(_SENTENCES, vocab_size=300, n_positions=32)
    config = GPT2Config(vocab_size=300, n_positions=32, d_model=32, n_layers=3, n_heads=2, d_mlp=64)
    model = GPT2(config, rngs=nnx.Rngs(params=0))
    bias = model.input_bias().at[DEAD_LAYER].set(-100).at[DEAD_NEURON].set(-100)  # gelu(-100) is 0
    model.blocks.mlp_in.bias[...] = jnp.asarray(bias)
    save_gpt2(model, directory, tokenizer)
    return directory


def make_corpus(directory: Path) -> Path:
    """Twelve documents of sentences in a random order."""
    directory.mkdir()
    for i in range(12):
        sentences = random.Random(i).choices(_SENTENCES, k=6)
        (directory / f"text-{i:02d}.txt").write_text(" ".join(sentences), encoding="utf-8")
    return directory


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Of the small run, with its model and corpus."""
    folder = tmp_path_factory.mktemp("sources")
    model, corpus = make_model(folder / "model"), make_corpus(folder / "corpus")
    return Settings(model=str(model), corpus=str(corpus), seq_len=32, keep=16, examples=12)


@pytest.fixture(scope="session")
def run(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The small run, with its atlas."""
    run = Run(tmp_path_factory.mktemp("runs") / "small", settings, quiet=True)
    write_atlas(run)
    return run


@pytest.fixture(scope="session")
def atlas(run: Run) -> Atlas:
    """The atlas of the small run."""
    return open_atlas(run.directory.path)
