"""Stream the sequences through the model once; keep what excites every neuron most, and how its activation is spread.

For all neurons of all layers at once: the best K examples, how often the neuron fires, and the moments of its
activation. Everything is reduced inside the layers' scan, so that no activation outlives its layer.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx
from jaxtyping import Array, Bool, Int, ScalarLike

from nejax.errors import UserError
from nejax.models.reading import LayerView
from nejax.neuron.moments import Moments, merge_moments, moments_of, no_moments
from nejax.neuron.top_examples import TopExamples, empty_top_examples, update_top_examples
from nejax.pipeline.corpus import Sequences
from nejax.pipeline.sequences import ORBAX

CHECK_EVERY = 16
"""Batches between looks at whether everything was finite: a look waits for the device."""


class Collection(NamedTuple):
    """What collection knows of every neuron so far. All fields have leading axes `n_layers`, `d_mlp`."""

    examples: TopExamples
    """The best K examples, strongest first."""
    n_fired: Int[Array, "n_layers d_mlp"]
    """At how many tokens the activation was above 0."""
    moments: Moments
    """Of the activation over all tokens that can be a peak."""


def peakable(
    tokens: Int[Array, "batch seq"],
    length: Int[Array, " batch"],
    special: Int[Array, " n_special"],
    first: ScalarLike,
) -> Bool[Array, "batch seq"]:
    """Which positions may hold a peak: not padding, no special token, and not before position `first`.

    Args:
        tokens: token ids.
        length: real tokens of each row.
        special: ids that are never a peak.
        first: 1 leaves out the first position, an attention sink.
    """
    position = jnp.arange(tokens.shape[1])
    return (position >= first) & (position < length[:, None]) & ~jnp.isin(tokens, special)


def empty_collection(n_layers: int, d_mlp: int, keep: int) -> Collection:
    """What is known before the first batch."""

    shape = n_layers, d_mlp
    examples = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (*shape, keep)), empty_top_examples(keep))
    return Collection(examples, jnp.zeros(shape, jnp.int32), no_moments(*shape))


def collect_batch(
    collection: Collection,
    model: nnx.Module,
    tokens: Int[Array, "batch seq"],
    sequence: Int[Array, " batch"],
    can_peak: Bool[Array, "batch seq"],
) -> tuple[Collection, Bool[Array, " n_layers"]]:
    """Add one batch of sequences to a collection.

    Args:
        collection: what is known so far.
        model: see `nejax.models.reading`.
        tokens: token ids.
        sequence: the number of each row's sequence.
        can_peak: from `peakable`. A row without any such position adds nothing.

    Returns:
        The collection, and which layers' activations were finite at all positions that can be peaks.
    """

    def read(view: LayerView) -> tuple[Array, Array, Array, Moments]:
        activation = jnp.where(can_peak[:, :, None], view.activation, -jnp.inf)
        position = activation.argmax(axis=1).astype(jnp.int32)
        flat = view.activation.reshape(-1, activation.shape[-1])
        moments = moments_of(flat, can_peak.reshape(-1))
        return activation.max(axis=1), position, (activation > 0).sum(axis=(0, 1)), moments

    _, (peak, position, n_fired, moments) = model(tokens, reader=read)
    for_layers = partial(jax.vmap, in_axes=(0, 0, None, 0))
    for_neurons = partial(jax.vmap, in_axes=(0, 1, None, 1))
    update = for_layers(for_neurons(update_top_examples))
    return Collection(
        examples=update(collection.examples, peak, sequence, position),
        n_fired=collection.n_fired + n_fired,
        moments=merge_moments(collection.moments, moments),
    ), jnp.isfinite(moments.mean).all(axis=1)


def batches(
    pieces: Iterable[Sequences], batch_size: int, start: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Tokens, lengths and numbers of the sequences in pieces of any size; the first sequence has number `start`.

    Always `batch_size` rows; in the last batch, missing rows have length 0.
    """
    n_filled, tokens, length = 0, np.empty(0), np.empty(0)
    for piece in pieces:
        first = 0
        while first < len(piece.tokens):
            if not n_filled:
                tokens = np.zeros((batch_size, piece.tokens.shape[1]), np.int32)
                length = np.zeros(batch_size, np.int32)
            n = min(batch_size - n_filled, len(piece.tokens) - first)
            tokens[n_filled : n_filled + n] = piece.tokens[first : first + n]
            length[n_filled : n_filled + n] = piece.length[first : first + n]
            n_filled, first = n_filled + n, first + n
            if n_filled == batch_size:
                yield tokens, length, np.arange(start, start + batch_size, dtype=np.int32)
                n_filled, start = 0, start + batch_size
    if n_filled:
        yield tokens, length, np.arange(start, start + batch_size, dtype=np.int32)


