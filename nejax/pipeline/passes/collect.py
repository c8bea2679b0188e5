"""Stream the sequences through the model once; keep what excites every neuron most, and how its activation is spread.

For all neurons of all layers at once: the best K examples, how often the neuron fires, and the moments of its
activation. Everything is reduced inside the layers' scan, so that no activation outlives its layer.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from nejax.models.reading import LayerView
from nejax.neuron._kernels.one_kernel import layer_program
from nejax.neuron.streaming.activation_summary import ActivationSummary, summarize_activations
from nejax.neuron.streaming.moments import Moments, merge_moments, no_moments
from nejax.neuron.streaming.top_examples import TopExamples, empty_top_examples, update_top_examples_of_layer
from nejax.pipeline.passes.peaks import PeakRule
from nejax.pipeline.passes.stream import Pieces, refuse_non_finite, stream
from nejax.pipeline.run.checkpoints import Checkpoints
from nejax.pipeline.run.devices import AXIS, fetch, fill_up, mesh_or_all, place, up_to_devices
from nejax.pipeline.run.results import from_store, to_store
from nejax.pipeline.run.spread import EVERYWHERE, ROWS, ReplicatedModel


class Collection(NamedTuple):
    """What collection knows of every neuron so far. All fields have leading axes `n_layers`, `d_mlp`.

    Example:
        >>> found = nejax.collect(nejax.load_model("gpt2-tiny").model, np.array([[0, 5, 9, 5]]), keep=2)
        >>> found.examples.sequence[0, 185].tolist(), found.moments.count[0, 185].item()
        ([0, -1], 3.0)
    """

    examples: TopExamples
    """The best K examples, strongest first."""
    n_fired: Int[Array, "n_layers d_mlp"]
    """At how many tokens the activation was above 0."""
    moments: Moments
    """Of the activation over all tokens that can be a peak."""


def empty_collection(n_layers: int, d_mlp: int, keep: int) -> Collection:
    """What is known before the first batch."""

    shape = n_layers, d_mlp
    examples = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (*shape, keep)), empty_top_examples(keep))
    return Collection(examples, jnp.zeros(shape, jnp.int32), no_moments(*shape))


def collect(
    model: Any,
    sequences: Pieces,
    *,
    keep: int,
    rule: PeakRule,
    batch_size: int,
    mesh: Mesh | None = None,
    progress: Callable[[int], object] = lambda n_tokens: None,
    checkpoints: Checkpoints | None = None,
) -> Collection:
    """Stream all sequences through the model, spread over devices.

    Sequences are spread over the devices for the pass of the model, and neurons to keep their best examples: what is
    known is held once, however many devices there are. Equal activations are settled by the lower sequence number, then
    the lower position, so that neither batches nor devices change what is found, beyond the rounding of products of
    other shapes.

    Args:
        model: see `nejax.models.reading`.
        sequences: the corpus from a given sequence number on, in pieces of any size. Called once, with 0 or with the
            number where an interrupted collection goes on.
        keep: K, how many examples each neuron keeps.
        rule: which tokens may be a peak.
        batch_size: sequences a pass, on all devices together; filled up to a multiple of their number.
        mesh: the devices, see `nejax.pipeline.run.devices.mesh_of`; all of them, if None.
        progress: called with the number of tokens of each batch.
        checkpoints: from which an interrupted collection resumes, and where it saves itself. Left for the caller to
            remove when the result is safe.

    Returns:
        The collection, as NumPy arrays.

    Raises:
        UserError: an activation is not finite (names the layers), or there is no sequence.
    """
    n_layers, _, d_mlp = model.input_weights().shape
    mesh, saved = mesh_or_all(mesh), checkpoints or Checkpoints()
    model, rule, batch_size = ReplicatedModel.on(mesh, model), place(rule, mesh), up_to_devices(batch_size, mesh)
    start, before = saved.latest() or (0, to_store(empty_collection(n_layers, d_mlp, keep)))
    carry = _spread(from_store(Collection, before), mesh), place(np.ones(n_layers, bool), mesh)
    with jax.transfer_guard("disallow"):  # nothing moves between host and device but what is said to
        for step in stream(sequences, start, batch_size=batch_size, mesh=mesh, progress=progress):
            carry = _add_batch(carry, model, step.batch, rule)
            if step.is_look:
                refuse_non_finite(fetch(carry[1]))
                if saved.due():
                    saved.save(step.done, to_store(_whole(carry[0], d_mlp)))
        refuse_non_finite(fetch(carry[1]))
        return _whole(carry[0], d_mlp)


def _spread(collection: Collection, mesh: Mesh) -> Collection:
    """Put a collection on the devices, the neurons spread; dead ones fill up the last."""
    n_neurons = up_to_devices(collection.n_fired.shape[1], mesh)
    filled = jax.tree.map(lambda x: fill_up(np.asarray(x), n_neurons, axis=1), collection)
    return place(filled, mesh, None, AXIS)


def _whole(collection: Collection, d_mlp: int) -> Collection:
    return jax.tree.map(lambda x: x[:, :d_mlp], fetch(collection))


Carry = tuple[Collection, Bool[Array, " n_layers"]]
"""What is known so far, and which layers' activations were finite."""


