"""GPT-2 in Flax NNX: blocks stacked along a leading layer axis and run by one `lax.scan`.

The architecture is that of Radford et al. 2019, *Language Models are Unsupervised Multitask Learners*: learned
positions, LayerNorm before attention and before the MLP, one more at the end, an output head tied to the token
embedding. A reader and an editor (see `nejax.models.reading`) look into every layer of the same pass.

LayerNorm, softmax, the residual stream and every sum of products are float32 whatever the type of the weights.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from nejax.models.reading import Branches, Editor, LayerView, Reader, edit_nothing, read_nothing

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu_new": lambda x: jax.nn.gelu(x, approximate=True),
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}
"""Non-linearities under the names that Hugging Face configurations give them."""


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


class Attention(nnx.Module):
    """Causal multi-head self-attention with one fused projection to queries, keys and values."""

    def __init__(self, config: GPT2Config, *, dtype: Any, param_dtype: Any, rngs: nnx.Rngs):
        self.n_heads = config.n_heads
        make = _linear_maker(config, dtype, param_dtype, rngs)
        self.qkv = make(config.d_model, 3 * config.d_model)
        self.output = make(config.d_model, config.d_model, writes_residual=True)

    def __call__(self, x: Float[Array, "batch seq d_model"]) -> Float[Array, "batch seq d_model"]:
        """Mix information over positions, each looking only at itself and those before it."""
        query, key, value = self._heads(x)
        return self._mix(query, key, value, jnp.tri(x.shape[1], dtype=bool))

    def on_branches(
        self,
        x: Float[Array, "blocks rows d_model"],
        sequences: Float[Array, "batch seq d_model"],
        branches: Branches,
        sees: Bool[Array, "blocks 1 rows seq_and_rows"],
    ) -> Float[Array, "blocks rows d_model"]:
        """The same for tokens of branches, which look at tokens of their sequence and at each other.

        Args:
            x: what the branches' tokens read.
            sequences: what the sequences' tokens read.
            branches: see `nejax.models.reading`.
            sees: from `Branches.sees`.
        """
        query, key, value = self._heads(x)
        _, *before = self._heads(sequences)
        key, value = (
            jnp.concatenate([of_sequences[branches.sequence], own], axis=2)
            for of_sequences, own in zip(before, (key, value), strict=True)
        )
        return self._mix(query, key, value, sees)

    def _heads(self, x: Float[Array, "batch seq d_model"]) -> Float[Array, "3 batch heads seq d_head"]:
        """Queries, keys and values."""
        batch, seq, _ = x.shape
        qkv = self.qkv(x).astype(x.dtype).reshape(batch, seq, 3, self.n_heads, -1)
        # One transposition of all three: XLA's own, one for each product, cost half as much again on CPU.
        return qkv.transpose(2, 0, 3, 1, 4)

    def _mix(
        self,
        query: Float[Array, "batch heads queries d_head"],
        key: Float[Array, "batch heads keys d_head"],
        value: Float[Array, "batch heads keys d_head"],
        sees: Bool[Array, "..."],
    ) -> Float[Array, "batch queries d_model"]:
        """Each query's mean of the values it sees, weighted by how well their keys fit, through the output matrix."""
        # jax.nn.dot_product_attention asks for products that a CPU does not have in float16.
        scores = jnp.einsum("bhqd,bhkd->bhqk", query, key, preferred_element_type=jnp.float32)
        scores = jnp.where(sees, scores * query.shape[-1] ** -0.5, -jnp.inf)
        weights = jax.nn.softmax(scores).astype(value.dtype)
        mixed = jnp.einsum("bhqk,bhkd->bhqd", weights, value, preferred_element_type=jnp.float32)
        return self.output(mixed.transpose(0, 2, 1, 3).reshape(query.shape[0], query.shape[2], -1))


