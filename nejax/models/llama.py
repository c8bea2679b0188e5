"""Llama-style models in Flax NNX: the whole family in one file.

RMSNorm, rotary positions, grouped-query attention, a gated MLP, and a head that is tied to the token embedding or has a
matrix of its own (Touvron et al. 2023, arXiv 2302.13971; Llama 3: Grattafiori et al. 2024, arXiv 2407.21783). SmolLM2
is one. What it shares with other families is in `nejax.models.transformer`.

A gated neuron has two input vectors: its activation is `silu(x . w_gate) * (x . w_up)`, so its extremes have both
signs; see `nejax.models.two_sided`.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from nejax.models.family import Family, GGUFLayout
from nejax.models.transformer import ACTIVATIONS, Attention, Block, PartMaker, Transformer, stacked


class RotaryScaling(NamedTuple):
    """How rotary frequencies were changed to reach further than the model was first trained.

    Frequencies whose wavelength is longer than `n_positions / low_freq_factor` are divided by `factor`, those shorter
    than `n_positions / high_freq_factor` are kept, and those between are in between (Llama 3.1). If both factors are
    infinite, all are divided: linear scaling (Chen et al. 2023, arXiv 2306.15595).
    """

    factor: float
    low_freq_factor: float = math.inf
    high_freq_factor: float = math.inf
    n_positions: int = 0
    """Before."""


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


def rotary_frequencies(config: LlamaConfig) -> np.ndarray:
    """The angle by which each pair of a head's dimensions turns from one position to the next, `[d_head / 2]` float32.

    `base^(-2 i / d_head)` for pair `i` (Su et al. 2021, arXiv 2104.09864), scaled as `config.rotary_scaling` says.
    """
    frequency = 1.0 / config.rotary_base ** (np.arange(0, config.d_head, 2, dtype=np.float32) / config.d_head)
    scaling = config.rotary_scaling
    if scaling is None:
        return frequency.astype(np.float32)
    if math.isinf(scaling.low_freq_factor):
        return (frequency / scaling.factor).astype(np.float32)
    turns = scaling.n_positions * frequency / (2 * np.pi)
    kept = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    kept = np.clip(kept, 0.0, 1.0)
    return (frequency * (kept + (1 - kept) / scaling.factor)).astype(np.float32)


def rotate(
    x: Float[Array, "batch heads seq d_head"], position: Int[Array, "..."], frequency: np.ndarray
) -> Float[Array, "batch heads seq d_head"]:
    """Turn queries or keys by their positions: dimension `i` of the first half and of the second are a pair.

    Args:
        x: of every head.
        position: `[seq]`, or `[batch, seq]`.
        frequency: `[d_head / 2]`, see `rotary_frequencies`.
    """
    angle = position[..., None].astype(jnp.float32) * frequency
    angle = angle.reshape(-1, 1, *angle.shape[-2:])  # [batch or 1, 1, seq, d_head / 2]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x.dtype)


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
        frequency = rotary_frequencies(self.config)

        def split(values: Array) -> Array:
            return values.astype(x.dtype).reshape(*x.shape[:2], -1, self.config.d_head).swapaxes(1, 2)

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
        rngs: source of the initial weights, see `nejax.models.transformer.PartMaker`.
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

        With `g` the scale of the RMSNorm before the MLP, both input matrices become `g W` and the scale 1. There is no
        mean to take out: RMSNorm subtracts none.

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
    """What depends on other values: heads, and rotary positions, whose keys changed between versions of the format."""
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
    rope = settings.get("rope_parameters") or settings.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        return [*problems, f"rope_parameters is {rope!r}, expected an object"]
    values["rotary_base"] = rope.get("rope_theta", settings.get("rope_theta", LlamaConfig().rotary_base))
    base = values["rotary_base"]
    if type(base) not in (int, float) or not 1 < base < math.inf:
        problems.append(f"rope_theta is {base!r}, expected a number above 1")
    return problems + _read_scaling(values, rope)


def _read_scaling(values: dict[str, Any], rope: Mapping[str, Any]) -> list[str]:
    """Set how rotary frequencies are scaled; return what is wrong with it."""
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return []
    keys = {
        "linear": {"factor": "factor"},
        "llama3": {
            "factor": "factor",
            "low_freq_factor": "low_freq_factor",
            "high_freq_factor": "high_freq_factor",
            "n_positions": "original_max_position_embeddings",
        },
    }.get(kind)
    if keys is None:
        return [f"rope_type is {kind!r}, only 'default', 'linear' and 'llama3' are implemented"]
    found: dict[str, Any] = {field: rope.get(key) for field, key in keys.items()}
    wrong = [key for field, key in keys.items() if type(found[field]) not in (int, float) or not found[field] > 0]
    if wrong:
        return [f"rope_parameters have no positive number as {key}" for key in wrong]
    values["rotary_scaling"] = scaling = RotaryScaling(**found)
    if kind == "llama3" and not scaling.low_freq_factor < scaling.high_freq_factor:
        return [f"low_freq_factor {scaling.low_freq_factor} is not below high_freq_factor {scaling.high_freq_factor}"]
    return []


def _settings(config: LlamaConfig) -> dict[str, Any]:
    """Rotary positions as `config.json` has them."""
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": config.rotary_base}
    if scaling := config.rotary_scaling:
        is_linear = math.isinf(scaling.low_freq_factor)
        rope |= {"rope_type": "linear" if is_linear else "llama3", "factor": scaling.factor}
        if not is_linear:
            rope |= {
                "low_freq_factor": scaling.low_freq_factor,
                "high_freq_factor": scaling.high_freq_factor,
                "original_max_position_embeddings": scaling.n_positions,
            }
    return {"rope_parameters": rope}


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
    fixed_options={"sliding_window": None, "partial_rotary_factor": 1.0},
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
