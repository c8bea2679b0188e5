"""Gated neurons, each read as two: the side of its positive extremes, and that of its negative ones.

The activation of a gated neuron, `silu(x . w_gate) * (x . w_up)`, has extremes of both signs, with different causes:
`x . w_up` has another sign. So each neuron is two units: unit `j` of `d_mlp` is the neuron's positive side with the
activation as it is, unit `j + d_mlp` its negative side with the activation times -1. Examples, features and every
measure are those of a side.

**The embedding.** A neuron with one input vector has the embedding `x * w`. This one has two:

- `gate`: `x * w_gate`, what opens the neuron. Its entries sum to the gate's pre-activation.
- `gate_and_up`: both, `[x * w_gate / |w_gate|, x * w_up / |w_up|]`, of width `2 d_model`. Each half is divided by the
  length of its weights: the function does not change if `w_up` is multiplied by a number and the neuron's output
  weights divided by it, so the embedding must not change either. Scalar products of such embeddings are
  `sum_d (u_d^2 + v_d^2) x_d y_d`, with `u` and `v` the two unit vectors: they are those of `x * w` with
  `w = sqrt(u^2 + v^2)`, of width `d_model`. Distances, clusters, directions and the streaming measures need no more
  than scalar products, so this one `w` replaces the input weights everywhere.

The gradient of the activation, `x * (silu'(g) (x . w_up) w_gate + silu(g) w_up)`, would be an embedding too. But its
weights change with every input: no direction could be compared with a new input by one matrix product, and no measure
could be streamed.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from nejax.models.choices import EmbedBy
from nejax.models.families.transformer import Transformer
from nejax.models.reading import Branches, Editor, LayerView, Reader, edit_nothing, read_nothing


class TwoSided(nnx.Module):
    """A model of gated neurons with each neuron's sides as units of their own.

    Args:
        model: one whose `is_gated` is true.
        embed_by: whose input weights `input_weights` gives.
    """

    sides = 2

    def __init__(self, model: Transformer, embed_by: EmbedBy):
        self.config = model.config
        self.model = model
        self.embed_by: EmbedBy = embed_by

    def __call__(
        self, tokens: Int[Array, "batch seq"], *, reader: Reader = read_nothing, editor: Editor = edit_nothing
    ) -> tuple[Float[Array, "batch seq vocab_size"], Any]:
        """Run the model; see `nejax.models.families.transformer.Transformer`.

        Args:
            tokens: the sequences.
            reader: sees `activation` and `pre_activation`, the gate's, of all units: `[batch, seq, 2 d_mlp]`.
            editor: sees those of the neurons, `[batch, seq, d_mlp]`.
        """
        return self.model(tokens, reader=_of_both_sides(reader), editor=editor)

    def read_branches(
        self, tokens: Int[Array, "batch seq"], branches: Branches, *, reader: Reader, editor: Editor = edit_nothing
    ) -> Any:
        """Other continuations of sequences; see `nejax.models.families.transformer.Transformer.read_branches`.

        Args:
            tokens: the sequences.
            branches: see `nejax.models.reading`.
            reader: of the branches' tokens, as in a call.
            editor: of the same.
        """
        return self.model.read_branches(tokens, branches, reader=_of_both_sides(reader), editor=editor)

    def embed(self, tokens: Int[Array, "batch seq"], position: Int[Array, "..."]) -> Float[Array, "batch seq d_model"]:
        """The residual stream before the first layer."""
        return self.model.embed(tokens, position)

    def first_layers(self, n: int) -> "TwoSided":
        """The model without its layers from `n` on; it shares its weights with this one."""
        return TwoSided(self.model.first_layers(n), self.embed_by)

    def input_weights(self) -> Float[Array, "n_layers d_model two_d_mlp"]:
        """The input weights of every unit: the gate's, or the one vector that replaces both, in float32."""
        gate = self.model.input_weights().astype(jnp.float32)
        if self.embed_by == "gate_and_up":
            of_layers = jax.vmap(jax.vmap(gate_and_up, (1, 1), 1))
            gate = of_layers(gate, self.model.up_weights().astype(jnp.float32))
        return jnp.concatenate([gate, gate], axis=-1)

    def input_bias(self) -> Float[Array, "n_layers two_d_mlp"]:
        """What is added to the gate's pre-activation."""
        bias = self.model.input_bias()
        return jnp.concatenate([bias, bias], axis=-1)


def _of_both_sides(reader: Reader) -> Reader:
    """A reader of units, as one of neurons."""

    def read(view: LayerView) -> Any:
        activation = jnp.concatenate([view.activation, -view.activation], axis=-1)
        pre_activation = jnp.concatenate([view.pre_activation, view.pre_activation], axis=-1)
        return reader(view._replace(activation=activation, pre_activation=pre_activation))

    return read


def gate_and_up(gate: Float[Array, " d_model"], up: Float[Array, " d_model"]) -> Float[Array, " d_model"]:
    """The one vector that replaces both of a neuron's: `sqrt(u^2 + v^2)` of the two at length 1; zeros stay zeros."""

    def squares(w: Float[Array, " d_model"]) -> Float[Array, " d_model"]:
        length = jnp.sum(w * w)
        return w * w / jnp.where(length > 0, length, 1.0)

    return jnp.sqrt(squares(gate) + squares(up))
