"""The model and the corpus of a small run: random weights, and text in which many characters straddle tokens."""

import random
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx

from nejax.models.families.gpt2 import GPT2, GPT2Config
from nejax.models.formats.tokens import train_tokenizer
from nejax.models.formats.weights import save_weights
from nejax.pipeline.corpus.windows import Sequences
from nejax.pipeline.stages.run import Run
from nejax.pipeline.stages.tokens import TOKENS

N_LAYERS, D_MLP = 3, 64
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
    config = GPT2Config(vocab_size=300, n_positions=32, d_model=32, n_layers=N_LAYERS, n_heads=2, d_mlp=D_MLP)
    model = GPT2(config, rngs=nnx.Rngs(params=0))
    bias = model.input_bias().at[DEAD_LAYER].set(-100).at[DEAD_NEURON].set(-100)  # gelu(-100) is 0
    model.blocks.mlp_in.bias[...] = jnp.asarray(bias)
    save_weights(model, directory, tokenizer)
    return directory


def make_corpus(directory: Path) -> Path:
    """Twelve documents of sentences in a random order."""
    directory.mkdir()
    for i in range(12):
        sentences = random.Random(i).choices(_SENTENCES, k=6)
        (directory / f"text-{i:02d}.txt").write_text(" ".join(sentences), encoding="utf-8")
    return directory


def all_sequences(run: Run) -> Sequences:
    """Of a finished run."""
    shards = TOKENS.of(run)
    return shards.take(np.arange(shards.n_sequences))
