"""The precision of computations."""

import jax.numpy as jnp
from jaxtyping import Array


def at_least_float32(*arrays: Array) -> jnp.dtype:
    """float64 if any of the arrays has it, float32 otherwise; under every setting of JAX's promotion of types."""
    return jnp.dtype("float64" if any(array.dtype == jnp.float64 for array in arrays) else "float32")
