"""What decoder-only transformers share: blocks stacked along a leading layer axis, run by one `lax.scan`.

A reader and an editor (see `nejax.models.reading`) see every layer of the pass. Each family of models defines its
attention, blocks and embeddings in a file of its own.

Norms, softmax, the residual stream and every sum of products are float32 whatever the type of the weights.
"""

import abc
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from nejax.models.reading import Branches, Editor, LayerView, Reader, edit_nothing, read_nothing


@runtime_checkable
class TransformerConfig(Protocol):
    """What every family's configuration has."""

    @property
    def vocab_size(self) -> int: ...  # noqa: D102
    @property
    def n_positions(self) -> int: ...  # noqa: D102
    @property
    def d_model(self) -> int: ...  # noqa: D102
    @property
    def n_layers(self) -> int: ...  # noqa: D102
    @property
    def d_mlp(self) -> int: ...  # noqa: D102


class Attention(nnx.Module):
    """Causal self-attention. A family defines `heads`, which computes queries, keys and values, and sets `output`."""

    output: nnx.Linear

    @abc.abstractmethod
    def heads(
        self, x: Float[Array, "batch seq d_model"], position: Int[Array, "..."]
    ) -> tuple[
        Float[Array, "batch n_heads seq d_head"],
        Float[Array, "batch n_kv_heads seq d_head"],
        Float[Array, "batch n_kv_heads seq d_head"],
    ]:
        """Queries, keys and values of tokens at these positions, `[seq]` or `[batch, seq]`."""

    def __call__(self, x: Float[Array, "batch seq d_model"]) -> Float[Array, "batch seq d_model"]:
        """Attention in which each position sees itself and those before it."""
        seq = x.shape[1]
        return self._mix(*self.heads(x, jnp.arange(seq)), jnp.tri(seq, dtype=bool))

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
        query, key, value = self.heads(x, branches.position)
        _, *before = self.heads(sequences, jnp.arange(sequences.shape[1]))
        key, value = (
            jnp.concatenate([of_sequences[branches.sequence], own], axis=2)
            for of_sequences, own in zip(before, (key, value), strict=True)
        )
        return self._mix(query, key, value, sees)

    def _mix(
        self,
        query: Float[Array, "batch n_heads queries d_head"],
        key: Float[Array, "batch n_kv_heads keys d_head"],
        value: Float[Array, "batch n_kv_heads keys d_head"],
        sees: Bool[Array, "..."],
    ) -> Float[Array, "batch queries d_model"]:
        """Each query's mean of the values it sees, weighted by how well their keys fit, through the output matrix.

        Queries may share keys and values, in groups of equal size (Ainslie et al. 2023, arXiv 2305.13245).
        """
        n_heads, n_kv_heads = query.shape[1], key.shape[1]
        if n_kv_heads != n_heads:
            key, value = (jnp.repeat(x, n_heads // n_kv_heads, axis=1) for x in (key, value))
        # jax.nn.dot_product_attention asks for products that a CPU does not have in float16.
        scores = jnp.einsum("bhqd,bhkd->bhqk", query, key, preferred_element_type=jnp.float32)
        scores = jnp.where(sees, scores * query.shape[-1] ** -0.5, -jnp.inf)
        weights = jax.nn.softmax(scores).astype(value.dtype)
        mixed = jnp.einsum("bhqk,bhkd->bhqd", weights, value, preferred_element_type=jnp.float32)
        return self.output(mixed.transpose(0, 2, 1, 3).reshape(query.shape[0], query.shape[2], -1))


class Block(nnx.Module):
    """One layer: attention and an MLP, each reading the normalised residual stream and adding to it.

    A family sets the parts, and defines `activate`, from the pre-activation to the activation.
    """

    attention_norm: Callable[[Array], Array]
    attention: Attention
    mlp_norm: Callable[[Array], Array]
    mlp_in: nnx.Linear
    mlp_out: nnx.Linear

    @abc.abstractmethod
    def activate(
        self, pre_activation: Float[Array, "batch seq d_mlp"], mlp_input: Float[Array, "batch seq d_model"]
    ) -> Float[Array, "batch seq d_mlp"]:
        """The neurons' activations."""

    def __call__(
        self,
        residual: Float[Array, "batch seq d_model"],
        layer: Int[Array, ""],
        editor: Editor,
        attention: Callable[[Array], Array] | None = None,
    ) -> tuple[Float[Array, "batch seq d_model"], LayerView]:
        """Run the layer; return the residual stream after it and everything a reader may use.

        Args:
            residual: the stream before it.
            layer: its index.
            editor: see `nejax.models.reading`.
            attention: replaces the layer's own attention.
        """
        resid_pre = editor("resid_pre", residual, layer)
        resid_mid = resid_pre + (attention or self.attention)(self.attention_norm(resid_pre))
        resid_mid = editor("resid_mid", resid_mid, layer)
        mlp_input = editor("mlp_input", self.mlp_norm(resid_mid), layer)
        pre_activation = editor("pre_activation", self.mlp_in(mlp_input), layer)
        activation = editor("activation", self.activate(pre_activation, mlp_input), layer)
        mlp_output = editor("mlp_output", self.mlp_out(activation), layer)
        resid_post = editor("resid_post", resid_mid + mlp_output, layer)
        view = LayerView(layer, resid_pre, resid_mid, mlp_input, pre_activation, activation, mlp_output, resid_post)
        return resid_post, view


class Transformer(nnx.Module):
    """A language model. A family's `__init__` takes a configuration, `dtype` (of the operands of products),
    `param_dtype` (of the weights) and `rngs`, and sets the parts below; the family also defines `folded`.
    """

    config: Any
    token_embedding: nnx.Embed
    blocks: Any
    final_norm: Callable[[Array], Array]
    head: nnx.Embed | None
    """The matrix of an untied head; None: the token embedding's."""

    is_gated: bool = False
    """Whether a neuron's activation is a product of two terms, so that its extremes have both signs. The blocks of
    such a model have `mlp_up` beside `mlp_in`, which is the gate."""

    sides = 1

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
                gains a fifth, because XLA runs element-wise work inside a loop on one core.

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
        normed, head = self.final_norm(residual), (self.head or self.token_embedding).embedding[...]
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

        The sequences themselves run too, unedited and without a reader: in every layer, a branch's tokens look at the
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
        """The length of sequences; refused if the model has fewer positions."""
        seq = tokens.shape[1]
        if seq > self.config.n_positions:
            raise ValueError(f"sequences of {seq} tokens; this model has {self.config.n_positions} positions")
        return seq

    def embed(self, tokens: Int[Array, "batch seq"], position: Int[Array, "..."]) -> Float[Array, "batch seq d_model"]:
        """The residual stream before the first layer, of tokens at these positions."""
        return self.token_embedding(tokens).astype(jnp.float32)

    def first_layers(self, n: int) -> "Transformer":
        """The model without its layers from `n` on, for readers of earlier layers.

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
        """The input weights of every neuron: `W_in[layer, :, neuron]`."""
        return self.blocks.mlp_in.kernel[...]

    def input_bias(self) -> Float[Array, "n_layers d_mlp"]:
        """What is added to `mlp_input @ W_in` before the non-linearity."""
        return bias_of(self.blocks.mlp_in)

    def up_weights(self) -> Float[Array, "n_layers d_model d_mlp"]:
        """The second input vector of every gated neuron, `w_up`; `input_weights` has the first, `w_gate`."""
        return self.blocks.mlp_up.kernel[...]

    def up_bias(self) -> Float[Array, "n_layers d_mlp"]:
        """What is added to `mlp_input @ w_up`."""
        return bias_of(self.blocks.mlp_up)

    @abc.abstractmethod
    def folded(self) -> "Transformer":
        """The same function with the norm before the MLP folded into the input weights; weights are shared."""


def bias_of(linear: nnx.Linear) -> Float[Array, "n_layers n_out"]:
    """The bias of a matrix in stacked blocks; zeros if it has none."""
    return linear.bias[...] if linear.bias is not None else jnp.zeros(linear.kernel.shape[::2], jnp.float32)


def stacked(n_layers: int, make: Callable[[nnx.Rngs], nnx.Module], rngs: nnx.Rngs) -> Any:
    """Blocks with a leading layer axis in every parameter, initialised independently."""
    return nnx.split_rngs(splits=n_layers)(nnx.vmap(make, in_axes=0, out_axes=0))(rngs)


class PartMaker:
    """Makes a model's parts, all of one type of weights and products.

    Args:
        config: the model's.
        dtype: see `Transformer`.
        param_dtype: see `Transformer`.
        rngs: see `Transformer`.
    """

    def __init__(self, config: TransformerConfig, *, dtype: Any, param_dtype: Any, rngs: nnx.Rngs):
        self._config = config
        self._types = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}

    def linear(self, n_in: int, n_out: int, *, use_bias: bool = True, writes_residual: bool = False) -> nnx.Linear:
        """A matrix, and a bias where wanted.

        Initial weights are normal with deviation 0.02, divided by `sqrt(2 n_layers)` where they write to the residual
        stream (Radford et al. 2019, section 2.3).
        """
        deviation = 0.02 / (2 * self._config.n_layers) ** 0.5 if writes_residual else 0.02
        init = nnx.initializers.normal(deviation)
        return nnx.Linear(
            n_in, n_out, use_bias=use_bias, preferred_element_type=jnp.float32, kernel_init=init, **self._types
        )

    def embedding(self, n: int) -> nnx.Embed:
        """A row of width `d_model` for each of `n` ids, at first normal with deviation 0.02."""
        return nnx.Embed(n, self._config.d_model, embedding_init=nnx.initializers.normal(0.02), **self._types)

    def layer_norm(self, epsilon: float) -> nnx.LayerNorm:
        """LayerNorm over `d_model`, with scale and shift."""
        # The fast variance, E[x^2] - E[x]^2, loses digits where the mean is large.
        return nnx.LayerNorm(self._config.d_model, epsilon=epsilon, use_fast_variance=False, **self._types)

    def rms_norm(self, epsilon: float) -> nnx.RMSNorm:
        """RMSNorm over `d_model` (Zhang and Sennrich 2019, arXiv 1910.07467), with a scale."""
        return nnx.RMSNorm(self._config.d_model, epsilon=epsilon, **self._types)
