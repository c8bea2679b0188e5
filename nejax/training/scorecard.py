"""The evaluation of an SAE on text: alone, spliced into its model, and next to the model's own neurons."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from nejax.models.families.transformer import Transformer
from nejax.models.sae.architectures import SAE
from nejax.models.sae.hook_points import Site
from nejax.models.sae.splice import loss_recovered, reconstruction, replace_at
from nejax.neuron.streaming.unit_measures import UnitMeasures, measure_units
from nejax.pipeline.corpus.windows import Sequences
from nejax.pipeline.run.devices import fetch, mesh_or_all, place, up_to_devices
from nejax.pipeline.run.spread import in_chunks
from nejax.training.language_model import next_token_losses

LEVELS = (0.0, 0.25, 0.5, 0.75)
"""Fractions of a unit's own maximum above which it counts as firing."""


class SpliceLosses(NamedTuple):
    """Cross-entropies of a model in nats a token, with different things at one site."""

    clean: float
    """What the model has there."""
    spliced: float
    """The SAE's reconstruction."""
    zero: float
    """Zeros: zero-ablation."""
    mean: float
    """The mean of what is there over the text: mean-ablation."""

    def numbers(self) -> dict[str, float]:
        """The losses, and `loss recovered` against either ablation, for JSON."""
        return self._asdict() | {
            "recovered": loss_recovered(self.clean, self.spliced, self.zero),
            "recovered_from_mean": loss_recovered(self.clean, self.spliced, self.mean),
        }


def splice_losses(
    model: Transformer,
    site: Site,
    sae: SAE,
    sequences: Sequences,
    where: Bool[np.ndarray, "n seq"],
    mean: Float[np.ndarray, " d_model"],
    *,
    centred: bool = False,
    batch_size: int = 16,
    mesh: Mesh | None = None,
    progress: Callable[[int], object] = lambda n_tokens: None,
) -> SpliceLosses:
    """The losses of a model on some text as it is, with an SAE spliced in, and with its site ablated.

    Args:
        model: the whole of it.
        site: what the SAE reads.
        sae: any of the four.
        sequences: the text; every token of it counts but the first of each sequence.
        where: the positions at which something takes the place of what is there; elsewhere it stays.
        mean: of the SAE's inputs over these positions.
        centred: see `nejax.models.sae.splice.reconstruction`.
        batch_size: sequences a pass, on all devices together.
        mesh: the devices, see `nejax.pipeline.run.devices.mesh_of`; all of them, if None.
        progress: called with the number of tokens of each batch, once for each of the four.
    """
    (graph, state), (sae_graph, sae_state) = nnx.split(model), nnx.split(sae)
    mesh = mesh_or_all(mesh)
    given = place((state, sae_state, jnp.asarray(mean)), mesh)
    static = {"graph": graph, "sae_graph": sae_graph, "site": site, "centred": centred}
    tokens, length = (values.astype(np.int32) for values in (sequences.tokens, sequences.length))
    sums = np.zeros(len(SpliceLosses._fields))
    for rows, batch in in_chunks((tokens, length, where), up_to_devices(batch_size, mesh), mesh):
        for kind in range(len(sums)):
            losses = _losses(*given, *batch, place(np.int32(kind), mesh), **static)
            sums[kind] += fetch(losses).sum(dtype=np.float64)
            progress(int(length[rows].sum()))
    return SpliceLosses(*(sums / np.maximum(length - 1, 0).sum()).tolist())


@functools.partial(jax.jit, static_argnames=("graph", "sae_graph", "site", "centred"))
def _losses(
    state: nnx.State,
    sae_state: nnx.State,
    mean: Float[Array, " d_model"],
    tokens: Int[Array, "batch seq"],
    length: Int[Array, " batch"],
    where: Bool[Array, "batch seq"],
    kind: Int[Array, ""],
    *,
    graph: nnx.GraphDef,
    sae_graph: nnx.GraphDef,
    site: Site,
    centred: bool,
) -> Float[Array, "batch seq-1"]:
    """The losses of each token, with one of four things at the site, in the order of `SpliceLosses`."""

    def replacement(value: Array) -> Array:
        instead = (nnx.merge(sae_graph, sae_state), lambda x: jnp.broadcast_to(mean, x.shape))
        spliced, constant = (reconstruction(sae, centred=centred) for sae in instead)
        things = (lambda value: value, spliced, jnp.zeros_like, constant)
        return lax.switch(
            kind, [lambda value, thing=thing: thing(value).astype(value.dtype) for thing in things], value
        )

    logits, _ = nnx.merge(graph, state)(tokens, editor=replace_at(site, replacement, where))
    return next_token_losses(logits, tokens, length)


class Units(NamedTuple):
    """Neurons of a layer, or latents."""

    w_in: Array
    """`[d, n]` their input weights."""
    activation: Callable[[Any, Array], Array]
    """`(of, inputs [b, d]) -> [b, n]`."""
    of: Any
    """Arrays that the activation needs."""


def neurons_of(model: Transformer, layer: int) -> Units:
    """The neurons of one layer; they read `mlp_input`. Of gated ones, the gate's weights count as the input weights."""
    graph, blocks = nnx.split(model.blocks)

    def activation(state: nnx.State, x: Float[Array, "b d"]) -> Float[Array, "b n"]:
        block, one = nnx.merge(graph, state), x[None]
        return block.activate(block.mlp_in(one), one)[0]

    of_layer = jax.tree.map(lambda leaf: leaf[layer], blocks)
    return Units(model.input_weights()[layer].astype(jnp.float32), activation, of_layer)


def latents_of(sae: SAE) -> Units:
    """The latents of an SAE; they read its inputs as `SAE.read` gives them."""
    graph, state = nnx.split(sae)

    def activation(state: nnx.State, x: Float[Array, "b d"]) -> Float[Array, "b n"]:
        sae = nnx.merge(graph, state)
        return sae.activate(sae.pre_activation(x))

    return Units(sae.W_enc[...], activation, state)


def measure_at_levels(
    x: Float[np.ndarray, "n_inputs d"],
    units: Units,
    *,
    levels: Sequence[float] = LEVELS,
    n_examples: int = 100,
    height: float = 0.05,
    batch_size: int = 4096,
) -> list[UnitMeasures]:
    """The measures of units over the first inputs at which each is above a fraction of its own maximum.

    At one level, latents that fire rarely and neurons that always fire a little can be compared: both have the examples
        that excite them that strongly.

    Args:
        x: `[n_inputs, d]` what the units read, on the host.
        units: which.
        levels: the fractions, from 0 up to, not including, 1. At 0 a unit counts where it is above 0.
        n_examples, height, batch_size: see `nejax.neuron.streaming.unit_measures.measure_units`.

    Returns:
        The measures at each level.
    """
    activation = units.activation

    @jax.jit
    def highest(of: Any, x: Float[Array, "b d"]) -> Float[Array, " n"]:
        return activation(of, x).max(axis=0)

    def fires(of: tuple[Any, Array], x: Float[Array, "b d"]) -> Bool[Array, "b n"]:
        return activation(of[0], x) > of[1]

    batches = (x[start : start + batch_size] for start in range(0, len(x), batch_size))
    maximum = functools.reduce(jnp.maximum, (highest(units.of, batch) for batch in batches), jnp.zeros(()))
    settings = {"n_examples": n_examples, "height": height, "batch_size": batch_size}
    return [measure_units(x, units.w_in, fires, (units.of, level * maximum), **settings) for level in levels]
