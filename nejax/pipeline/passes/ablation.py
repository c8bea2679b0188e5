"""The activations at peaks when a token before the peak is ablated.

Ablating a token changes nothing before it, and its effect after it is the same for all peaks of all neurons. So each
place of a sequence is ablated once, as a branch up to the last peak within a window (see `Branches`), and all peaks are
read from it.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from nejax.models.reading import Branches, LayerView
from nejax.pipeline.run.devices import AXIS, fetch, fill_up, mesh_or_all, place, up_to_devices
from nejax.pipeline.run.settings import Ablation
from nejax.pipeline.run.spread import ReplicatedModel, in_chunks, place_parts, slices

ROWS = 128
"""Tokens in a block of branches."""

BLOCKS = 16
"""Blocks that a device runs at a time."""

DEPTHS = 4
"""Branches whose peaks are all in early layers are not run through the late ones; so many depths are distinguished."""


class Peaks(NamedTuple):
    """Places where neurons are at their peak, in order of sequence. All fields are [n_peaks]."""

    layer: np.ndarray
    neuron: np.ndarray
    sequence: np.ndarray
    position: np.ndarray


class Cost(NamedTuple):
    """The size of a pass over branches."""

    branches: int
    """Places that were ablated."""
    tokens: int
    """Tokens of all branches together."""
    blocks: int
    """Blocks that they were packed into."""


def activations_without(
    model: Any,
    peaks: Peaks,
    tokens: np.ndarray,
    *,
    n_layers: int,
    window: int,
    ablation: Ablation,
    padding: int,
    mean_shift: np.ndarray | None = None,
    batch_size: int = 16,
    mesh: Mesh | None = None,
) -> tuple[Float[np.ndarray, "n_peaks n_offsets"], Cost]:
    """The activation that is left at every peak without its own token, the one before it, and so on.

    Args:
        model: see `nejax.models.reading`.
        peaks: `sequence` counts the rows of `tokens`.
        tokens: [n_sequences, seq_len].
        n_layers: of the model.
        window: tokens before the peak that are ablated, each alone. Position 0 holds no text and never is.
        ablation: how tokens are ablated. "padding": the token is replaced by `padding`. "mean": its input to the first
            layer is replaced by the mean input. "deletion": it is left out, so the tokens after it move forward by one;
            a peak's own token is replaced by padding instead. "gradient": an estimate of "padding" from the derivative,
            `a - grad(a) . (input - input of padding)`; one backward pass a peak, nothing is shared.
        padding: token id.
        mean_shift: for "mean": [d_model] mean over the corpus of a token's input minus padding's at the same place, see
            `mean_less_padding`.
        batch_size: for "gradient": sequences a pass.
        mesh: the devices, see `nejax.pipeline.run.devices.mesh_of`; all of them, if None.

    Returns:
        `[n_peaks, window + 1]` float32; NaN where there is no such token. And the size of the pass.
    """
    mesh = mesh_or_all(mesh)
    if ablation == "gradient":
        return _by_gradient(model, peaks, tokens, window, padding, batch_size, mesh), Cost(0, 0, 0)
    by_branches = partial(_by_branches, model, peaks, tokens, n_layers, mesh)
    if ablation == "deletion":
        own, _ = by_branches(range(1), padding)
        others, cost = by_branches(range(1, window + 1), None)
        return np.concatenate([own, others], axis=1), cost
    return by_branches(range(window + 1), padding, mean_shift if ablation == "mean" else None)


@partial(jax.jit, static_argnames="graph")
def _inputs_less_padding(
    state: Any, tokens: Int[Array, "batch seq"], padding: Int[Array, ""], *, graph: Any
) -> Float[Array, "batch seq d_model"]:
    return _less_padding(nnx.merge(graph, state), tokens, padding)


def _less_padding(model: Any, tokens: Array, padding: Array) -> Array:
    """Each token's input minus padding's at the same place."""
    position = jnp.arange(tokens.shape[1])
    return model.embed(tokens, position) - model.embed(jnp.full_like(tokens, padding), position)


def mean_less_padding(model: Any, tokens: np.ndarray, real: np.ndarray, padding: int) -> Float[np.ndarray, " d_model"]:
    """The mean of tokens' inputs to the first layer minus padding's at the same places.

    Args:
        model: see `nejax.models.reading`.
        tokens: [n_sequences, seq_len], a sample of the corpus.
        real: [n_sequences, seq_len] bool: which of them count.
        padding: token id.
    """
    graph, state = nnx.split(model)
    inputs = _inputs_less_padding(state, jnp.asarray(tokens, jnp.int32), jnp.int32(padding), graph=graph)
    return np.asarray(inputs)[real].mean(axis=0, dtype=np.float64).astype(np.float32)


def _by_branches(
    model: Any,
    peaks: Peaks,
    tokens: np.ndarray,
    n_layers: int,
    mesh: Mesh,
    offsets: range,
    replacement: int | None,
    shift: np.ndarray | None = None,
) -> tuple[np.ndarray, Cost]:
    """Read the peaks in branches in which a token is replaced, or left out if there is no replacement."""
    readings, cost = _Readings.of(peaks, tokens.shape[1], offsets), Cost(0, 0, 0)
    without = np.full((len(peaks.sequence), len(offsets)), np.nan, np.float32)
    for depth, some in readings.by_depth(n_layers):
        plan = _Plan(some, tokens.shape[1], len(offsets))
        layers = ReplicatedModel.on(mesh, model if depth == n_layers else model.first_layers(depth))
        _run(layers, plan, tokens, depth, replacement, shift, without)
        more = Cost(len(plan.start), int(plan.length.sum()), plan.n_blocks)
        cost = Cost(*(x + y for x, y in zip(cost, more, strict=True)))
    return without, cost


def _run(
    model: ReplicatedModel,
    plan: "_Plan",
    tokens: np.ndarray,
    n_layers: int,
    replacement: int | None,
    shift: np.ndarray | None,
    without: np.ndarray,
) -> None:
    """Run branches through the whole model, and store what is read."""
    mean = None if shift is None else place(shift, model.mesh)
    batches = [*plan.batches()]
    most = 2 ** int(np.ceil(np.log2(max((plan.most_readings(batch, n_layers) for batch in batches), default=1) or 1)))
    for here in slices(len(batches), model.mesh.size):
        parts = [plan.to_read(batch, tokens, replacement, n_layers, most) for batch in batches[here]]
        found = fetch(_read_branches(model, place_parts([part[:-1] for part in parts], model.mesh), mean))
        for values, (*_, where) in zip(found, parts, strict=False):
            layer, rank, reading = where
            without.reshape(-1)[plan.readings.destination[reading]] = values[layer, rank]


@jax.jit
def _read_branches(
    model: ReplicatedModel, parts: list[Int[Array, "n_devices ..."]], shift: Float[Array, " d_model"] | None
) -> Float[Array, "n_devices n_layers n_readings"]:
    """On each device, the activations at its (row, neuron)s; rows are counted through all blocks.

    A part is tokens [n_sequences, seq], the sequence of each block [blocks], what the branches have [blocks, rows, 3],
    and where to read [n_layers, n_readings, 2].
    """

    def of_part(model: Any, part: list[Array], shift: Array | None) -> Array:
        tokens, sequence, branched, at = part
        branches = Branches(sequence, *jnp.moveaxis(branched, -1, 0))

        def read(view: LayerView) -> Array:
            row, neuron = at[view.layer].T
            return view.activation.reshape(-1, view.activation.shape[-1])[row, neuron]

        def edit(name: str, value: Array, layer: Array) -> Array:
            if shift is None or name != "resid_pre":
                return value
            is_first = (branches.position == branches.start) & (layer == 0)
            return jnp.where(is_first[:, :, None], value + shift, value)

        return model.read_branches(tokens, branches, reader=read, editor=edit).astype(jnp.float32)

    return model.over_parts(of_part, parts, shift)


class _Batch(NamedTuple):
    """What one device runs at a time."""

    blocks: slice
    sequences: np.ndarray
    """Which sequences these blocks' branches leave."""


