"""The features of all neurons, laid out for a pass over the corpus that finds which of them each token excites.

Neurons have from none to as many features as examples. Those of a layer are sorted by how many they have and cut into
blocks of equal width; within a block, the first features of all its neurons are one *tile* of directions, the second
ones the next, and so on: `x @ tile` is one matrix product of a good size, with little padding, and the number of tiles
of a block may differ between layers within one program.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Float16, Int

from nejax.neuron._kernels.one_kernel import each_row, loops_are_kernels, on_cpu, small_call
from nejax.neuron.polysemanticity import inverse_norms, scaled

EDGES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
"""Of the bands of activation, as fractions of the neuron's maximum: band `b` is above edge `b` and up to edge `b + 1`,
the last one all above its lower edge."""

N_BANDS = len(EDGES) - 1

_WIDTH_ON_CPU, _WIDTH = 128, 1024
"""Neurons of a block, approximately, so that a block fits into the cache of a CPU core."""


class Tiles(NamedTuple):
    """Neurons and their features in blocks and tiles; arrays on the host, or on the devices."""

    neuron: Int[Any, "n_layers n_blocks width"]
    """int32: neurons of the layer, those with most features first; `d_mlp` where a block is filled up."""
    w: Float[Any, "n_layers n_blocks d_model width"]
    """Their input weights, float32, each neuron's divided by its largest."""
    edge: Float[Any, "n_layers n_blocks n_bands width"]
    """float32: the lower edge of each band, an activation."""
    first: Int[Any, "n_layers n_blocks"]
    """int32: the first tile of each block."""
    n_slots: Int[Any, "n_layers n_blocks"]
    """int32: how many tiles it has."""
    direction: Float16[Any, "n_tiles d_model width"]
    """Unit directions; zeros where a neuron has fewer features than the first of its block."""
    minimum: Float[Any, "n_tiles width"]
    """float32: the least similarity to each; infinity where there is none."""


class Seen(NamedTuple):
    """Sums over one layer's tokens. All fields have the leading axis `n_blocks`, and last `width`."""

    unit_sum: Float[Array, "n_blocks d_model n_bands width"]
    """Sum of scaled inputs over embeddings' lengths: times `w`, the sum of unit embeddings."""
    fired: Int[Array, "n_blocks n_bands width"]
    """int32: tokens at which the neuron fires."""
    zero: Int[Array, "n_blocks n_bands width"]
    """int32: those of them whose embedding is zero."""
    mass: Float[Array, "n_blocks width"]
    """Sum of positive activations."""
    excited: Int[Array, "n_blocks n_slots width"]
    """int32: tokens at which the neuron fires and the feature is excited."""
    excited_mass: Float[Array, "n_blocks n_slots width"]
    """Sum of the activations there."""


class Places(NamedTuple):
    """Where each feature is: `array[layer, block, slot, column]`; [n_features] each, in the order of their ids."""

    layer: np.ndarray
    block: np.ndarray
    slot: np.ndarray
    column: np.ndarray


