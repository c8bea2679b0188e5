"""Read the corpus once more, all of it: how often each feature is excited, how meanings multiply below the maximum.

The features come from the few texts that excite a neuron most. The census asks of every token that can be a peak in
which band of its activation each neuron is, how far apart the embeddings of that band are, and which feature they are.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float

from nejax.models.reading import LayerView
from nejax.neuron._kernels.one_kernel import layer_program
from nejax.neuron.polysemanticity import streaming_mean_distance
from nejax.pipeline.passes.census_tiles import N_BANDS, Places, Tiles, lay_out, look
from nejax.pipeline.passes.peaks import PeakRule
from nejax.pipeline.passes.stream import Pieces, refuse_non_finite, stream
from nejax.pipeline.run.checkpoints import Checkpoints
from nejax.pipeline.run.devices import AXIS, fetch, fill_up, mesh_or_all, place, up_to_devices
from nejax.pipeline.run.directory import Store
from nejax.pipeline.run.spread import EVERYWHERE, ReplicatedModel


class Census(NamedTuple):
    """What all tokens say of the neurons, and of their features in the order of their ids: NumPy arrays."""

    band_count: np.ndarray
    """[n_layers, d_mlp, N_BANDS] int64: tokens at which the neuron fires, by band of activation, see `EDGES`."""
    band_mean_distance: np.ndarray
    """[n_layers, d_mlp, N_BANDS] float32: mean cosine distance over the pairs of these; NaN for fewer than two."""
    corpus_mean_distance: np.ndarray
    """[n_layers, d_mlp] float32: over the pairs of all tokens at which the neuron fires; NaN for fewer than two."""
    frequency: np.ndarray
    """[n_features] float64: share of tokens that excite the feature."""
    coverage: np.ndarray
    """[n_features] float64: share of the neuron's positive activation that is at these; NaN if it never fires."""
    neuron_coverage: np.ndarray
    """[n_layers, d_mlp] float64: the sum over the neuron's features; NaN if it never fires."""
    n_tokens: np.ndarray
    """[] int64: tokens that can be a peak, all that were read."""


def census(
    model: Any,
    sequences: Pieces,
    *,
    n_features: np.ndarray,
    directions: list[np.ndarray],
    min_similarity: np.ndarray,
    maximum: np.ndarray,
    rule: PeakRule,
    batch_size: int,
    mesh: Mesh | None = None,
    progress: Callable[[int], object] = lambda n_tokens: None,
    checkpoints: Checkpoints | None = None,
) -> Census:
    """Stream sequences through the model, spread over devices; sort what excites every neuron.

    A token excites a feature where the feature's neuron fires and `nejax.assign` gives it this one. The mean distance
    of a band is that of all its pairs, in linear time (`nejax.neuron.polysemanticity.streaming_mean_distance`): pairs
    with a zero embedding are left out. Counts are exact. Activations are summed in float32 over at most `LOOK_EVERY`
    batches, and these sums in float64; unit embeddings in float32. Batches and devices change nothing beyond the
    rounding of these sums, and of products of other shapes: a token at which two features, or a feature and its
    minimum, are equal in seven digits may come out either way.

    Memory: beside the model, a device holds all directions in float16 and its share of `N_BANDS` sums of `d_model`
    numbers for every neuron. It does not grow with the corpus.

    Args:
        model: see `nejax.models.reading`.
        sequences: the corpus from a given sequence number on, in pieces of any size. Called once, with 0 or with the
            number where an interrupted census goes on.
        n_features: [n_layers, d_mlp] int, of each neuron.
        directions: of each layer, [its features, d_model] unit directions, neuron by neuron.
        min_similarity: [all features] least similarity to each direction, layer by layer.
        maximum: [n_layers, d_mlp] each neuron's highest activation over the corpus.
        rule: which tokens may be a peak.
        batch_size: sequences a pass, on all devices together; filled up to a multiple of their number.
        mesh: the devices, see `nejax.pipeline.run.devices.mesh_of`; all of them, if None.
        progress: called with the number of tokens of each batch.
        checkpoints: from which an interrupted census of the same sequences resumes, and where it saves itself. Left for
            the caller to remove when the result is safe.

    Returns:
        The census.

    Raises:
        UserError: an activation is not finite (names the layers).
    """
    w_in = np.asarray(model.input_weights(), np.float32)
    layout, places = lay_out(w_in, n_features, directions, min_similarity, maximum)
    mesh, saved = mesh_or_all(mesh), checkpoints or Checkpoints()
    tiles, n_slots = place(layout, mesh), max(1, int(layout.n_slots.max()))
    model, rule, batch_size = ReplicatedModel.on(mesh, model), place(rule, mesh), up_to_devices(batch_size, mesh)
    start, so_far = saved.latest() or (0, _nothing(layout, n_slots))
    unit_sum = _spread(so_far.pop("unit_sum"), mesh)
    nothing = {name: _small(value) for name, value in so_far.items()}
    recent, finite = place(nothing, mesh), place(np.ones(len(w_in), bool), mesh)
    with jax.transfer_guard("disallow"):  # nothing moves between host and device but what is said to
        for step in stream(sequences, start, batch_size=batch_size, mesh=mesh, progress=progress):
            carry = unit_sum, recent, finite
            unit_sum, recent, finite = _add_batch(carry, model, tiles, step.batch, rule, n_slots=n_slots)
            if step.is_look:
                refuse_non_finite(fetch(finite))
                so_far, recent = _add(so_far, recent), place(nothing, mesh)
                if saved.due():
                    saved.save(step.done, {**so_far, "unit_sum": _whole(unit_sum, w_in.shape[1])})
        refuse_non_finite(fetch(finite))
        so_far = _add(so_far, recent)
        n_distinct = (so_far["fired"] - so_far["zero"]).astype(np.float32)
        by_band, of_all = fetch(_distances(unit_sum, tiles.w, place(n_distinct, mesh)))
    return _in_order(so_far, by_band, of_all, layout, places, w_in.shape[2])


