"""A tiny random GPT-2, random sequences, and everything that goes on in the one while it reads the others."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from nejax.models.families.gpt2 import GPT2, GPT2Config
from nejax.models.reading import LayerView
from nejax.pipeline.corpus.windows import Sequences
from nejax.pipeline.passes.peaks import PeakRule

N_LAYERS, D_MODEL, D_MLP, VOCAB, SEQ_LEN, N_SEQUENCES = 3, 16, 24, 30, 48, 37
DEAD = ((1, 3), (2, 0))
"""(layer, neuron) pairs that never fire."""
SPECIAL = np.array([0, 5], np.int32)
RULE = PeakRule.of(SPECIAL, 1)
"""BOS, with which every sequence begins, and a token that comes in the middle of some."""


def random_model(vocab_size: int = VOCAB, n_positions: int = SEQ_LEN, dead: Sequence[tuple[int, int]] = DEAD) -> GPT2:
    """A random model with weights large enough that neurons differ, and some neurons that never fire."""
    config = GPT2Config(vocab_size, n_positions, D_MODEL, N_LAYERS, n_heads=2, d_mlp=D_MLP)
    graph, shapes = nnx.split(nnx.eval_shape(lambda: GPT2(config, rngs=nnx.Rngs(0))))
    rng = np.random.default_rng(0)
    model = nnx.merge(graph, jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.4, leaf.shape), leaf.dtype), shapes))
    model.blocks.mlp_in.bias[...] = model.input_bias().at[tuple(zip(*dead, strict=True))].set(-50)
    return model


def random_sequences() -> Sequences:
    """Random tokens, from 3 to all of a row real; two rows share their first tokens, and so their activations."""
    rng = np.random.default_rng(1)
    length = rng.integers(3, SEQ_LEN + 1, N_SEQUENCES).astype(np.int32)
    length[:3] = SEQ_LEN, 3, SEQ_LEN
    tokens = rng.integers(1, VOCAB, (N_SEQUENCES, SEQ_LEN)).astype(np.int32)
    tokens[2, :20] = tokens[0, :20]
    tokens[np.arange(SEQ_LEN) >= length[:, None]] = 0
    tokens[:, 0] = 0
    rows = np.arange(N_SEQUENCES, dtype=np.int32)
    return Sequences(tokens, length, rows, np.zeros_like(rows))


class Seen(NamedTuple):
    """Everything that happens at the MLPs in all sequences, each value [n_layers, n_sequences, seq_len, ...]."""

    mlp_input: np.ndarray
    pre_activation: np.ndarray
    activation: np.ndarray


def see_all(model: GPT2, sequences: Sequences) -> Seen:
    """What `collect` and `revisit` never hold: the whole of it, from one pass."""

    def read(view: LayerView) -> Seen:
        return Seen(view.mlp_input, view.pre_activation, view.activation)

    return Seen(*map(np.asarray, nnx.jit(lambda model, tokens: model(tokens, reader=read)[1])(model, sequences.tokens)))
