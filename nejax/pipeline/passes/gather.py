"""Run the chosen sequences again, and gather what the features need.

That is: each layer's distinct inputs (many neurons peak at the same place and share one), the inputs at random
positions for comparison, and every example's activation at the tokens around its peak. The model gathers them inside
its layers' scan; the full inputs and activations are never kept.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from nejax.models.reading import LayerView
from nejax.pipeline.corpus.windows import Sequences
from nejax.pipeline.passes.select import Chosen
from nejax.pipeline.run.devices import fetch, fill_up, mesh_or_all, up_to_devices
from nejax.pipeline.run.spread import ReplicatedModel, place_parts, slices

WINDOW_BEFORE, WINDOW_AFTER = 30, 10
"""How many tokens before and after the peak an example's activations are kept for."""


class Revisited(NamedTuple):
    """The results of the second pass."""

    inputs: list[np.ndarray]
    """For each layer [n_distinct, d_model] float32: its distinct inputs, in order of (sequence, position)."""
    input_of: np.ndarray
    """[n_layers, d_mlp, n_examples] int32: the row of each example's input among its layer's distinct inputs; -1 where
    empty."""
    reference: np.ndarray
    """[n_layers, n_reference, d_model] float32: inputs at random positions, the same positions in every layer."""
    window: np.ndarray
    """[n_layers, d_mlp, n_examples, WINDOW_BEFORE + 1 + WINDOW_AFTER] float16: the neuron's activation at the tokens
    around the peak; NaN outside the sequence and where empty."""


def random_positions(
    n_peakable: np.ndarray, can_peak: Callable[[np.ndarray], np.ndarray], n: int, seed: int
) -> np.ndarray:
    """Draw distinct (sequence, position) pairs at which a peak could be.

    Args:
        n_peakable: [n_sequences] int, at how many positions of each sequence.
        can_peak: at which: numbers of sequences -> [n, seq_len] bool, see `peakable`. Called with those drawn.
        n: how many; all there are if they are fewer.
        seed: of the draw.

    Returns:
        [n, 2] int32, sorted.
    """
    end = np.cumsum(n_peakable, dtype=np.int64)
    n_places = int(end[-1])
    drawn = np.sort(np.random.default_rng(seed).choice(n_places, size=min(n, n_places), replace=False))
    sequence = np.searchsorted(end, drawn, side="right")
    place = drawn - (end - n_peakable)[sequence]
    known, row = np.unique(sequence, return_inverse=True)
    in_order = np.argsort(~can_peak(known), axis=1, kind="stable")  # the positions that can be peaks first
    return np.stack([sequence, in_order[row, place]], axis=1).astype(np.int32)


