"""Small GGUF files, as llama.cpp's converter writes them."""

from pathlib import Path
from typing import Any

import numpy as np

SHAPE = {"vocab_size": 48, "d_model": 64, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "d_head": 16, "d_mlp": 96}
FIELDS = {
    "llama.block_count": 2,
    "llama.context_length": 32,
    "llama.embedding_length": 64,
    "llama.feed_forward_length": 96,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.attention.layer_norm_rms_epsilon": np.float32(1e-5),
    "llama.rope.freq_base": np.float32(10000.0),
    "llama.rope.dimension_count": 16,
    "llama.vocab_size": 48,
}
_LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def hugging_face_tensors(*, seed: int = 0, tied: bool = True, biases: bool = False) -> dict[str, np.ndarray]:
    """Random float32 tensors of a tiny Llama, by their names in the layout of Hugging Face, without prefix."""
    rng = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {"embed_tokens.weight": (48, 64), "norm.weight": (64,)}
    for layer in range(2):
        parts = {
            "input_layernorm": (64,),
            "post_attention_layernorm": (64,),
            "self_attn.q_proj": (64, 64),
            "self_attn.k_proj": (32, 64),
            "self_attn.v_proj": (32, 64),
            "self_attn.o_proj": (64, 64),
            "mlp.gate_proj": (96, 64),
            "mlp.up_proj": (96, 64),
            "mlp.down_proj": (64, 96),
        }
        for part, shape in parts.items():
            shapes[f"layers.{layer}.{part}.weight"] = shape
            if biases and len(shape) == 2:
                shapes[f"layers.{layer}.{part}.bias"] = shape[:1]
    if not tied:
        shapes["lm_head.weight"] = (48, 64)
    return {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}


def as_stored(name: str, values: np.ndarray) -> tuple[str, np.ndarray]:
    """A tensor's name and values in the file: the halves of each head's queries and keys are interleaved."""
    whole = {"embed_tokens.weight": "token_embd.weight", "norm.weight": "output_norm.weight"}
    if name in whole:
        return whole[name], values
    if name == "lm_head.weight":
        return "output.weight", values
    _, layer, rest = name.split(".", 2)
    part, kind = rest.rsplit(".", 1)
    if part in ("self_attn.q_proj", "self_attn.k_proj"):
        n_heads = SHAPE["n_heads" if part == "self_attn.q_proj" else "n_kv_heads"]
        heads = np.split(values, n_heads)
        values = np.concatenate([np.stack(np.split(head, 2), axis=1).reshape(head.shape) for head in heads])
    return f"blk.{layer}.{_LAYER_NAMES[part]}.{kind}", values


def write_gguf(
    file: Path,
    fields: dict[str, Any] | None = None,
    tensors: dict[str, np.ndarray] | None = None,
    *,
    kind: str = "F32",
    architecture: str = "llama",
) -> Path:
    """A GGUF file of a tiny Llama.

    Args:
        file: where to.
        fields: more of them, or others; with None a field is left out.
        tensors: by their names in the layout of Hugging Face; others under their own.
        kind: the type of the matrices; vectors are F32.
        architecture: `general.architecture`.
    """
    import gguf

    writer = gguf.GGUFWriter(file, architecture)
    for key, value in (FIELDS | (fields or {})).items():
        match value:
            case None:
                pass
            case bool():
                writer.add_bool(key, value)
            case int():
                writer.add_uint32(key, value)
            case str():
                writer.add_string(key, value)
            case list():
                writer.add_array(key, value)
            case _:
                writer.add_float32(key, float(value))
    for name, values in (hugging_face_tensors() if tensors is None else tensors).items():
        known = name.startswith(("embed_tokens.", "norm.", "lm_head.", "layers."))
        stored, values = as_stored(name, values) if known else (name, values)
        chosen = gguf.GGMLQuantizationType[kind if values.ndim == 2 else "F32"]
        writer.add_tensor(stored, gguf.quantize(values, chosen), raw_dtype=chosen)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file
