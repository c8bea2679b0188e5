"""A small byte-level tokenizer, like GPT-2's but trained on the spot; a tiny model, and all that goes on in it."""

import time
from pathlib import Path
from typing import Any

import pytest
import tiny_gpt2
import world
from base_runs import made_once
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from nejax.models.families.gpt2 import GPT2
from nejax.models.formats import files
from nejax.pipeline.corpus.windows import Sequences
from nejax.pipeline.run.settings import Settings
from nejax.pipeline.stages.features import FEATURES

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


@pytest.fixture(scope="session")
def model() -> GPT2:
    return tiny_gpt2.random_model()


@pytest.fixture(scope="session")
def sequences() -> Sequences:
    return tiny_gpt2.random_sequences()


@pytest.fixture(scope="session")
def seen(model, sequences) -> tiny_gpt2.Seen:
    return tiny_gpt2.see_all(model, sequences)


@pytest.fixture(scope="session")
def sources(tmp_path_factory) -> Path:
    """The model and the corpus of `world`."""
    return made_once(tmp_path_factory, "world", world.make_sources)


@pytest.fixture(scope="session")
def plain_settings(sources) -> Settings:
    """Of a run of them, see `world.settings_of`."""
    return world.settings_of(sources)


@pytest.fixture(scope="session")
def features_done(plain_settings, tmp_path_factory) -> Path:
    """A run that has its features, and none of the stages after them."""
    return made_once(tmp_path_factory, "run", lambda folder: FEATURES.of(world.a_run(folder, plain_settings)))


@pytest.fixture(scope="session")
def batches_of_7(plain_settings, tmp_path_factory) -> Path:
    """The same run in other batches."""
    make = lambda folder: FEATURES.of(world.a_run(folder, plain_settings, batch_size=7))  # noqa: E731
    return made_once(tmp_path_factory, "batches-of-7", make)


@pytest.fixture(scope="session")
def bfloat16(plain_settings, tmp_path_factory) -> Path:
    """The same run in bfloat16."""
    changed = plain_settings.but(precision="bfloat16")
    return made_once(tmp_path_factory, "bfloat16", lambda folder: FEATURES.of(world.a_run(folder, changed)))


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


@pytest.fixture
def old_clock(monkeypatch):
    """As if a thousand seconds had passed since every file was written: its times tell."""
    now = time.time_ns
    monkeypatch.setattr(files.time, "time_ns", lambda: now() + 10**12)