class _Readings(NamedTuple):
    """Which branch each peak reads, at which of its rows. All fields are [n_readings]."""

    branch: np.ndarray
    """`sequence * seq_len + position` of the token that is ablated."""
    row: np.ndarray
    layer: np.ndarray
    neuron: np.ndarray
    destination: np.ndarray
    """Where it goes: `peak * n_offsets + offset`."""

    @classmethod
    def of(cls, peaks: Peaks, seq_len: int, offsets: range) -> "_Readings":
        """All that peaks need."""
        taken = peaks.position[:, None] - np.asarray(offsets)
        peak, column = np.nonzero(taken >= 1)
        branch = peaks.sequence[peak].astype(np.int64) * seq_len + taken[peak, column]
        return cls(branch, column, peaks.layer[peak], peaks.neuron[peak], peak * len(offsets) + column)

    def by_depth(self, n_layers: int) -> Iterator[tuple[int, "_Readings"]]:
        """Those of branches that need not run deeper than so many layers, for `DEPTHS` depths."""
        known, of_reading = np.unique(self.branch, return_inverse=True)
        deepest = np.zeros(len(known), np.int64)
        np.maximum.at(deepest, of_reading, self.layer)
        done = 0
        for depth in np.unique(np.ceil(np.arange(1, DEPTHS + 1) * n_layers / DEPTHS).astype(int)).tolist():
            here = (deepest >= done) & (deepest < depth)
            if here.any():
                yield depth, _Readings(*(field[here[of_reading]] for field in self))
            done = depth


