"""A small byte-level tokenizer, like GPT-2's but trained on the spot; a tiny random GPT-2, and what goes on in it."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from nejax.models.gpt2 import GPT2, GPT2Config
from nejax.models.reading import LayerView
from nejax.pipeline.corpus import Sequences

_TEXT = "the cat sat on the mat and the dog sat on the log, then both of them went back to the house.\n\n\n  \n\n" * 20


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """Decodes every text exactly; BOS and EOS are `<|endoftext|>`; claims a context of only 8 tokens.

    It has tokens for runs of line breaks, so that a text cut inside one has other tokens.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([_TEXT], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|endoftext|>", eos_token="<|endoftext|>", model_max_length=8
    )


N_LAYERS, D_MODEL, D_MLP, VOCAB, SEQ_LEN, N_SEQUENCES = 3, 16, 24, 30, 48, 37
DEAD = ((1, 3), (2, 0))
"""(layer, neuron) pairs that never fire."""
SPECIAL = np.array([0, 5], np.int32)
"""BOS, with which every sequence begins, and a token that comes in the middle of some."""


@pytest.fixture(scope="session")
def model() -> GPT2:
    """A random model with weights large enough that neurons differ, and two neurons that never fire."""
    config = GPT2Config(VOCAB, SEQ_LEN, D_MODEL, N_LAYERS, n_heads=2, d_mlp=D_MLP)
    model = GPT2(config, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    kernel = rng.normal(0, 0.5, (N_LAYERS, D_MODEL, D_MLP)).astype(np.float32)
    bias = rng.normal(0, 0.3, (N_LAYERS, D_MLP)).astype(np.float32)
    bias[tuple(zip(*DEAD, strict=True))] = -50
    embedding = rng.normal(0, 1, (VOCAB, D_MODEL)).astype(np.float32)
    model.blocks.mlp_in.kernel = nnx.Param(jnp.asarray(kernel))
    model.blocks.mlp_in.bias = nnx.Param(jnp.asarray(bias))
    model.token_embedding.embedding = nnx.Param(jnp.asarray(embedding))
    return model


@pytest.fixture(scope="session")
def sequences() -> Sequences:
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


@pytest.fixture(scope="session")
def seen(model, sequences) -> Seen:
    """What `collect` and `revisit` never hold: the whole of it, from one pass."""

    def read(view: LayerView) -> Seen:
        return Seen(view.mlp_input, view.pre_activation, view.activation)

    return Seen(*map(np.asarray, nnx.jit(lambda model, tokens: model(tokens, reader=read)[1])(model, sequences.tokens)))


@pytest.fixture
def traces(monkeypatch) -> list[tuple[int, ...]]:
    """The shapes of the tokens each time that a GPT-2 is called from Python: jitted, that is once a compilation."""
    shapes: list[tuple[int, ...]] = []
    call = GPT2.__call__

    def counting(self: GPT2, tokens: Any, **options: Any) -> Any:
        shapes.append(tokens.shape)
        return call(self, tokens, **options)

    monkeypatch.setattr(GPT2, "__call__", counting)
    return shapes
