"""A classifier with one hidden layer in Flax NNX, whose neurons and their effect on the classes can be read."""

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Int


class MLP(nnx.Module):
    """`activation = relu(x @ W_in + b_in)`, `logits = activation @ W_out + b_out`.

    Args:
        d_in: width of the inputs: the pixels of an image.
        d_hidden: number of neurons.
        n_classes: number of logits.
        rngs: source of the weights, uniform within `1 / sqrt(fan-in)`; biases start at 0.
    """

    def __init__(self, d_in: int, d_hidden: int, n_classes: int, *, rngs: nnx.Rngs):
        def weights(rows: int, columns: int) -> nnx.Param:
            bound = rows**-0.5
            return nnx.Param(jax.random.uniform(rngs.params(), (rows, columns), minval=-bound, maxval=bound))

        self.W_in, self.b_in = weights(d_in, d_hidden), nnx.Param(jnp.zeros(d_hidden))
        self.W_out, self.b_out = weights(d_hidden, n_classes), nnx.Param(jnp.zeros(n_classes))

    def pre_activation(self, x: Float[Array, "*b d_in"]) -> Float[Array, "*b d_hidden"]:
        """The hidden neurons before their non-linearity."""
        return x @ self.W_in[...] + self.b_in[...]

    def activation(self, x: Float[Array, "*b d_in"]) -> Float[Array, "*b d_hidden"]:
        """The hidden neurons: `relu(pre_activation)`."""
        return jax.nn.relu(self.pre_activation(x))

    def logits(self, activation: Float[Array, "*b d_hidden"]) -> Float[Array, "*b n_classes"]:
        """The classes' scores, from the hidden neurons."""
        return activation @ self.W_out[...] + self.b_out[...]

    def __call__(self, x: Float[Array, "*b d_in"]) -> Float[Array, "*b n_classes"]:
        """The classes' scores."""
        return self.logits(self.activation(x))

    def input_weights(self) -> Float[Array, "d_in d_hidden"]:
        """What each hidden neuron looks for, a column a neuron."""
        return self.W_in[...]

    def class_effects(self, directions: Float[Array, "n d_hidden"]) -> Float[Array, "n n_classes"]:
        """What a step of 1 along each direction of the hidden layer adds to the classes' scores.

        Of a neuron this is its row of `W_out`; of a latent of a sparse autoencoder, `W_dec[j] @ W_out`.
        """
        return directions @ self.W_out[...]


def cross_entropy(mlp: MLP, x: Float[Array, "b d_in"], labels: Int[Array, " b"]) -> Float[Array, ""]:
    """Mean over a batch of `-log softmax(logits)[label]`, in nats."""
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(mlp(x), labels))