class _Plan:
    """How branches are packed into blocks, and what is read from each row."""

    def __init__(self, readings: _Readings, seq_len: int, n_offsets: int):
        branch, of_reading = np.unique(readings.branch, return_inverse=True)
        self.sequence, self.start = np.divmod(branch, seq_len)
        self.length = np.zeros(len(branch), np.int64)
        np.maximum.at(self.length, of_reading, readings.row + 1)
        self.n_rows = -(-max(ROWS, n_offsets) // 8) * 8
        self.first_row = _pack(self.sequence, self.length, self.n_rows)
        """Of each branch, counted through all blocks."""
        self.n_blocks = int(self.first_row[-1]) // self.n_rows + 1 if len(branch) else 0

        row = self.first_row[of_reading] + readings.row
        order = np.argsort(row, kind="stable")
        self.readings = _Readings(*(field[order] for field in readings._replace(row=row)))
        """Their rows counted through all blocks, ascending."""

    def batches(self) -> Iterator[_Batch]:
        """Runs of blocks, and the few sequences that they are of."""
        first_of_block = np.searchsorted(self.first_row, np.arange(self.n_blocks) * self.n_rows)
        of_block = self.sequence[first_of_block]
        most = self._sequences_a_batch(of_block)
        start = 0
        while start < self.n_blocks:
            known, n_seen = np.unique(of_block[start : start + BLOCKS], return_counts=True)
            stop = start + int(n_seen[:most].sum())
            yield _Batch(slice(start, stop), fill_up(known[:most], most, known[:most][-1]))
            start = stop

    def _sequences_a_batch(self, of_block: np.ndarray) -> int:
        """As many as blocks usually are of, and one more: an even number, so that few programs are compiled."""
        usual = BLOCKS * len(np.unique(of_block)) / max(self.n_blocks, 1)
        return min(BLOCKS, 2 * int(np.ceil((usual + 1) / 2)))

    def readings_in(self, batch: _Batch) -> slice:
        """Those made in a batch."""
        rows = [batch.blocks.start * self.n_rows, batch.blocks.stop * self.n_rows]
        return slice(*np.searchsorted(self.readings.row, rows))

    def most_readings(self, batch: _Batch, n_layers: int) -> int:
        """Of a layer."""
        return int(np.bincount(self.readings.layer[self.readings_in(batch)], minlength=n_layers).max())

    def to_read(
        self, batch: _Batch, tokens: np.ndarray, replacement: int | None, n_layers: int, n_readings: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """A device's sequences, the sequence of each block, its branches' tokens, positions and starts, where to read.

        And of each reading its layer, its rank in that layer, and its number.
        """
        bounds = np.array([batch.blocks.start, batch.blocks.stop]) * self.n_rows
        branch = slice(*np.searchsorted(self.first_row, bounds))
        length, start = self.length[branch], self.start[branch]
        step = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
        row = np.repeat(self.first_row[branch] - bounds[0], length) + step
        sequence, position = np.repeat(self.sequence[branch], length), np.repeat(start, length) + step
        ahead = 1 if replacement is None else 0
        token = tokens[sequence, position + ahead]
        if replacement is not None:
            token = np.where(step == 0, replacement, token)

        branched = np.zeros((BLOCKS * self.n_rows, 3), np.int32)
        branched[:, 2] = -1  # rows that fill up
        branched[row] = np.stack([token, position, np.repeat(start, length)], axis=1)
        of_block = np.zeros(BLOCKS, np.int32)
        of_block[row // self.n_rows] = np.searchsorted(batch.sequences, sequence)

        number = np.arange(len(self.readings.row))[self.readings_in(batch)]
        layer = self.readings.layer[number]
        order = np.argsort(layer, kind="stable")
        number, layer = number[order], layer[order]
        rank = np.arange(len(layer)) - np.searchsorted(layer, layer)
        at = np.zeros((n_layers, n_readings, 2), np.int32)
        at[layer, rank] = np.stack([self.readings.row[number] - bounds[0], self.readings.neuron[number]], axis=1)
        there = tokens[batch.sequences].astype(np.int32)
        return there, of_block, branched.reshape(BLOCKS, self.n_rows, 3), at, (layer, rank, number)


def _pack(sequence: np.ndarray, length: np.ndarray, n_rows: int) -> np.ndarray:
    """The first row of each branch, packed one after the other; no branch spans blocks, no block has two sequences."""
    first, row, of_block = np.zeros(len(length), np.int64), 0, -1
    for i, (of_branch, n) in enumerate(zip(sequence.tolist(), length.tolist(), strict=True)):
        if of_branch != of_block or row % n_rows + n > n_rows or row % n_rows == 0:
            row = -(-row // n_rows) * n_rows
            of_block = of_branch
        first[i] = row
        row += n
    return first


def _by_gradient(
    model: Any, peaks: Peaks, tokens: np.ndarray, window: int, padding: int, batch_size: int, mesh: Mesh
) -> np.ndarray:
    """First-order estimates of what padding leaves, one backward pass a peak."""
    replicated, by = ReplicatedModel.on(mesh, model), place(np.int32(padding), mesh)
    of_peaks = tokens[peaks.sequence], peaks.layer, peaks.neuron, peaks.position
    of_peaks = [np.asarray(values, np.int32) for values in of_peaks]
    offsets, without = np.arange(window + 1), []
    for rows, batch in in_chunks(of_peaks, up_to_devices(batch_size, mesh), mesh):
        activation, change = fetch(_changes(replicated, batch, by))
        taken = peaks.position[rows][:, None] - offsets
        n = len(taken)
        estimate = activation[:n, None] + np.take_along_axis(change[:n], np.maximum(taken, 0), axis=1)
        without.append(np.where(taken >= 1, estimate, np.nan))
    return np.concatenate(without).astype(np.float32)


@jax.jit
def _changes(
    model: ReplicatedModel, batch: list[Int[Array, "n ..."]], padding: Int[Array, ""]
) -> tuple[Float[Array, " n"], Float[Array, "n seq"]]:
    """Each row's activation at its peak, and by how much padding at each place would change it, to first order.

    The batch is tokens [n, seq], and the layer, neuron and position of the peak [n].
    """

    def of_rows(model: Any, rows: list[Array], padding: Array) -> Any:
        tokens, layer, neuron, position = rows
        towards = -_less_padding(model, tokens, padding)

        def peaks(part: Array) -> tuple[Array, Array]:
            def edit(name: str, value: Array, at: Array) -> Array:
                return jnp.where(at == 0, value + part[:, :, None] * towards, value) if name == "resid_pre" else value

            def read(view: LayerView) -> Array:
                here = view.activation[jnp.arange(len(tokens)), position, neuron]
                return jnp.where(view.layer == layer, here, 0)

            activation = model(tokens, reader=read, editor=edit)[1].sum(axis=0)
            return activation.sum(), activation

        nothing = lax.pcast(jnp.zeros(tokens.shape), AXIS, to="varying")  # of these rows alone is the derivative
        (_, activation), change = jax.value_and_grad(peaks, has_aux=True)(nothing)
        return activation, change

    return model.over_rows(of_rows, batch, padding)
