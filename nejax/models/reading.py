"""The interface of models to the rest of the library: access to every layer inside one forward pass.

A model is anything with `input_weights()` of shape `[n_layers, d_model, d_mlp]`, `input_bias()` of shape
`[n_layers, d_mlp]`, and a call that takes tokens, a reader and an editor. Its `sides` is 2 if every neuron is two units
(see `nejax.models.families.two_sided`), else 1. For token importance it also has `read_branches`, which takes tokens,
`Branches`, a reader and an editor, and `embed`, from tokens and their positions to the residual stream before the first
layer, and `first_layers(n)`, the same model without its layers from `n` on.

A *reader* is a pure function of one layer's `LayerView`. It runs inside the `lax.scan` over the layers, so what it
returns should be small; the results come back stacked over the layers. XLA drops what a reader ignores.

An *editor* is a pure function `(name, value, layer) -> value`, called with each named value of `LayerView` as soon as
it is computed; the model continues with what it returns (same shape and dtype). This is how a neuron is ablated or a
sparse autoencoder spliced in.

*Branches* are other continuations of sequences: from some position on, the tokens are different ones. They cost only
their own tokens, since attention is causal: the earlier keys and values are the sequence's.
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class LayerView(NamedTuple):
    """What one layer holds while it runs. All values are for a batch of whole sequences.

    Example:
        >>> model, tokens = nejax.load_model("gpt2-tiny").model, jnp.zeros((1, 4), int)
        >>> model(tokens, reader=lambda view: view.activation.max(axis=1))[1].shape  # [n_layers, batch, d_mlp]
        (4, 1, 1024)
    """

    layer: Int[Array, ""]
    """The layer's index, traced: it can index arrays stacked over the layers."""
    resid_pre: Float[Array, "batch seq d_model"]
    """The residual stream as it enters the layer."""
    resid_mid: Float[Array, "batch seq d_model"]
    """The residual stream after attention, before the MLP's LayerNorm."""
    mlp_input: Float[Array, "batch seq d_model"]
    """What the MLP multiplies by its input weights: the residual stream after LayerNorm."""
    pre_activation: Float[Array, "batch seq d_mlp"]
    """`mlp_input @ W_in + b_in`, in float32."""
    activation: Float[Array, "batch seq d_mlp"]
    """The neurons' values after the non-linearity, in float32."""
    mlp_output: Float[Array, "batch seq d_model"]
    """What the MLP adds to the residual stream."""
    resid_post: Float[Array, "batch seq d_model"]
    """The residual stream as it leaves the layer."""


class Branches(NamedTuple):
    """Tokens that continue sequences in another way, in blocks; the branches of a block are of one sequence.

    Example:
        >>> one = np.zeros((1, 2), int)  # a block of two tokens, after the first of a sequence of three
        >>> branch = nejax.Branches(sequence=np.zeros(1, int), tokens=one + 7, position=one + [1, 2], start=one + 1)
        >>> print(branch.sees(3)[0].astype(int))
        [[1 0 0 1 0]
         [1 0 0 1 1]]
    """

    sequence: Int[Array, " blocks"]
    """The sequence that each block's branches leave."""
    tokens: Int[Array, "blocks rows"]
    position: Int[Array, "blocks rows"]
    """Of each token; of one branch, all different. Positions need not follow each other in the block."""
    start: Int[Array, "blocks rows"]
    """The position at which the token's branch leaves the sequence, which names the branch in its block: no other
    begins there. Rows that fill a block up are a branch of their own."""

    def sees(self, seq: int) -> Bool[Array, "blocks rows seq_and_rows"]:
        """What each token looks at: the sequence's tokens before its branch, then those of its branch, up to itself."""
        of_sequence = jnp.arange(seq) < self.start[:, :, None]
        together = self.start[:, :, None] == self.start[:, None, :]
        return jnp.concatenate(
            [of_sequence, together & (self.position[:, None, :] <= self.position[:, :, None])], axis=2
        )


@runtime_checkable
class Reader(Protocol):
    """A pure function of one layer's `LayerView`; what it returns comes back stacked over the layers.

    Example:
        >>> def mean_activation(view: nejax.LayerView):
        ...     return view.activation.mean(axis=(0, 1))
        >>> model, tokens = nejax.load_model("gpt2-tiny").model, jnp.zeros((1, 4), int)
        >>> model(tokens, reader=mean_activation)[1].shape
        (4, 1024)
    """

    def __call__(self, view: LayerView, /) -> Any:
        """What should be kept of the layer, a tree of arrays."""
        ...


@runtime_checkable
class Editor(Protocol):
    """A pure function of a named value of `LayerView`; the model goes on with what it returns, of one shape and dtype.

    Example:
        >>> def without_mlps(name, value, layer):
        ...     return 0 * value if name == "mlp_output" else value
        >>> model, tokens = nejax.load_model("gpt2-tiny").model, jnp.zeros((1, 4), int)
        >>> bool((model(tokens, editor=without_mlps)[0] == model(tokens)[0]).all())
        False
    """

    def __call__(self, name: str, value: Array, layer: Array, /) -> Array:
        """The value that takes the place of the given one; `layer` is a traced index."""
        ...


def read_nothing(view: LayerView) -> None:
    """The reader of a plain forward pass."""


def edit_nothing(name: str, value: Array, layer: Array) -> Array:
    """The editor of an undisturbed forward pass."""
    return value
