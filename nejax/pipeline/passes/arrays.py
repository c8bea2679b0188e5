"""Passes as functions of a model and of tokens that are there as an array."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int

from nejax.errors import SettingError, UserError
from nejax.pipeline.corpus.windows import Sequences
from nejax.pipeline.passes import collect as streaming
from nejax.pipeline.passes.collect import Collection
from nejax.pipeline.passes.peaks import PeakRule

PIECE = 4096
"""Sequences that are taken out of the array at a time: it may lie on disk, as a memory map."""


def collect(
    model: Any,
    tokens: Int[np.ndarray | jax.Array, "n_sequences seq_len"],
    length: Int[np.ndarray | jax.Array, " n_sequences"] | None = None,
    *,
    keep: int = 128,
    special: Sequence[int] = (),
    first_position: int = 1,
    batch_size: int = 16,
    mesh: Mesh | None = None,
) -> Collection:
    """Read tokens through a model; of every neuron keep its best examples, and how its activation is spread.

    An example is a sequence with the position of the neuron's highest activation in it, its peak: the `keep` sequences
    with the highest peaks are kept. Of equal ones the earlier sequence comes first, and within a sequence the earlier
    position is the peak. Moments are over all positions that can be a peak: `m2` is the sum of `(a - mean)**2`. All
    devices are used; neither their number nor the size of a batch changes what is found, beyond rounding.

    Args:
        model: `load_model(...).model`, or anything with a `reader` (see `nejax.LayerView`).
        tokens: [n_sequences, seq_len] token ids, each row from its first token on. A memory map is read in pieces.
        length: [n_sequences] how many tokens of each row are real, the rest being padding. Default: all.
        keep: K, examples of each neuron.
        special: token ids that are never a peak, such as `tokenizer.all_special_ids`.
        first_position: the first that may be a peak; by default 1, as position 0 is an attention sink.
        batch_size: sequences a pass, on all devices together.
        mesh: the devices, see `nejax.pipeline.run.devices.mesh_of`; all of them, if None.

    Returns:
        NumPy arrays with leading axes n_layers, d_mlp: `examples`, with `activation`, `sequence` and `position` [K],
        strongest first, empty places -inf and -1; `n_fired`, at how many positions the activation is above 0; and the
        `moments` of the activation.

    Raises:
        UserError: tokens or lengths have another shape or type or are out of range, there is no sequence, an activation
            is not finite, or `keep` or `batch_size` is below 1.

    Example:
        >>> model, tokenizer, *_ = nejax.load_model("gpt2-tiny")
        >>> text = "Before and after the event loop, you and we wait for a coroutine."
        >>> tokens = np.array([[tokenizer.bos_token_id, *tokenizer.encode(text)]])
        >>> found = nejax.collect(model, tokens, keep=1)
        >>> found.examples.activation.shape, found.n_fired.shape
        ((4, 1024, 1), (4, 1024))
        >>> tokenizer.decode(tokens[0, found.examples.position[3, 961, 0]])
        ' we'
    """
    length = _checked(model, tokens, length)
    on_host = np.asarray(tokens)
    for name, value in (("keep", keep), ("batch_size", batch_size)):
        if value < 1:
            raise SettingError(name, value, "at least 1")

    def pieces(start: int) -> Iterator[Sequences]:
        for first in range(start, len(on_host), PIECE):
            yield _piece(model, on_host[first : first + PIECE], length[first : first + PIECE], first)

    rule = PeakRule.of(np.array(sorted(special), np.int32), first_position)
    return streaming.collect(model, pieces, keep=keep, rule=rule, batch_size=batch_size, mesh=mesh)


def _checked(model: Any, tokens: Any, length: Any) -> np.ndarray:
    """The lengths, once they and the shape of the tokens fit."""
    shape, kind = np.shape(tokens), getattr(tokens, "dtype", np.dtype(object))
    if len(shape) != 2 or 0 in shape or not np.issubdtype(kind, np.integer):
        raise UserError(f"tokens have shape {shape} and type {kind}; expected integers [n_sequences, seq_len]")
    n_positions = getattr(getattr(model, "config", None), "n_positions", shape[1])
    if shape[1] > n_positions:
        raise UserError(f"tokens have {shape[1]} a sequence; the model has {n_positions} positions")
    lengths = np.full(shape[0], shape[1]) if length is None else np.asarray(length)
    if lengths.shape != shape[:1] or not np.issubdtype(lengths.dtype, np.integer):
        raise UserError(f"length has shape {lengths.shape} and type {lengths.dtype}; expected integers [{shape[0]}]")
    if lengths.min() < 1 or lengths.max() > shape[1]:
        raise UserError(f"length is {lengths.min()} to {lengths.max()}; expected 1 to {shape[1]}, as tokens are wide")
    return lengths.astype(np.int32)


def _piece(model: Any, ids: np.ndarray, length: np.ndarray, first: int) -> Sequences:
    n_known = getattr(getattr(model, "config", None), "vocab_size", np.inf)
    if ids.min() < 0 or ids.max() >= n_known:
        raise UserError(f"tokens are {ids.min()} to {ids.max()}; expected ids from 0, below {n_known}")
    number = np.arange(first, first + len(ids), dtype=np.int32)
    return Sequences(ids.astype(np.int32), length, number, np.zeros_like(number))
