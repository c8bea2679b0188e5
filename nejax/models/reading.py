"""What a model offers the rest of the library: a look at every layer from inside one forward pass.

A model is anything with `input_weights()` of shape `[n_layers, d_model, d_mlp]`, `input_bias()` of shape
`[n_layers, d_mlp]`, and a call that takes tokens, a reader and an editor.

A *reader* is a pure function of one layer's `LayerView`. It runs inside the `lax.scan` over the layers, so what it
returns should be small; the results come back stacked over the layers. XLA drops what a reader ignores.

An *editor* is a pure function `(name, value, layer) -> value`, called with each named value of `LayerView` as soon as
it is computed; what it returns (same shape and dtype) is what the model goes on with. This is how a neuron is silenced
or a sparse autoencoder spliced in.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array, Float, Int


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


Reader = Callable[[LayerView], Any]
Editor = Callable[[str, Array, Array], Array]


def read_nothing(view: LayerView) -> None:
    """The reader of a plain forward pass."""


def edit_nothing(name: str, value: Array, layer: Array) -> Array:
    """The editor of an undisturbed forward pass."""
    return value