def revisit(
    model: Any,
    take: Callable[[np.ndarray], Sequences],
    chosen: Chosen,
    reference: np.ndarray,
    *,
    seq_len: int,
    batch_size: int,
    mesh: Mesh | None = None,
    progress: Callable[[int], object] = lambda n_tokens: None,
) -> Revisited:
    """Run every sequence that holds an example or a reference position, once.

    Args:
        model: see `nejax.models.reading`.
        take: some of the corpus: numbers of sequences -> these. Called in ascending order, each number once.
        chosen: the examples.
        reference: [n_reference, 2], (sequence, position) pairs.
        seq_len: tokens a sequence.
        batch_size: sequences a pass, on all devices together; filled up to a multiple of their number.
        mesh: the devices, see `nejax.pipeline.run.devices.mesh_of`; all of them, if None.
        progress: called with the number of tokens of each batch.

    Returns:
        Inputs, reference inputs and windows.
    """
    n_layers, d_model, _ = model.input_weights().shape
    layers = [_LayerPlan(chosen, layer, reference, seq_len) for layer in range(n_layers)]
    needed = np.unique(np.concatenate([plan.input_key // seq_len for plan in layers]))
    mesh = mesh_or_all(mesh)
    n_rows = up_to_devices(batch_size, mesh) // mesh.size
    groups = [needed[rows] for rows in slices(len(needed), n_rows)]
    ranges = [[(plan.inputs_in(g, seq_len), plan.examples_in(g)) for plan in layers] for g in groups]
    n_inputs = max((r.stop - r.start for g in ranges for r, _ in g), default=0)
    n_examples = max((e.stop - e.start for g in ranges for _, e in g), default=0)

    replicated = ReplicatedModel.on(mesh, model)
    inputs = [np.zeros((len(plan.input_key), d_model), np.float32) for plan in layers]
    length = np.zeros(len(needed), np.int32)
    window = np.full((*chosen.sequence.shape, WINDOW_BEFORE + 1 + WINDOW_AFTER), np.nan, np.float16)

    def to_read(group: np.ndarray, in_layers: list[tuple[slice, slice]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A device's part: tokens, and where in them its inputs and examples are."""
        rows = take(group)
        length[np.searchsorted(needed, group)] = rows.length
        tokens = fill_up(rows.tokens.astype(np.int32), n_rows)
        row_of = partial(np.searchsorted, group)
        inputs_at = np.zeros((n_layers, n_inputs, 2), np.int32)
        examples_at = np.zeros((n_layers, n_examples, 3), np.int32)
        for layer, (plan, (ins, exs)) in enumerate(zip(layers, in_layers, strict=True)):
            sequence, position = np.divmod(plan.input_key[ins], seq_len)
            inputs_at[layer, : len(sequence)] = np.stack([row_of(sequence), position], axis=1)
            example = plan.example[exs]
            examples_at[layer, : len(example), 0] = row_of(plan.sequence[exs])
            examples_at[layer, : len(example), 1] = example // chosen.sequence.shape[2]
            examples_at[layer, : len(example), 2] = plan.position[exs]
        return tokens, inputs_at, examples_at

    for here in slices(len(groups), mesh.size):
        parts = [to_read(*both) for both in zip(groups[here], ranges[here], strict=True)]
        found = fetch(_visit(replicated, place_parts(parts, mesh)))
        for device, in_layers in enumerate(ranges[here]):
            found_inputs, found_windows = (part[device] for part in found)
            for layer, (plan, (ins, exs)) in enumerate(zip(layers, in_layers, strict=True)):
                inputs[layer][ins] = found_inputs[layer, : ins.stop - ins.start]
                flat = window[layer].reshape(-1, window.shape[-1])
                flat[plan.example[exs]] = found_windows[layer, : exs.stop - exs.start]
        progress(int(length[here.start * n_rows : here.stop * n_rows].sum()))
    _blank_outside(window, chosen, needed, length)
    return Revisited(
        inputs=inputs,
        input_of=np.stack([plan.input_of for plan in layers]),
        reference=np.stack([x[plan.reference] for x, plan in zip(inputs, layers, strict=True)]),
        window=window,
    )


@jax.jit
def _visit(
    model: ReplicatedModel, parts: list[Array]
) -> tuple[Float[Array, "n_devices n_layers n_inputs d_model"], Float[Array, "n_devices n_layers n_examples window"]]:
    """On each device, the inputs at its (row, position)s, and the activations around its (row, neuron, position)s.

    A part is tokens [rows, seq], and where in them [n_layers, n_inputs, 2] and [n_layers, n_examples, 3].
    """
    offsets = jnp.arange(-WINDOW_BEFORE, WINDOW_AFTER + 1)

    def of_part(model: Any, part: list[Int[Array, "..."]]) -> tuple[Array, Array]:
        tokens, inputs_at, examples_at = part

        def read(view: LayerView) -> tuple[Array, Array]:
            at = inputs_at[view.layer]
            row, neuron, position = examples_at[view.layer].T
            around = jnp.clip(position[:, None] + offsets, 0, tokens.shape[1] - 1)
            window = view.activation[row[:, None], around, neuron[:, None]]
            return view.mlp_input[at[:, 0], at[:, 1]].astype(jnp.float32), window.astype(jnp.float16)

        return model(tokens, reader=read)[1]

    return model.over_parts(of_part, parts)


class _LayerPlan:
    """Where one layer's examples and distinct inputs are, in order of sequence, so that a batch is a slice of both."""

    def __init__(self, chosen: Chosen, layer: int, reference: np.ndarray, seq_len: int):
        sequence, position = chosen.sequence[layer].ravel(), chosen.position[layer].ravel()
        there = np.flatnonzero(sequence >= 0)
        self.example = there[np.argsort(sequence[there], kind="stable")]
        """Number `neuron * n_examples + rank` of each example, in order of sequence."""
        self.sequence, self.position = sequence[self.example], position[self.example]
        key = sequence.astype(np.int64) * seq_len + position
        reference_key = reference[:, 0].astype(np.int64) * seq_len + reference[:, 1]
        self.input_key = np.unique(np.concatenate([key[there], reference_key]))
        """`sequence * seq_len + position` of each distinct input, ascending."""
        input_of = np.where(sequence >= 0, np.searchsorted(self.input_key, key), -1)
        self.input_of = input_of.reshape(chosen.sequence.shape[1:]).astype(np.int32)
        self.reference = np.searchsorted(self.input_key, reference_key)

    def inputs_in(self, group: np.ndarray, seq_len: int) -> slice:
        """The distinct inputs in a run of needed sequences."""
        return slice(*np.searchsorted(self.input_key, [group[0] * seq_len, (group[-1] + 1) * seq_len]))

    def examples_in(self, group: np.ndarray) -> slice:
        """The examples in a run of needed sequences."""
        return slice(*np.searchsorted(self.sequence, [group[0], group[-1] + 1]))


def _blank_outside(window: np.ndarray, chosen: Chosen, needed: np.ndarray, length: np.ndarray) -> None:
    """Set activations at places before the sequence's start and after its real tokens to NaN.

    Args:
        window: of all examples; changed in place.
        chosen: the examples.
        needed: [n] numbers of the sequences that hold them, ascending.
        length: [n] how many tokens of these are real.
    """
    offsets = np.arange(-WINDOW_BEFORE, WINDOW_AFTER + 1)
    for layer in range(len(window)):
        at = chosen.position[layer][..., None] + offsets
        n_real = length[np.searchsorted(needed, chosen.sequence[layer])][..., None]
        window[layer][(at < 0) | (at >= n_real)] = np.nan
