"""A sparse autoencoder inside the model it reads: its reconstruction replaces the value at the site.

How much of the model's next-token prediction survives shows whether the SAE keeps what the model uses.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from nejax.models.reading import Editor
from nejax.models.sae.hook_points import Site


def replace_at(
    site: Site, replacement: Callable[[Array], Array], where: Bool[Array, "batch seq"] | None = None
) -> Editor:
    """The editor that replaces what is at one site of one layer. Elsewhere nothing is computed.

    Args:
        site: where in the model.
        replacement: from the value `[batch, seq, d_model]` to the one to go on with.
        where: positions at which it is replaced; None: all. Leave out the first position and special tokens if the SAE
            was not trained on them: their values are of another size.
    """

    def edit(name: str, value: Array, layer: Array) -> Array:
        if name != site.name:
            return value

        def replaced(value: Array) -> Array:
            new = replacement(value).astype(value.dtype)
            return new if where is None else jnp.where(where[:, :, None], new, value)

        return lax.cond(layer == site.layer, replaced, lambda value: value, value)

    return edit


def reconstruction(sae: Callable[[Array], Array], *, centred: bool = False) -> Callable[[Array], Array]:
    """An SAE's reconstruction of a site's value, as a replacement for `replace_at`.

    Args:
        sae: from inputs to their reconstructions.
        centred: whether it expects inputs whose mean over `d_model` is 0, as a model with centred writing weights has
            them. The mean is put back: a LayerNorm after the site subtracts it anyway.
    """

    def replacement(value: Float[Array, "batch seq d_model"]) -> Float[Array, "batch seq d_model"]:
        value = value.astype(jnp.float32)
        mean = value.mean(axis=-1, keepdims=True) if centred else jnp.zeros(())
        return sae(value - mean) + mean

    return replacement


def loss_recovered(clean: float, spliced: float, ablated: float) -> float:
    """`(ablated - spliced) / (ablated - clean)`: 1 if the model predicts as well as before, 0 if as badly as without.

    Args:
        clean: cross-entropy of the model as it is.
        spliced: with the SAE's reconstruction in the place of what it reads.
        ablated: with zeros there, or with the mean.

    Returns:
        NaN where the ablation changes nothing.
    """
    return (ablated - spliced) / (ablated - clean) if ablated != clean else float("nan")
