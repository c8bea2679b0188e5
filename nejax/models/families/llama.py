"""Llama-style models in Flax NNX: the whole family in one file.

RMSNorm, rotary positions, grouped-query attention, a gated MLP, and a head that is tied to the token embedding or has a
matrix of its own (Touvron et al. 2023, arXiv 2302.13971; Llama 3: Grattafiori et al. 2024, arXiv 2407.21783). SmolLM2
is one. What it shares with other families is in `nejax.models.families.transformer`.

A gated neuron has two input vectors: its activation is `silu(x . w_gate) * (x . w_up)`, so its extremes have both
signs; see `nejax.models.families.two_sided`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from nejax.models.families.activations import ACTIVATIONS
from nejax.models.families.family import Family, GGUFLayout
from nejax.models.families.rotary import (
    ROTARY_KEYS,
    Rotary,
    RotaryScaling,
    read_rotary,
    rotary_frequencies,
    rotary_settings,
    rotate,
)
from nejax.models.families.transformer import Attention, Block, PartMaker, Transformer, stacked


class LlamaConfig(NamedTuple):
    """The shape of a Llama-style model. The defaults are those of transformers."""

    vocab_size: int = 32000
    n_positions: int = 2048
    d_model: int = 4096
    n_layers: int = 32
    n_heads: int = 32
    n_kv_heads: int = 32
    d_head: int = 128
    d_mlp: int = 11008
    rms_norm_epsilon: float = 1e-6
    activation: str = "silu"
    rotary_base: float = 10000.0
    rotary_scaling: RotaryScaling | None = None
    attention_bias: bool = False
    mlp_bias: bool = False
    tied_head: bool = False


class LlamaAttention(Attention):
    """Rotary positions; several query heads share a head of keys and values."""

    def __init__(self, config: LlamaConfig, make: PartMaker):
        self.config = config
        d_model, d_head, has = config.d_model, config.d_head, {"use_bias": config.attention_bias}
        self.query = make.linear(d_model, config.n_heads * d_head, **has)
        self.key = make.linear(d_model, config.n_kv_heads * d_head, **has)
        self.value = make.linear(d_model, config.n_kv_heads * d_head, **has)
        self.output = make.linear(config.n_heads * d_head, d_model, writes_residual=True, **has)

    def heads(
        self, x: Float[Array, "batch seq d_model"], position: Int[Array, "..."]
    ) -> tuple[
        Float[Array, "batch heads seq d_head"],
        Float[Array, "batch kv_heads seq d_head"],
        Float[Array, "batch kv_heads seq d_head"],
    ]:
        """Queries, keys and values of tokens at these positions."""
        config = self.config
        frequency = rotary_frequencies(config.d_head, config.rotary_base, config.rotary_scaling)

        def split(values: Array) -> Array:
            return values.astype(x.dtype).reshape(*x.shape[:2], -1, config.d_head).swapaxes(1, 2)

        query, key = (rotate(split(part(x)), position, frequency) for part in (self.query, self.key))
        return query, key, split(self.value(x))


class LlamaBlock(Block):
    """RMSNorm, attention, RMSNorm, a gated MLP; `mlp_in` is the gate."""

    def __init__(self, config: LlamaConfig, make: PartMaker):
        self.activation_name = config.activation
        has = {"use_bias": config.mlp_bias}
        self.attention_norm = make.rms_norm(config.rms_norm_epsilon)
        self.attention = LlamaAttention(config, make)
        self.mlp_norm = make.rms_norm(config.rms_norm_epsilon)
        self.mlp_in = make.linear(config.d_model, config.d_mlp, **has)
        self.mlp_up = make.linear(config.d_model, config.d_mlp, **has)
        self.mlp_out = make.linear(config.d_mlp, config.d_model, writes_residual=True, **has)

    def activate(
        self, pre_activation: Float[Array, "batch seq d_mlp"], mlp_input: Float[Array, "batch seq d_model"]
    ) -> Float[Array, "batch seq d_mlp"]:
        """The non-linearity of the gate, times the other term."""
        return ACTIVATIONS[self.activation_name](pre_activation) * self.mlp_up(mlp_input)


class Llama(Transformer):
    """The language model.

    Args:
        config: its shape.
        dtype: type in which matrix products read their operands; they always sum in float32.
        param_dtype: type in which the weights are stored.
        rngs: source of the initial weights, see `nejax.models.families.transformer.PartMaker`.
    """

    is_gated = True

    def __init__(
        self, config: LlamaConfig, *, dtype: Any = jnp.float32, param_dtype: Any = jnp.float32, rngs: nnx.Rngs
    ):
        def parts(rngs: nnx.Rngs) -> PartMaker:
            return PartMaker(config, dtype=dtype, param_dtype=param_dtype, rngs=rngs)

        self.config = config
        self.token_embedding = parts(rngs).embedding(config.vocab_size)
        self.blocks = stacked(config.n_layers, lambda rngs: LlamaBlock(config, parts(rngs)), rngs)
        self.final_norm = parts(rngs).rms_norm(config.rms_norm_epsilon)
        self.head = None if config.tied_head else parts(rngs).embedding(config.vocab_size)

    def folded(self) -> "Llama":
        """The same function with the MLP's RMSNorm folded into its input weights.

        With `g` the scale of the RMSNorm before the MLP, both input matrices become `g W` and the scale 1. Nothing is
        centred: RMSNorm subtracts no mean.

        Returns:
            A new model that shares every other weight with this one.
        """
        folded = nnx.merge(*nnx.split(self))
        blocks = folded.blocks
        scale = blocks.mlp_norm.scale[...].astype(jnp.float32)
        for part in (blocks.mlp_in, blocks.mlp_up):
            kernel = part.kernel[...]
            part.kernel = nnx.Param((kernel.astype(jnp.float32) * scale[:, :, None]).astype(kernel.dtype))
        blocks.mlp_norm.scale = nnx.Param(jnp.ones_like(blocks.mlp_norm.scale[...]))
        return folded


def _complete(values: dict[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """Set the values that depend on others: heads and rotary positions."""
    problems = []
    if settings.get("num_key_value_heads") is None:
        values["n_kv_heads"] = values["n_heads"]
    if settings.get("head_dim") is None:
        values["d_head"] = values["d_model"] // values["n_heads"]
        if values["d_model"] % values["n_heads"]:
            problems.append(
                f"hidden_size {values['d_model']} cannot be divided by num_attention_heads {values['n_heads']}"
            )
    if values["n_heads"] % values["n_kv_heads"]:
        problems.append(
            f"num_attention_heads {values['n_heads']} cannot be divided by num_key_value_heads {values['n_kv_heads']}"
        )
    if values["d_head"] % 2:
        problems.append(f"head_dim {values['d_head']} is odd, rotary positions need pairs of dimensions")
    rotary, wrong = read_rotary(settings, LlamaConfig().rotary_base)
    values |= {"rotary_base": rotary.base, "rotary_scaling": rotary.scaling}
    return problems + wrong


def _settings(config: LlamaConfig) -> dict[str, Any]:
    return rotary_settings(Rotary(config.rotary_base, config.rotary_scaling))


def _restore(name: str, values: np.ndarray, settings: Mapping[str, Any]) -> np.ndarray:
    """GGUF pairs neighbouring dimensions of queries and keys for rotary positions: put the first of all pairs first."""
    heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}
    part = next((part for part in heads if f".{part}." in name), None)
    if part is None:
        return values
    n_heads = settings.get(heads[part]) or settings["num_attention_heads"]
    pairs = values.reshape(n_heads, -1, 2, *values.shape[1:])
    return pairs.swapaxes(1, 2).reshape(values.shape)


FAMILY = Family(
    model_type="llama",
    architecture="LlamaForCausalLM",
    prefix="model.",
    names={
        "embed_tokens.weight": "token_embedding.embedding",
        "layers.{}.input_layernorm.weight": "blocks.attention_norm.scale",
        **{
            f"layers.{{}}.self_attn.{source}_proj.{kind}": f"blocks.attention.{part}.{leaf}"
            for source, part in {"q": "query", "k": "key", "v": "value", "o": "output"}.items()
            for kind, leaf in {"weight": "kernel", "bias": "bias"}.items()
        },
        "layers.{}.post_attention_layernorm.weight": "blocks.mlp_norm.scale",
        **{
            f"layers.{{}}.mlp.{source}_proj.{kind}": f"blocks.{part}.{leaf}"
            for source, part in {"gate": "mlp_in", "up": "mlp_up", "down": "mlp_out"}.items()
            for kind, leaf in {"weight": "kernel", "bias": "bias"}.items()
        },
        "norm.weight": "final_norm.scale",
        "lm_head.weight": "head.embedding",
    },
    ignored=r"layers\.\d+\.self_attn\.rotary_emb\.inv_freq",
    embedding="embed_tokens.weight",
    kernels_are_transposed=True,
    config=LlamaConfig,
    config_keys={
        "vocab_size": "vocab_size",
        "n_positions": "max_position_embeddings",
        "d_model": "hidden_size",
        "n_layers": "num_hidden_layers",
        "n_heads": "num_attention_heads",
        "n_kv_heads": "num_key_value_heads",
        "d_head": "head_dim",
        "d_mlp": "intermediate_size",
        "rms_norm_epsilon": "rms_norm_eps",
        "activation": "hidden_act",
        "attention_bias": "attention_bias",
        "mlp_bias": "mlp_bias",
        "tied_head": "tie_word_embeddings",
    },
    derived=("n_kv_heads", "d_head"),
    aliases={},
    also_read=ROTARY_KEYS,
    neutral={"partial_rotary_factor": (None, 1.0), "rope_interleaved": (None, False)},
    harmless=frozenset({"attention_dropout", "pretraining_tp", "max_sequence_length", "is_llama_config"}),
    complete=_complete,
    settings=_settings,
    model=Llama,
    gguf=GGUFLayout(
        architecture="llama",
        keys={
            "max_position_embeddings": "context_length",
            "hidden_size": "embedding_length",
            "num_hidden_layers": "block_count",
            "intermediate_size": "feed_forward_length",
            "num_attention_heads": "attention.head_count",
            "num_key_value_heads": "attention.head_count_kv",
            "head_dim": "attention.key_length",
            "rms_norm_eps": "attention.layer_norm_rms_epsilon",
            "rope_theta": "rope.freq_base",
        },
        restore=_restore,
    ),
)
