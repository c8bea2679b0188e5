"""Stream the sequences through the model once; keep what excites every neuron most, and how its activation is spread.

For all neurons of all layers at once: the best K examples, how often the neuron fires, and the moments of its
activation. Everything is reduced inside the layers' scan, so that no activation outlives its layer.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from nejax.errors import UserError
from nejax.models.reading import LayerView
from nejax.neuron._kernels.one_kernel import layer_program
from nejax.neuron.streaming.activation_summary import ActivationSummary, summarize_activations
from nejax.neuron.streaming.moments import Moments, merge_moments, no_moments
from nejax.neuron.streaming.top_examples import TopExamples, empty_top_examples, update_top_examples_of_layer
from nejax.pipeline.corpus.windows import Sequences
from nejax.pipeline.passes.peaks import PeakRule
from nejax.pipeline.run.checkpoints import Checkpoints
from nejax.pipeline.run.devices import AXIS, fetch, fill_up, mesh_of_all, place, up_to_devices
from nejax.pipeline.run.results import from_store, to_store

Batch = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Tokens, lengths and numbers of some sequences, see `batches`."""

CHECK_EVERY = 16
"""Batches between looks at whether everything was finite, and whether a checkpoint is due."""


class Collection(NamedTuple):
    """What collection knows of every neuron so far. All fields have leading axes `n_layers`, `d_mlp`."""

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


Pieces = Callable[[int], Iterable[Sequences]]
"""From a sequence's number to the sequences from it on, in order, in pieces of any size."""


def batches(pieces: Iterable[Sequences], batch_size: int, start: int = 0) -> Iterator[Batch]:
    """Cut pieces of a corpus into batches.

    Args:
        pieces: sequences in order, the first of them number `start`.
        batch_size: rows of every batch; in the last one, missing rows have length 0.
        start: the number of the first sequence.

    Yields:
        Tokens [batch_size, seq_len], lengths [batch_size] and numbers [batch_size] of sequences, all int32.
    """
    waiting: list[tuple[np.ndarray, np.ndarray]] = []
    n_waiting = 0

    def full(rows: list[tuple[np.ndarray, np.ndarray]]) -> Batch:
        tokens, length = (np.concatenate(column).astype(np.int32) for column in zip(*rows, strict=True))
        numbers = np.arange(start, start + batch_size, dtype=np.int32)
        return fill_up(tokens, batch_size), fill_up(length, batch_size), numbers

    for piece in pieces:
        first = 0
        while first < len(piece.length):
            last = first + batch_size - n_waiting
            waiting.append((piece.tokens[first:last], piece.length[first:last]))
            n_waiting += len(waiting[-1][1])
            first = last
            if n_waiting == batch_size:
                yield full(waiting)
                waiting, n_waiting, start = [], 0, start + batch_size
    if waiting:
        yield full(waiting)


def collect(
    model: Any,
    sequences: Pieces,
    *,
    keep: int,
    rule: PeakRule,
    batch_size: int,
    progress: Callable[[int], object] = lambda n_tokens: None,
    checkpoints: Checkpoints | None = None,
) -> Collection:
    """Stream all sequences through the model, spread over all devices.

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
        progress: called with the number of tokens of each batch.
        checkpoints: from which an interrupted collection resumes, and where it saves itself. Left for the caller to
            remove when the result is safe.

    Returns:
        The collection, as NumPy arrays.

    Raises:
        UserError: an activation is not finite (names the layers), or there is no sequence.
    """
    n_layers, _, d_mlp = model.input_weights().shape
    graph, state = nnx.split(model)
    state, batch_size = place(state), up_to_devices(batch_size)
    rule, saved = place(rule), checkpoints or Checkpoints()
    done, before = saved.latest() or (0, to_store(empty_collection(n_layers, d_mlp, keep)))
    carry = _spread(from_store(Collection, before)), place(np.ones(n_layers, bool))
    with jax.transfer_guard("disallow"):  # nothing moves between host and device but what is said to
        for i, batch in enumerate(batches(sequences(done), batch_size, done), start=1):
            carry = _step(carry, state, place(batch, AXIS), rule, graph=graph)
            done += int((batch[1] > 0).sum())
            if i % CHECK_EVERY == 0:  # a look waits for the device
                refuse_non_finite(fetch(carry[1]))
                if saved.due():
                    saved.save(done, to_store(_whole(carry[0], d_mlp)))
            progress(int(batch[1].sum()))
        refuse_non_finite(fetch(carry[1]))
        return _whole(carry[0], d_mlp)


def _spread(collection: Collection) -> Collection:
    """Put a collection on the devices, the neurons spread; dead ones fill up the last."""
    n_neurons = up_to_devices(collection.n_fired.shape[1])
    filled = jax.tree.map(lambda x: fill_up(np.asarray(x), n_neurons, axis=1), collection)
    return place(filled, None, AXIS)


def _whole(collection: Collection, d_mlp: int) -> Collection:
    return jax.tree.map(lambda x: x[:, :d_mlp], fetch(collection))


Carry = tuple[Collection, Bool[Array, " n_layers"]]
"""What is known so far, and which layers' activations were finite."""


@partial(jax.jit, static_argnames="graph", donate_argnames="carry")
@layer_program
def _step(carry: Carry, state: Any, batch: Any, rule: PeakRule, *, graph: Any) -> Carry:
    """Add a batch to the collection."""
    collection, finite = carry
    tokens, length, sequence = batch
    can_peak = rule.allows(tokens, length)
    mesh, everywhere, rows = mesh_of_all(), PartitionSpec(), PartitionSpec(AXIS)

    def run(state: Any, tokens: Array, can_peak: Array) -> tuple[Array, Array, tuple[Array, Moments]]:
        def read(view: LayerView) -> ActivationSummary:
            return summarize_activations(view.activation, can_peak)

        found = nnx.merge(graph, state)(tokens, reader=read)[1]
        return found.peak, found.position, jax.tree.map(lambda x: x[None], (found.n_fired, found.moments))

    of_rows = PartitionSpec(None, AXIS)
    spread_rows = jax.shard_map(run, mesh=mesh, in_specs=(everywhere, rows, rows), out_specs=(of_rows, of_rows, rows))
    peak, position, counts = spread_rows(state, tokens, can_peak)

    # From here on each device has some of the neurons, and all rows.
    missing = collection.n_fired.shape[1] - peak.shape[2]
    counts = jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (0, 0), (0, missing))), counts)
    peak, position = (jnp.pad(x, ((0, 0), (0, 0), (0, missing))) for x in (peak, position))
    neurons, of_neurons = PartitionSpec(None, AXIS), PartitionSpec(None, None, AXIS)
    spread_neurons = jax.shard_map(
        _add,
        mesh=mesh,
        in_specs=(neurons, of_neurons, of_neurons, everywhere, of_neurons),
        out_specs=neurons,
    )
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


def refuse_non_finite(finite: np.ndarray) -> None:
    """Stop where activations are not finite.

    Args:
        finite: [n_layers] bool, which layers' activations are.

    Raises:
        UserError: names the other layers.
    """
    if not finite.all():
        layers = ", ".join(map(str, np.flatnonzero(~finite)))
        raise UserError(
            f"activations that are not finite (NaN or infinite) in layer(s) {layers}; check the model's weights, or "
            "use --precision=float32"
        )