def _nothing(layout: Tiles, n_slots: int) -> Store:
    """What is known before the first batch: the fields of `Seen`, with a leading axis over layers, and the tokens."""
    n_layers, n_blocks, d_model, width = layout.w.shape
    shape = n_layers, n_blocks
    return {
        "unit_sum": np.zeros((*shape, d_model, N_BANDS, width), np.float32),
        "fired": np.zeros((*shape, N_BANDS, width), np.int64),
        "zero": np.zeros((*shape, N_BANDS, width), np.int64),
        "mass": np.zeros((*shape, width)),
        "excited": np.zeros((*shape, n_slots, width), np.int64),
        "excited_mass": np.zeros((*shape, n_slots, width)),
        "n_tokens": np.zeros(1, np.int64),
    }


def _small(total: np.ndarray) -> np.ndarray:
    """Zeros for what a device adds up before the host does, in half the bits."""
    return np.zeros(total.shape, np.int32 if np.issubdtype(total.dtype, np.integer) else np.float32)


def _add(so_far: Store, recent: dict[str, Array]) -> Store:
    return {name: total + fetch(recent[name]) for name, total in so_far.items()}


def _spread(unit_sum: np.ndarray, mesh: Mesh) -> Array:
    """Put the sums on the devices, their dimensions spread; zeros fill up the last."""
    return place(fill_up(unit_sum, up_to_devices(unit_sum.shape[2], mesh), axis=2), mesh, None, None, AXIS)


def _whole(unit_sum: Array, d_model: int) -> np.ndarray:
    return fetch(unit_sum)[:, :, :d_model]


Carry = tuple[Array, dict[str, Array], Bool[Array, " n_layers"]]
"""The sums of unit embeddings, the rest of what was seen recently, and which layers' activations were finite."""