class Block(nnx.Module):
    """One layer: attention and an MLP, each reading the normalised residual stream and adding to it."""

    def __init__(self, config: GPT2Config, *, dtype: Any, param_dtype: Any, rngs: nnx.Rngs):
        self.activation_name = config.activation
        make = _linear_maker(config, dtype, param_dtype, rngs)
        self.attention_norm = _layer_norm(config, dtype, param_dtype, rngs)
        self.attention = Attention(config, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        self.mlp_norm = _layer_norm(config, dtype, param_dtype, rngs)
        self.mlp_in = make(config.d_model, config.d_mlp)
        self.mlp_out = make(config.d_mlp, config.d_model, writes_residual=True)

    def __call__(
        self,
        residual: Float[Array, "batch seq d_model"],
        layer: Int[Array, ""],
        editor: Editor,
        attention: Callable[[Array], Array] | None = None,
    ) -> tuple[Float[Array, "batch seq d_model"], LayerView]:
        """Run the layer; return the residual stream after it and everything a reader may look at.

        Args:
            residual: the stream before it.
            layer: its index.
            editor: see `nejax.models.reading`.
            attention: what to do in place of the layer's own attention.
        """
        resid_pre = editor("resid_pre", residual, layer)
        resid_mid = resid_pre + (attention or self.attention)(self.attention_norm(resid_pre))
        resid_mid = editor("resid_mid", resid_mid, layer)
        mlp_input = editor("mlp_input", self.mlp_norm(resid_mid), layer)
        pre_activation = editor("pre_activation", self.mlp_in(mlp_input), layer)
        activation = editor("activation", ACTIVATIONS[self.activation_name](pre_activation), layer)
        mlp_output = editor("mlp_output", self.mlp_out(activation), layer)
        resid_post = editor("resid_post", resid_mid + mlp_output, layer)
        view = LayerView(layer, resid_pre, resid_mid, mlp_input, pre_activation, activation, mlp_output, resid_post)
        return resid_post, view


class GPT2(nnx.Module):
    """The language model.

    Args:
        config: its shape.
        dtype: type in which matrix products read their operands; they always sum in float32.
        param_dtype: type in which the weights are stored.
        rngs: source of the initial weights: normal with deviation 0.02, divided by `sqrt(2 n_layers)` for the
            matrices that write to the residual stream (Radford et al. 2019, section 2.3).
    """

    def __init__(self, config: GPT2Config, *, dtype: Any = jnp.float32, param_dtype: Any = jnp.float32, rngs: nnx.Rngs):
        self.config = config

        def embedding(n: int) -> nnx.Embed:
            init = nnx.initializers.normal(0.02)
            return nnx.Embed(n, config.d_model, dtype=dtype, param_dtype=param_dtype, embedding_init=init, rngs=rngs)

        @nnx.split_rngs(splits=config.n_layers)
        @nnx.vmap(in_axes=0, out_axes=0)
        def stack(rngs: nnx.Rngs) -> Block:
            return Block(config, dtype=dtype, param_dtype=param_dtype, rngs=rngs)

        self.token_embedding = embedding(config.vocab_size)
        self.position_embedding = embedding(config.n_positions)
        self.blocks = stack(rngs)
        self.final_norm = _layer_norm(config, dtype, param_dtype, rngs)

    def __call__(
        self,
        tokens: Int[Array, "batch seq"],
        *,
        reader: Reader = read_nothing,
        editor: Editor = edit_nothing,
        unroll: int = 1,
    ) -> tuple[Float[Array, "batch seq vocab_size"], Any]:
        """Run the model on whole sequences, each starting at position 0.

        Sequences shorter than the batch's length are padded on the right with any token: attention is causal, so
        padding never reaches the positions before it.

        Args:
            tokens: token ids.
            reader: see `nejax.models.reading`.
            editor: see `nejax.models.reading`.
            unroll: how many layers XLA sees at once. More compiles longer; on CPU the backward pass of a small model
                gains a fifth, because XLA does not share out element-wise work inside a loop.

        Returns:
            Logits in float32, and the reader's results with a leading `n_layers` axis. Under `jit`, what the caller
            does not use is not computed.

        Raises:
            ValueError: the sequences are longer than the model's `n_positions`.
        """
        residual = self.embed(tokens, jnp.arange(self._require_room(tokens)))
        graph, blocks = nnx.split(self.blocks)

        def run_layer(residual: Array, scanned: tuple[Array, Any]) -> tuple[Array, Any]:
            layer, block = scanned
            residual, view = nnx.merge(graph, block)(residual, layer, editor)
            return residual, reader(view)

        layers = jnp.arange(self.config.n_layers)
        residual, readings = lax.scan(run_layer, residual, (layers, blocks), unroll=unroll)
        normed, head = self.final_norm(residual), self.token_embedding.embedding[...]
        logits = jnp.einsum("bsd,vd->bsv", normed, head.astype(normed.dtype), preferred_element_type=jnp.float32)
        return logits, readings

    def read_branches(
        self,
        tokens: Int[Array, "batch seq"],
        branches: Branches,
        *,
        reader: Reader,
        editor: Editor = edit_nothing,
    ) -> Any:
        """Run other continuations of sequences, each from where it leaves its sequence.

        The sequences themselves run beside them, undisturbed and unread: in every layer, a branch's tokens look at the
        keys and values of those before it, as they would if the branch were run as a sequence of its own.

        Args:
            tokens: the sequences.
            branches: see `nejax.models.reading`.
            reader: of the branches' tokens: `batch` is the blocks, `seq` their rows.
            editor: of the same.

        Returns:
            The reader's results with a leading `n_layers` axis.

        Raises:
            ValueError: the sequences are longer than the model's `n_positions`.
        """
        seq = self._require_room(tokens)
        residuals = self.embed(tokens, jnp.arange(seq)), self.embed(branches.tokens, branches.position)
        sees = branches.sees(seq)[:, None]
        graph, blocks = nnx.split(self.blocks)

        def run_layer(residuals: tuple[Array, Array], scanned: tuple[Array, Any]) -> tuple[tuple[Array, Array], Any]:
            layer, state = scanned
            block = nnx.merge(graph, state)
            before = block.attention_norm(residuals[0])
            sequences, _ = block(residuals[0], layer, edit_nothing)
            attention = partial(block.attention.on_branches, sequences=before, branches=branches, sees=sees)
            branched, view = block(residuals[1], layer, editor, attention)
            return (sequences, branched), reader(view)

        # The last layer stands outside the scan: XLA drops what nobody reads of it, half of its MLP at least.
        layers = jnp.arange(self.config.n_layers), blocks
        first, last = jax.tree.map(lambda leaf: leaf[:-1], layers), jax.tree.map(lambda leaf: leaf[-1], layers)
        residuals, readings = lax.scan(run_layer, residuals, first)
        _, reading = run_layer(residuals, last)
        return jax.tree.map(lambda before, own: jnp.concatenate([before, own[None]]), readings, reading)

    def _require_room(self, tokens: Int[Array, "batch seq"]) -> int:
        """The length of sequences, if the model has so many positions."""
        seq = tokens.shape[1]
        if seq > self.config.n_positions:
            raise ValueError(f"sequences of {seq} tokens; this model has {self.config.n_positions} positions")
        return seq

    def embed(self, tokens: Int[Array, "batch seq"], position: Int[Array, "..."]) -> Float[Array, "batch seq d_model"]:
        """The residual stream before the first layer, of tokens at these positions."""
        embedded = self.token_embedding(tokens), self.position_embedding(position)
        return embedded[0].astype(jnp.float32) + embedded[1].astype(jnp.float32)

    def first_layers(self, n: int) -> "GPT2":
        """The model without its layers from `n` on: whoever reads a layer need not run those after it.

        It shares its weights with this one.

        Raises:
            ValueError: `n` is not 1 to `n_layers`.
        """
        if not 1 <= n <= self.config.n_layers:
            raise ValueError(f"the first {n} layers of {self.config.n_layers}")
        shorter = nnx.merge(*nnx.split(self))
        graph, blocks = nnx.split(shorter.blocks)
        shorter.blocks = nnx.merge(graph, jax.tree.map(lambda leaf: leaf[:n], blocks))
        shorter.config = self.config._replace(n_layers=n)
        return shorter

    def input_weights(self) -> Float[Array, "n_layers d_model d_mlp"]:
        """What every neuron looks for: `W_in[layer, :, neuron]`."""
        return self.blocks.mlp_in.kernel[...]

    def input_bias(self) -> Float[Array, "n_layers d_mlp"]:
        """What is added to `mlp_input @ W_in` before the non-linearity."""
        return _value(self.blocks.mlp_in.bias)


def fold_layer_norm(model: GPT2) -> GPT2:
    """The same function with the MLP's LayerNorm folded into its input weights, as the paper read GPT-2.

    With `g` and `s` the scale and shift of the LayerNorm before the MLP, `W_in` becomes `g W_in` centred over
    `d_model`, `b_in` becomes `b_in + s @ W_in`, and the LayerNorm is left with scale 1 and shift 0. The MLP's input
    is then the bare normalised residual stream, whose mean is 0, so activations are unchanged; neuron embeddings are
    not (Foote 2024, arXiv 2411.08166, through TransformerLens' `fold_ln` and `center_writing_weights`).

    Args:
        model: left as it is.

    Returns:
        A new model that shares every other weight with the given one.
    """
    folded = nnx.merge(*nnx.split(model))
    blocks = folded.blocks
    scale, shift = _value(blocks.mlp_norm.scale), _value(blocks.mlp_norm.bias)
    kernel, bias = blocks.mlp_in.kernel[...], _value(blocks.mlp_in.bias)
    w_in = kernel.astype(jnp.float32)
    b_in = bias + jnp.einsum("ld,ldm->lm", shift.astype(jnp.float32), w_in, precision=lax.Precision.HIGHEST)
    w_in = w_in * scale.astype(jnp.float32)[:, :, None]
    w_in = w_in - w_in.mean(axis=1, keepdims=True)
    blocks.mlp_in.kernel = nnx.Param(w_in.astype(kernel.dtype))
    blocks.mlp_in.bias = nnx.Param(b_in.astype(bias.dtype))
    blocks.mlp_norm.scale = nnx.Param(jnp.ones_like(scale))
    blocks.mlp_norm.bias = nnx.Param(jnp.zeros_like(shift))
    return folded


def _value(parameter: nnx.Param | None) -> Array:
    assert parameter is not None, "every layer here has its scale and bias"
    return parameter[...]


def _layer_norm(config: GPT2Config, dtype: Any, param_dtype: Any, rngs: nnx.Rngs) -> nnx.LayerNorm:
    # The fast variance, E[x^2] - E[x]^2, loses digits where the mean is large.
    return nnx.LayerNorm(
        config.d_model,
        epsilon=config.layer_norm_epsilon,
        dtype=dtype,
        param_dtype=param_dtype,
        use_fast_variance=False,
        rngs=rngs,
    )


def _linear_maker(config: GPT2Config, dtype: Any, param_dtype: Any, rngs: nnx.Rngs):
    def make(n_in: int, n_out: int, *, writes_residual: bool = False) -> nnx.Linear:
        deviation = 0.02 / (2 * config.n_layers) ** 0.5 if writes_residual else 0.02
        return nnx.Linear(
            n_in,
            n_out,
            dtype=dtype,
            param_dtype=param_dtype,
            preferred_element_type=jnp.float32,
            kernel_init=nnx.initializers.normal(deviation),
            rngs=rngs,
        )

    return make
