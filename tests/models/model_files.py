"""Model directories in the layout of Hugging Face, written by hand: no table or function of nejax is used."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from nejax.models.formats.tokens import train_tokenizer

VOCAB, POSITIONS, WIDTH, LAYERS, HEADS, INNER = 270, 16, 8, 2, 2, 20

SETTINGS = {
    "model_type": "gpt2",
    "vocab_size": VOCAB,
    "n_positions": POSITIONS,
    "n_embd": WIDTH,
    "n_layer": LAYERS,
    "n_head": HEADS,
    "n_inner": INNER,
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
}


def random_tensors(seed: int = 0) -> dict[str, np.ndarray]:
    """All tensors of the model of `SETTINGS`, float32, under the names of the published GPT-2 files."""
    shapes = {"wte.weight": (VOCAB, WIDTH), "wpe.weight": (POSITIONS, WIDTH)}
    for layer in range(LAYERS):
        shapes |= {
            f"h.{layer}.ln_1.weight": (WIDTH,),
            f"h.{layer}.ln_1.bias": (WIDTH,),
            f"h.{layer}.attn.c_attn.weight": (WIDTH, 3 * WIDTH),
            f"h.{layer}.attn.c_attn.bias": (3 * WIDTH,),
            f"h.{layer}.attn.c_proj.weight": (WIDTH, WIDTH),
            f"h.{layer}.attn.c_proj.bias": (WIDTH,),
            f"h.{layer}.ln_2.weight": (WIDTH,),
            f"h.{layer}.ln_2.bias": (WIDTH,),
            f"h.{layer}.mlp.c_fc.weight": (WIDTH, INNER),
            f"h.{layer}.mlp.c_fc.bias": (INNER,),
            f"h.{layer}.mlp.c_proj.weight": (INNER, WIDTH),
            f"h.{layer}.mlp.c_proj.bias": (WIDTH,),
        }
    shapes |= {"ln_f.weight": (WIDTH,), "ln_f.bias": (WIDTH,)}
    rng = np.random.default_rng(seed)
    return {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}


def write_model(
    directory: Path,
    tensors: dict[str, np.ndarray] | None = None,
    settings: dict[str, Any] | None = None,
    *,
    tokenizer: bool = False,
) -> Path:
    """Write `config.json` and `model.safetensors`, and a small tokenizer if asked; return the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(SETTINGS | (settings or {})))
    save_file(random_tensors() if tensors is None else tensors, directory / "model.safetensors")
    if tokenizer:
        texts = ["the quick brown fox jumps over the lazy dog"]
        train_tokenizer(texts, vocab_size=VOCAB, n_positions=POSITIONS).save_pretrained(directory)
    return directory


def write_shards(directory: Path, tensors: dict[str, np.ndarray], n_shards: int) -> Path:
    """Replace `model.safetensors` by shards and their index."""
    (directory / "model.safetensors").unlink()
    weight_map = {}
    for shard in range(n_shards):
        file = f"model-{shard + 1:05d}-of-{n_shards:05d}.safetensors"
        names = list(tensors)[shard::n_shards]
        save_file({name: tensors[name] for name in names}, directory / file)
        weight_map |= dict.fromkeys(names, file)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return directory
