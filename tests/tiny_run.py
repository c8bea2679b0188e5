"""A tiny random model and a little text, for scripts that build atlases."""

from pathlib import Path

import pytest
import scripts
from base_runs import made_once
from flax import nnx

from nejax.models.families.gpt2 import GPT2, GPT2Config
from nejax.models.formats.tokens import train_tokenizer
from nejax.models.formats.weights import save_weights


def tiny_run(folder: Path) -> list[str]:
    """Put both into a folder; the flags of build_atlas.py for a run of seconds."""
    make_sources(folder)
    return flags_of(folder)


def make_sources(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    texts = [
        f"Chapter {i}. The heron of city {i} wrote {i * 37} letters, and river {i * i} answered." for i in range(60)
    ]
    tokenizer = train_tokenizer(texts, vocab_size=400, n_positions=64)
    config = GPT2Config(len(tokenizer), 64, d_model=32, n_layers=2, n_heads=2, d_mlp=48)
    save_weights(GPT2(config, rngs=nnx.Rngs(0)), folder / "model", tokenizer)
    (folder / "texts.txt").write_text("\n".join(texts))


def flags_of(folder: Path) -> list[str]:
    small = ["--seq_len=32", "--keep=16", "--examples=12", "--similar=3"]
    return [f"--model={folder / 'model'}", f"--corpus={folder / 'texts.txt'}", *small]


def sources_of(factory: pytest.TempPathFactory) -> Path:
    """Both, made once a session."""
    return made_once(factory, "tiny", make_sources)


def finished(factory: pytest.TempPathFactory) -> Path:
    """A run of them, made once a session, to be copied."""

    def make(folder: Path) -> None:
        done = scripts.run("build_atlas", *flags_of(sources_of(factory)), f"--run={folder}")
        assert done.returncode == 0, done.stderr[-2000:]

    return made_once(factory, "tiny-run", make)
