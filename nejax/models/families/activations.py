"""Non-linearities under the names that configurations of Hugging Face give them (`ACT2FN` of transformers).

Several names are one function. What has parameters of its own in the weights (`prelu`, `xielu`) is not here.
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array

_gelu = partial(jax.nn.gelu, approximate=False)
_gelu_tanh = partial(jax.nn.gelu, approximate=True)


def _laplace(x: Array) -> Array:
    """The normal distribution function of mean `sqrt(1/2)` and variance `1 / (4 pi)` (Ma et al. 2022, MEGA)."""
    return 0.5 * (1 + jax.lax.erf((x - 0.707107) / (0.282095 * math.sqrt(2))))


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu_new": _gelu_tanh,
    "gelu_fast": _gelu_tanh,
    "gelu_accurate": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "gelu_python_tanh": _gelu_tanh,
    "gelu": _gelu,
    "gelu_python": _gelu,
    "gelu_10": lambda x: jnp.clip(_gelu(x), -10, 10),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "hardswish": jax.nn.hard_swish,
    "mish": jax.nn.mish,
    "relu": jax.nn.relu,
    "relu2": lambda x: jax.nn.relu(x) ** 2,
    "relu6": jax.nn.relu6,
    "leaky_relu": jax.nn.leaky_relu,
    "linear": lambda x: x,
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "laplace": _laplace,
    "sqrtsoftplus": lambda x: jnp.sqrt(jax.nn.softplus(x)),
}
"""Name -> function, element by element."""