@partial(jax.jit, static_argnames="n_slots", donate_argnames="carry")
@layer_program
def _add_batch(
    carry: Carry, model: ReplicatedModel, tiles: Tiles, batch: Any, rule: PeakRule, *, n_slots: int
) -> Carry:
    """Add a batch to what was seen."""
    tokens, length, _ = batch
    can_peak = rule.allows(tokens, length)
    unit_sum, recent, finite = carry
    missing = unit_sum.shape[2] - tiles.w.shape[2]

    def of_rows(model: Any, rows: tuple[Array, Array], tiles: Tiles) -> tuple[Array, dict[str, Array], Array]:
        tokens, can_peak = rows

        def read(view: LayerView) -> tuple[Array, dict[str, Array], Array]:
            x, activation = (
                jnp.where(can_peak[:, :, None], value, 0).reshape(-1, value.shape[-1]).astype(jnp.float32)
                for value in (view.mlp_input, view.activation)
            )
            seen = look(tiles, view.layer, x, activation, n_slots)._asdict()
            # Each device keeps some dimensions of the sums: together they hold them once.
            of_all = jnp.pad(seen.pop("unit_sum"), ((0, 0), (0, missing), (0, 0), (0, 0)))
            of_all = lax.psum_scatter(of_all, AXIS, scatter_dimension=1, tiled=True)
            wrong = ~(jnp.isfinite(x).all() & jnp.isfinite(activation).all())
            return of_all, seen, wrong.astype(jnp.int32)

        of_all, seen, wrong = model(tokens, reader=read)[1]
        return of_all, *lax.psum((seen | {"n_tokens": can_peak.sum(dtype=jnp.int32)[None]}, wrong), AXIS)

    out = PartitionSpec(None, None, AXIS), EVERYWHERE, EVERYWHERE
    of_batch, seen, wrong = model.over_rows(of_rows, (tokens, can_peak), tiles, out=out)
    return unit_sum + of_batch, jax.tree.map(jnp.add, recent, seen), finite & (wrong == 0)


@jax.jit
def _distances(
    unit_sum: Float[Array, "n_layers n_blocks d_spread n_bands width"],
    w: Float[Array, "n_layers n_blocks d_model width"],
    count: Float[Array, "n_layers n_blocks n_bands width"],
) -> tuple[Array, Array]:
    """Mean distances by band, [n_layers, n_blocks, n_bands, width], and over all bands, without that axis."""

    def block(of_block: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        sums, w, count = of_block
        sums = sums[: len(w)] * w[:, None]
        by_band = streaming_mean_distance(sums.reshape(len(w), -1), count.ravel())
        return by_band.reshape(count.shape), streaming_mean_distance(sums.sum(axis=1), count.sum(axis=0))

    def layer(of_layer: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        return lax.map(block, of_layer)

    return lax.map(layer, (unit_sum, w, count))


def _in_order(
    so_far: Store, by_band: np.ndarray, of_all: np.ndarray, layout: Tiles, places: Places, d_mlp: int
) -> Census:
    """What was seen, neuron by neuron and feature by feature."""
    n_layers = len(layout.neuron)
    order = layout.neuron.reshape(n_layers, -1)

    def neurons(values: np.ndarray) -> np.ndarray:
        """[n_layers, n_blocks, *rest, width] -> [n_layers, d_mlp, *rest]"""
        found = np.empty((n_layers, d_mlp + 1, *values.shape[2:-1]), values.dtype)
        flat = np.moveaxis(values, -1, 2).reshape(n_layers, order.shape[1], *values.shape[2:-1])
        found[np.arange(n_layers)[:, None], order] = flat
        return found[:, :d_mlp]

    def features(values: np.ndarray) -> np.ndarray:
        return values[places.layer, places.block, places.slot, places.column]

    n_tokens = int(so_far["n_tokens"][0])
    mass = np.where(so_far["mass"] > 0, so_far["mass"], np.nan)
    return Census(
        band_count=neurons(so_far["fired"]),
        band_mean_distance=neurons(by_band),
        corpus_mean_distance=neurons(of_all),
        frequency=features(so_far["excited"]) / max(n_tokens, 1),
        coverage=features(so_far["excited_mass"] / mass[:, :, None]),
        neuron_coverage=neurons(so_far["excited_mass"].sum(axis=2) / mass),
        n_tokens=np.array(n_tokens),
    )