@partial(jax.jit, donate_argnames="carry")
@layer_program
def _add_batch(carry: Carry, model: ReplicatedModel, batch: Any, rule: PeakRule) -> Carry:
    """Add a batch to the collection."""
    collection, finite = carry
    tokens, length, sequence = batch
    can_peak = rule.allows(tokens, length)

    def of_rows(model: Any, rows: tuple[Array, Array]) -> tuple[Array, Array, tuple[Array, Moments]]:
        tokens, can_peak = rows

        def read(view: LayerView) -> ActivationSummary:
            return summarize_activations(view.activation, can_peak)

        found = model(tokens, reader=read)[1]
        return found.peak, found.position, jax.tree.map(lambda x: x[None], (found.n_fired, found.moments))

    second = PartitionSpec(None, AXIS)
    peak, position, counts = model.over_rows(of_rows, (tokens, can_peak), out=(second, second, ROWS))

    # From here on each device has some of the neurons, and all rows.
    missing = collection.n_fired.shape[1] - peak.shape[2]
    counts = jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (0, 0), (0, missing))), counts)
    peak, position = (jnp.pad(x, ((0, 0), (0, 0), (0, missing))) for x in (peak, position))
    third = PartitionSpec(None, None, AXIS)
    in_specs = (second, third, third, EVERYWHERE, third)
    spread_neurons = jax.shard_map(_add, mesh=model.mesh, in_specs=in_specs, out_specs=second)
    collection = spread_neurons(collection, peak, position, sequence, counts)
    return collection, finite & jnp.isfinite(collection.moments.mean).all(axis=1)


def _add(
    collection: Collection,
    peak: Float[Array, "n_layers batch neurons"],
    position: Int[Array, "n_layers batch neurons"],
    sequence: Int[Array, " batch"],
    counts: tuple[Int[Array, "parts n_layers neurons"], Moments],
) -> Collection:
    """Add what a batch has of some neurons."""
    n_layers, _, n_neurons = peak.shape
    by_neuron = [x.swapaxes(1, 2).reshape(n_layers * n_neurons, -1) for x in (peak, position)]
    buffers = jax.tree.map(lambda x: x.reshape(n_layers * n_neurons, -1), collection.examples)
    buffers = update_top_examples_of_layer(buffers, by_neuron[0], sequence, by_neuron[1])
    n_fired, moments = counts
    return Collection(
        examples=jax.tree.map(lambda x: x.reshape(n_layers, n_neurons, -1), buffers),
        n_fired=collection.n_fired + n_fired.sum(axis=0),
        moments=lax.scan(lambda all_, part: (merge_moments(all_, part), None), collection.moments, moments)[0],
    )
