"""Connected components of the graph of near examples: single linkage cut at a height."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, ScalarLike

from nejax.neuron._kernels.one_kernel import padded_to_lanes, small_call, zero_of
from nejax.neuron.array_function import array_function
from nejax.neuron.clustering.labels import relabel
from nejax.neuron.clustering.pairs import masked_distances


@array_function
@jax.jit
def connected_components(
    distances: Float[Array, "n n"], height: ScalarLike, mask: Bool[Array, " n"] | None = None
) -> Int[Array, " n"]:
    """Label the examples that are linked by steps of at most `height`.

    The graph has an edge between `i` and `j` where `d_ij <= height`; its connected components are the
    clusters of single linkage cut at `height`. This is how the notes of the paper's GPT-2 viewer describe its
    clusters: similarity above a threshold is distance below one minus it. Each round a row takes the lowest
    label among its neighbours and then that label's own label; the rounds end when nothing changes.
    Source: Foote 2024, arXiv 2411.08166 (the viewer that comes with it).

    Args:
        distances: `[n, n]` distances; only those above the diagonal are read. +inf is no edge.
        height: `[]` in the units of the distances.
        mask: `[n]` false where a row does not count; all rows count if None.

    Returns:
        `[n]` int32 labels 0..k-1 in order of first appearance; -1 where masked, and everywhere if a distance
        between unmasked rows is NaN. No gradient.

    Raises:
        UserError: the distances are not square, or the mask has another length.

    Example:
        >>> x, w = np.eye(4)[[0, 0, 1, 1, 1, 2]], np.ones(4)
        >>> print(nejax.connected_components(nejax.embedding_distances(x, w), 0.5))
        [0 0 1 1 1 2]
    """
    mask = jnp.ones(distances.shape[0], bool) if mask is None else mask
    return _components(lax.stop_gradient(distances), jnp.asarray(height), mask)


@small_call
def _components(distances: Float[Array, "n n"], height: Array, mask: Bool[Array, " n"]) -> Int[Array, " n"]:
    rows = len(mask)
    filler = padded_to_lanes(rows) - rows
    distances = jnp.pad(distances, (0, filler), constant_values=jnp.inf)
    distances, mask, pairs = masked_distances(distances, jnp.pad(mask, (0, filler), constant_values=False))
    n = len(mask)
    edges = pairs & (distances <= height)

    def spread(state: tuple[Array, Array]) -> tuple[Array, Array]:
        labels, _ = state
        lowest = jnp.min(jnp.where(edges, labels[:, None], n), axis=0)  # over rows: columns fill vector registers
        new = jnp.minimum(labels, lowest)
        new = new[new]
        return new, jnp.any(new != labels)

    zero = zero_of(distances, mask)
    labels, _ = lax.while_loop(lambda state: state[1], spread, (jnp.arange(n, dtype=jnp.int32) + zero, zero == 0))
    return relabel(labels, mask & ~jnp.any(jnp.isnan(distances)))[:rows]