def collect(
    model: Any,
    sequences: Callable[[int], Iterable[Sequences]],
    *,
    keep: int,
    special: np.ndarray,
    first_position: int = 1,
    batch_size: int,
    progress: Callable[[int], object] = lambda n_tokens: None,
    checkpoints: Path | None = None,
    checkpoint_every: int = 200,
) -> Collection:
    """Stream all sequences through the model.

    Args:
        model: see `nejax.models.reading`.
        sequences: the corpus from a given sequence number on, in pieces of any size. Called once, with 0 or with the
            number where an interrupted collection goes on.
        keep: K, how many examples each neuron keeps.
        special: token ids that are never a peak.
        first_position: the first position that may be a peak.
        batch_size: sequences a pass; does not change the result beyond rounding.
        progress: called with the number of tokens of each batch.
        checkpoints: folder from which an interrupted collection goes on, and where it saves itself.
        checkpoint_every: batches between checkpoints.

    Returns:
        The collection, as NumPy arrays.

    Raises:
        UserError: an activation is not finite (names the layers), or a checkpoint is damaged.
    """
    n_layers, _, d_mlp = model.input_weights().shape
    graph, state = nnx.split(model)
    carry = empty_collection(n_layers, d_mlp, keep), jnp.ones(n_layers, bool)
    with _Checkpoints(checkpoints) as saved:
        before, carry = saved.restore(carry)
        done = before
        for i, batch in enumerate(batches(sequences(before), batch_size, before), start=1):
            done += int(np.count_nonzero(batch[1]))
            carry = _step(carry, state, *batch, special, first_position, graph=graph)
            if i % CHECK_EVERY == 0:
                _refuse_non_finite(np.asarray(carry[1]))
            progress(int(batch[1].sum()))
            if i % checkpoint_every == 0:
                saved.save(done, carry)
        _refuse_non_finite(np.asarray(carry[1]))
    return jax.tree.map(np.asarray, carry[0])


@partial(jax.jit, static_argnames="graph", donate_argnames="carry")
def _step(
    carry: tuple[Collection, Bool[Array, " n_layers"]],
    state: Any,
    tokens: Int[Array, "batch seq"],
    length: Int[Array, " batch"],
    sequence: Int[Array, " batch"],
    special: Int[Array, " n_special"],
    first_position: ScalarLike,
    *,
    graph: Any,
) -> tuple[Collection, Bool[Array, " n_layers"]]:
    """Add a batch to the collection, and to which layers were finite so far."""
    collection, finite = carry
    can_peak = peakable(tokens, length, special, first_position)
    collection, now = collect_batch(collection, nnx.merge(graph, state), tokens, sequence, can_peak)
    return collection, finite & now


def _refuse_non_finite(finite: np.ndarray) -> None:
    if not finite.all():
        layers = ", ".join(map(str, np.flatnonzero(~finite)))
        raise UserError(
            f"activations that are not finite (NaN or infinite) in layer(s) {layers}; check the model's weights, or "
            "use --precision=float32"
        )


class _Checkpoints:
    """The state of an unfinished collection on disk, by how many sequences it has seen; with no folder, none is kept.

    What is being written when the collection stops is written to its end; when the collection is whole, all goes.
    """

    def __init__(self, folder: Path | None):
        self.folder = folder
        self.manager = None
        if folder:
            options = ocp.CheckpointManagerOptions(max_to_keep=2)
            self.manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def restore(self, carry: Any) -> tuple[int, Any]:
        """Sequences behind the latest checkpoint, and their state; 0 and the given state if there is none."""
        latest = self.manager.latest_step() if self.manager else None
        if self.manager is None or latest is None:
            return 0, carry
        try:
            # As NumPy arrays: arrays that Orbax puts on a device are bound to it, and compile the step anew.
            template = ocp.args.StandardRestore(jax.tree.map(np.asarray, carry))
            return latest, self.manager.restore(latest, args=template)
        except Exception as error:  # Orbax passes on what each of its parts happens to raise
            raise UserError(
                f"the checkpoint {latest} in {self.folder} is damaged ({type(error).__name__}); "
                "delete that folder and run again"
            ) from error

    def save(self, n_sequences: int, carry: Any) -> None:
        if self.manager:
            with ORBAX:  # the sequences may be stored meanwhile
                self.manager.save(n_sequences, args=ocp.args.StandardSave(carry))
                self.manager.wait_until_finished()

    def __enter__(self) -> "_Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.manager and self.folder:
            self.manager.close()
            if kind is None:
                shutil.rmtree(self.folder)
