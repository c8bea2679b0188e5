"""GPT-2 in Flax NNX: the whole family in one file.

The architecture is that of Radford et al. 2019, *Language Models are Unsupervised Multitask Learners*: learned
positions, LayerNorm before attention and before the MLP, one more at the end, an output head that is tied to the token
embedding or, in some later models, has a matrix of its own. What it shares with other families is in
`nejax.models.families.transformer`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int

from nejax.models.families.activations import ACTIVATIONS
from nejax.models.families.family import Family
from nejax.models.families.transformer import Attention, Block, PartMaker, Transformer, stacked


class GPT2Config(NamedTuple):
    """The shape of a GPT-2. The defaults are those of GPT-2 small."""

    vocab_size: int = 50257
    n_positions: int = 1024
    d_model: int = 768
    n_layers: int = 12
    n_heads: int = 12
    d_mlp: int = 3072
    layer_norm_epsilon: float = 1e-5
    activation: str = "gelu_new"
    tied_head: bool = True


class GPT2Attention(Attention):
    """One fused projection to queries, keys and values."""

    def __init__(self, config: GPT2Config, make: PartMaker):
        self.n_heads = config.n_heads
        self.qkv = make.linear(config.d_model, 3 * config.d_model)
        self.output = make.linear(config.d_model, config.d_model, writes_residual=True)

    def heads(
        self, x: Float[Array, "batch seq d_model"], position: Int[Array, "..."]
    ) -> tuple[
        Float[Array, "batch heads seq d_head"],
        Float[Array, "batch heads seq d_head"],
        Float[Array, "batch heads seq d_head"],
    ]:
        """Queries, keys and values; the residual stream already holds the positions."""
        batch, seq, _ = x.shape
        qkv = self.qkv(x).astype(x.dtype).reshape(batch, seq, 3, self.n_heads, -1)
        # One transposition of all three: XLA's own, one for each product, cost half as much again on CPU.
        query, key, value = qkv.transpose(2, 0, 3, 1, 4)
        return query, key, value


class GPT2Block(Block):
    """LayerNorm, attention, LayerNorm, an MLP of one matrix in and one out."""

    def __init__(self, config: GPT2Config, make: PartMaker):
        self.activation_name = config.activation
        self.attention_norm = make.layer_norm(config.layer_norm_epsilon)
        self.attention = GPT2Attention(config, make)
        self.mlp_norm = make.layer_norm(config.layer_norm_epsilon)
        self.mlp_in = make.linear(config.d_model, config.d_mlp)
        self.mlp_out = make.linear(config.d_mlp, config.d_model, writes_residual=True)

    def activate(
        self, pre_activation: Float[Array, "batch seq d_mlp"], mlp_input: Float[Array, "batch seq d_model"]
    ) -> Float[Array, "batch seq d_mlp"]:
        """The non-linearity of the pre-activation."""
        return ACTIVATIONS[self.activation_name](pre_activation)


class GPT2(Transformer):
    """The language model.

    Args:
        config: its shape.
        dtype: type in which matrix products read their operands; they always sum in float32.
        param_dtype: type in which the weights are stored.
        rngs: source of the initial weights, see `nejax.models.families.transformer.PartMaker`.
    """

    def __init__(self, config: GPT2Config, *, dtype: Any = jnp.float32, param_dtype: Any = jnp.float32, rngs: nnx.Rngs):
        def parts(rngs: nnx.Rngs) -> PartMaker:
            return PartMaker(config, dtype=dtype, param_dtype=param_dtype, rngs=rngs)

        self.config = config
        self.token_embedding = parts(rngs).embedding(config.vocab_size)
        self.position_embedding = parts(rngs).embedding(config.n_positions)
        self.blocks = stacked(config.n_layers, lambda rngs: GPT2Block(config, parts(rngs)), rngs)
        self.final_norm = parts(rngs).layer_norm(config.layer_norm_epsilon)
        self.head = None if config.tied_head else parts(rngs).embedding(config.vocab_size)

    def embed(self, tokens: Int[Array, "batch seq"], position: Int[Array, "..."]) -> Float[Array, "batch seq d_model"]:
        """The residual stream before the first layer, of tokens at these positions."""
        return super().embed(tokens, position) + self.position_embedding(position).astype(jnp.float32)

    def folded(self) -> "GPT2":
        """The same function with the MLP's LayerNorm folded into its input weights, as the paper read GPT-2.

        With `g` and `s` the scale and shift of the LayerNorm before the MLP, `W_in` becomes `g W_in` centred over
        `d_model`, `b_in` becomes `b_in + s @ W_in`, and the LayerNorm is left with scale 1 and shift 0. The MLP's input
        is then the bare normalised residual stream, whose mean is 0, so activations are unchanged; neuron embeddings
        are not (Foote 2024, arXiv 2411.08166, through TransformerLens' `fold_ln` and `center_writing_weights`).

        Returns:
            A new model that shares every other weight with this one.
        """
        folded = nnx.merge(*nnx.split(self))
        blocks = folded.blocks
        scale, shift = blocks.mlp_norm.scale[...], blocks.mlp_norm.bias[...]
        kernel, bias = blocks.mlp_in.kernel[...], blocks.mlp_in.bias[...]
        w_in = kernel.astype(jnp.float32)
        b_in = bias + jnp.einsum("ld,ldm->lm", shift.astype(jnp.float32), w_in, precision=lax.Precision.HIGHEST)
        w_in = w_in * scale.astype(jnp.float32)[:, :, None]
        w_in = w_in - w_in.mean(axis=1, keepdims=True)
        blocks.mlp_in.kernel = nnx.Param(w_in.astype(kernel.dtype))
        blocks.mlp_in.bias = nnx.Param(b_in.astype(bias.dtype))
        blocks.mlp_norm.scale = nnx.Param(jnp.ones_like(scale))
        blocks.mlp_norm.bias = nnx.Param(jnp.zeros_like(shift))
        return folded


def _complete(values: dict[str, Any], settings: Mapping[str, Any]) -> list[str]:
    if settings.get("n_inner") is None:
        values["d_mlp"] = 4 * values["d_model"]
    if values["d_model"] % values["n_heads"]:
        return [f"n_embd {values['d_model']} cannot be divided by n_head {values['n_heads']}"]
    return []


FAMILY = Family(
    model_type="gpt2",
    architecture="GPT2LMHeadModel",
    prefix="transformer.",  # the published GPT-2 files do without
    names={
        "wte.weight": "token_embedding.embedding",
        "wpe.weight": "position_embedding.embedding",
        "h.{}.ln_1.weight": "blocks.attention_norm.scale",
        "h.{}.ln_1.bias": "blocks.attention_norm.bias",
        "h.{}.attn.c_attn.weight": "blocks.attention.qkv.kernel",
        "h.{}.attn.c_attn.bias": "blocks.attention.qkv.bias",
        "h.{}.attn.c_proj.weight": "blocks.attention.output.kernel",
        "h.{}.attn.c_proj.bias": "blocks.attention.output.bias",
        "h.{}.ln_2.weight": "blocks.mlp_norm.scale",
        "h.{}.ln_2.bias": "blocks.mlp_norm.bias",
        "h.{}.mlp.c_fc.weight": "blocks.mlp_in.kernel",
        "h.{}.mlp.c_fc.bias": "blocks.mlp_in.bias",
        "h.{}.mlp.c_proj.weight": "blocks.mlp_out.kernel",
        "h.{}.mlp.c_proj.bias": "blocks.mlp_out.bias",
        "ln_f.weight": "final_norm.scale",
        "ln_f.bias": "final_norm.bias",
        "lm_head.weight": "head.embedding",
    },
    ignored=r"h\.\d+\.attn\.(bias|masked_bias)",  # causal masks
    embedding="wte.weight",
    kernels_are_transposed=False,  # transformers' Conv1D stores them as they are used
    config=GPT2Config,
    config_keys={
        "vocab_size": "vocab_size",
        "n_positions": "n_positions",
        "d_model": "n_embd",
        "n_layers": "n_layer",
        "n_heads": "n_head",
        "d_mlp": "n_inner",
        "layer_norm_epsilon": "layer_norm_epsilon",
        "activation": "activation_function",
        "tied_head": "tie_word_embeddings",
    },
    aliases={
        "max_position_embeddings": "n_positions",
        "hidden_size": "n_embd",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
    },
    also_read=(),
    derived=("d_mlp",),
    neutral={"scale_attn_weights": (True,), "scale_attn_by_inverse_layer_idx": (False,)},
    harmless=frozenset(
        {
            "attn_pdrop",
            "embd_pdrop",
            "resid_pdrop",
            "reorder_and_upcast_attn",
            "n_ctx",
            "predict_special_tokens",
            "summary_type",
            "summary_use_proj",
            "summary_activation",
            "summary_proj_to_labels",
            "summary_first_dropout",
            "summary_last_dropout",
        }
    ),
    complete=_complete,
    settings=lambda config: {},
    model=GPT2,
)
