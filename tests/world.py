"""The small world of tests of whole runs: a model, texts, settings.

Compilation is what tests cost, and every size is compiled anew: a test that needs no size of its own takes these.
"""

import random
from pathlib import Path
from typing import Any

from tiny_gpt2 import D_MLP, random_model

from nejax.models.formats.tokens import train_tokenizer
from nejax.models.formats.weights import save_weights
from nejax.pipeline.run.settings import Settings
from nejax.pipeline.stages.run import Run

VOCAB, N_POSITIONS, SEQ_LEN, KEEP, EXAMPLES, N_SEQUENCES, BATCH = 300, 32, 24, 16, 10, 30, 4
DEAD = [(1, neuron) for neuron in range(D_MLP)] + [(0, 5)]
"""(layer, neuron) pairs that never fire: a whole layer, and one neuron more."""
WORDS = ["the", "a", "cat", "dog", "house", "river", "sang", "ran", "red", "blue", "and", "of", "naïve", "東京"]


def text(number: int, n_words: int = 90) -> str:
    return " ".join(random.Random(number).choices(WORDS, k=n_words))


def tokenizer():
    return train_tokenizer([" ".join(WORDS)], vocab_size=VOCAB, n_positions=N_POSITIONS)


def make_sources(folder: Path) -> None:
    """`model`, and `corpus`: ten texts, and two files that cannot be used."""
    save_weights(random_model(VOCAB, N_POSITIONS, DEAD), folder / "model", tokenizer())
    (folder / "corpus").mkdir()
    for i in range(10):
        (folder / "corpus" / f"{i}.txt").write_text(text(i), encoding="utf-8")
    (folder / "corpus" / "blank.txt").write_text(" \n")
    (folder / "corpus" / "binary.txt").write_bytes(b"\xff\xfe\x00")


def settings_of(folder: Path, **changed: Any) -> Settings:
    """Of a run on a model and a corpus in a folder."""
    usual = {
        "model": str(folder / "model"),
        "corpus": str(folder / "corpus"),
        "max_sequences": N_SEQUENCES,
        "seq_len": SEQ_LEN,
        "keep": KEEP,
        "examples": EXAMPLES,
    }
    return Settings.of(**usual | changed)


def a_run(folder: Path | str, settings: Settings, **options: Any) -> Run:
    return Run(folder, settings, **{"quiet": True, "batch_size": BATCH} | options)
