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

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class LayerView(NamedTuple):
    """What one layer holds while it runs. All values are for a batch of whole sequences."""

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
    """Tokens that continue sequences in another way, in blocks; the branches of a block are of one sequence."""

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


Reader = Callable[[LayerView], Any]
Editor = Callable[[str, Array, Array], Array]


def read_nothing(view: LayerView) -> None:
    """The reader of a plain forward pass."""


def edit_nothing(name: str, value: Array, layer: Array) -> Array:
    """The editor of an undisturbed forward pass."""
    return value