def lay_out(
    w_in: np.ndarray, n_features: np.ndarray, directions: list[np.ndarray], minimum: np.ndarray, maximum: np.ndarray
) -> tuple[Tiles, Places]:
    """Lay out the features of all neurons.

    Args:
        w_in: [n_layers, d_model, d_mlp] input weights.
        n_features: [n_layers, d_mlp] int, of each neuron.
        directions: of each layer, [its features, d_model], neuron by neuron.
        minimum: [all features] least similarity to each, layer by layer.
        maximum: [n_layers, d_mlp] each neuron's highest activation over the corpus.

    Returns:
        The layout, as NumPy arrays, and where in it each feature is.
    """
    n_layers, d_model, d_mlp = w_in.shape
    n_blocks = -(-d_mlp // (_WIDTH_ON_CPU if on_cpu() else _WIDTH))
    width = -(-d_mlp // n_blocks)
    n_filled = n_blocks * width

    order = np.full((n_layers, n_filled), d_mlp, np.int32)
    order[:, :d_mlp] = np.argsort(-n_features, axis=1, kind="stable")
    counts = np.pad(n_features, ((0, 0), (0, 1)))  # the neuron that fills up has no features, no weights
    n_slots = np.take_along_axis(counts, order, axis=1).reshape(n_layers, n_blocks, width).max(axis=2)
    ends = n_slots.cumsum().reshape(n_slots.shape)
    rank = np.empty((n_layers, d_mlp), np.int64)
    np.put_along_axis(rank, order[:, :d_mlp].astype(np.int64), np.arange(d_mlp)[None], axis=1)

    layer, neuron = (np.repeat(index.ravel(), n_features.ravel()) for index in np.indices(n_features.shape))
    slot = np.arange(len(neuron)) - np.repeat(n_features.ravel().cumsum() - n_features.ravel(), n_features.ravel())
    block, column = np.divmod(rank[layer, neuron], width)
    first = (ends - n_slots).astype(np.int32)
    tile = first[layer, block] + slot

    n_tiles = max(1, int(n_slots.sum()))
    direction = np.zeros((n_tiles, d_model, width), np.float16)
    least = np.full((n_tiles, width), np.inf, np.float32)
    for i, of_layer in enumerate(directions):
        here = layer == i
        direction[tile[here], :, column[here]] = of_layer
        least[tile[here], column[here]] = np.where(of_layer.any(axis=1), minimum[here], np.inf)

    def blocks(values: np.ndarray) -> np.ndarray:
        """[n_layers, rows, d_mlp] -> [n_layers, n_blocks, rows, width]"""
        filled = np.take_along_axis(np.pad(values, ((0, 0), (0, 0), (0, 1))), order[:, None], axis=2)
        return np.ascontiguousarray(filled.reshape(n_layers, -1, n_blocks, width).swapaxes(1, 2))

    largest = np.abs(w_in).max(axis=1, keepdims=True)
    edge = np.array(EDGES[:-1], np.float32)[:, None] * np.maximum(maximum, 0)[:, None].astype(np.float32)
    tiles = Tiles(
        neuron=order.reshape(n_layers, n_blocks, width),
        w=blocks(w_in.astype(np.float32) / np.where(largest < np.finfo(np.float32).tiny, 1, largest)),
        edge=blocks(edge),
        first=first,
        n_slots=n_slots.astype(np.int32),
        direction=direction,
        minimum=least,
    )
    return tiles, Places(layer, block, slot, column)


def look(
    tiles: Tiles,
    layer: Int[Array, ""],
    mlp_input: Float[Array, "tokens d_model"],
    activation: Float[Array, "tokens d_mlp"],
    n_slots: int,
) -> Seen:
    """What the tokens of one layer add up to.

    Args:
        tiles: on the device.
        layer: which one.
        mlp_input: input of the layer at each token.
        activation: of its neurons; 0 at tokens that do not count.
        n_slots: the most that any block has.

    Returns:
        Sums over the tokens.
    """
    x = scaled(mlp_input, axis=1)
    squares = x * x

    def block(of_block: tuple[Array, ...]) -> Seen:
        neuron, w, edge, first, slots = of_block
        a = jnp.take(activation, neuron, axis=1, mode="fill", fill_value=0)
        inverse = inverse_norms(squares, w * w)
        of_bands = _bands(x, a, inverse, edge)
        return Seen(*of_bands, *_features(x, a, inverse, w, tiles, first, slots, n_slots))

    of_layer = (tiles.neuron, tiles.w, tiles.edge, tiles.first, tiles.n_slots)
    return lax.map(block, tuple(values[layer] for values in of_layer))


def _bands(x: Array, a: Array, inverse: Array, edge: Array) -> tuple[Array, Array, Array, Array]:
    """Of a block's neurons in each band of activation: sums, counts; then the sum of all positive activations."""
    weights = _weights(a, inverse, edge)
    unit_sum = jnp.matmul(x.T, weights.reshape(len(a), -1), precision=lax.Precision.HIGHEST)
    fired, mass = _fired(a, edge)
    is_zero = inverse == 0
    zero = lax.cond((is_zero & (a > 0)).any(), lambda: _fired(jnp.where(is_zero, a, 0), edge)[0], lambda: fired - fired)
    return unit_sum.reshape(x.shape[1], *edge.shape), fired, zero, mass


@small_call
def _weights(
    a: Float[Array, "tokens width"], inverse: Float[Array, "tokens width"], edge: Float[Array, "n_bands width"]
) -> Float[Array, "tokens n_bands width"]:
    """The inverse norms in the band where each activation is, 0 in the others."""

    upper = jnp.pad(edge[1:], ((0, 1), (0, 0)), constant_values=jnp.inf)

    def row(a: Array, inverse: Array) -> Array:
        return jnp.where((a > edge) & (a <= upper), inverse, 0)

    return each_row(row, a, inverse)


@small_call
def _fired(
    a: Float[Array, "tokens width"], edge: Float[Array, "n_bands width"]
) -> tuple[Int[Array, "n_bands width"], Float[Array, " width"]]:
    """How many activations are in each band, and the sum of the positive ones."""

    def add(above: Array, mass: Array, a: Array) -> tuple[Array, Array]:
        return above + (a > edge).astype(jnp.int32), mass + jnp.maximum(a, 0)

    if loops_are_kernels():  # sums down the columns, each a loop of its own, are slow there
        zero = _zero_of(a)
        start = zero + jnp.zeros_like(edge, jnp.int32), zero.astype(a.dtype)
        above, mass = lax.fori_loop(0, len(a), lambda i, sums: add(sums[0], sums[1], a[i]), start)
    else:
        above, mass = (a[:, None] > edge).sum(axis=0, dtype=jnp.int32), jnp.maximum(a, 0).sum(axis=0)
    return above - jnp.pad(above[1:], ((0, 1), (0, 0))), mass


def _features(
    x: Array, a: Array, inverse: Array, w: Array, tiles: Tiles, first: Array, slots: Array, n_slots: int
) -> tuple[Array, Array]:
    """How often each feature of a block is excited, and the activation there, [n_slots, width] each."""
    may = (a > 0) & (inverse > 0)

    def best_of(slot: Array, found: tuple[Array, Array]) -> tuple[Array, Array]:
        direction = w * tiles.direction[first + slot].astype(jnp.float32)
        product = jnp.matmul(x, direction, precision=lax.Precision.HIGHEST)
        return _the_better(product, inverse, *found, tiles.minimum[first + slot], slot)

    # No similarity is above infinity: there a token excites nothing.
    start = jnp.where(may, -jnp.inf, jnp.inf), jnp.where(may, -1, -1).astype(jnp.int32)
    which = lax.fori_loop(0, slots, best_of, start)[1]

    def count(slot: Array, so_far: tuple[Array, Array]) -> tuple[Array, Array]:
        excited, mass = so_far
        of_slot = _count(which, a, slot)
        return excited.at[slot].set(of_slot[0]), mass.at[slot].set(of_slot[1])

    nothing = jnp.broadcast_to(_zero_of(a), (n_slots, a.shape[1]))
    return lax.fori_loop(0, slots, count, (nothing, nothing.astype(a.dtype)))


@small_call
def _the_better(
    product: Array, inverse: Array, highest: Array, which: Array, minimum: Array, slot: Array
) -> tuple[Array, Array]:
    def row(product: Array, inverse: Array, highest: Array, which: Array) -> tuple[Array, Array]:
        similarity = product * inverse
        better = (similarity >= minimum) & (similarity > highest)
        return jnp.where(better, similarity, highest), jnp.where(better, slot, which)

    return each_row(row, product, inverse, highest, which)


@small_call
def _count(which: Array, a: Array, slot: Array) -> tuple[Array, Array]:
    if not loops_are_kernels():
        won = which == slot
        return won.sum(axis=0, dtype=jnp.int32), jnp.where(won, a, 0).sum(axis=0)

    def add(i: Array, so_far: tuple[Array, Array]) -> tuple[Array, Array]:
        won = which[i] == slot
        return so_far[0] + won.astype(jnp.int32), so_far[1] + jnp.where(won, a[i], 0)

    zero = _zero_of(a)
    return lax.fori_loop(0, len(which), add, (zero, zero.astype(a.dtype)))


def _zero_of(a: Float[Array, "tokens width"]) -> Int[Array, " width"]:
    """Zeros that vary over devices as the arguments do, for `shard_map`: loops must start with the type that they carry
    on."""
    return (a[0] > jnp.inf).astype(jnp.int32)
