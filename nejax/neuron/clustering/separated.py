"""How many features a neuron has: cuts of its dendrogram, each where it is, that stand a test."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, ScalarLike

from nejax.errors import UserError
from nejax.neuron._kernels.one_kernel import zero_of
from nejax.neuron.array_function import array_function
from nejax.neuron.clustering.average_linkage import Linkage
from nejax.neuron.clustering.labels import relabel
from nejax.neuron.clustering.pairs import masked_distances
from nejax.neuron.defaults import MIN_SUPPORT, RESOLUTION, least_separation
from nejax.neuron.precision import at_least_float32

_LEAST_COSINE = 1e-3
"""A mean cosine below this counts as this: it has no direction to speak of."""


class Separated(NamedTuple):
    """A neuron's features, and what speaks for each.

    Example:
        >>> x, w = np.eye(4)[[0, 0, 0, 1, 1, 1, 2]], np.ones(4)
        >>> distances = nejax.embedding_distances(x, w)
        >>> found = nejax.separated(distances, nejax.average_linkage(distances), unrelated=1.0, min_support=3)
        >>> print(found.labels, found.direction_distance[:3])
        [ 0  0  0  1  1  1 -1] [ 1.  1. nan]
    """

    labels: Int[Array, " n"]
    """`[n]` int32 the feature of each example, numbered in the order of their first examples; -1 where an example
    belongs to none, or is masked."""
    reach: Float[Array, " n"]
    """`[n]` entry `c`: the mean distance to the examples of feature `c` up to which an input is the feature's."""
    separation: Float[Array, " n"]
    """`[n]` entry `c`: the least separation of feature `c` from another, in standard deviations; NaN if there is none.
    Infinite if the examples of each are all alike."""
    direction_distance: Float[Array, " n"]
    """`[n]` entry `c`: the least distance of the direction of feature `c` from another's, as a share of the distance of
    unrelated inputs; NaN if there is none."""


@array_function
def separated(
    distances: Float[Array, "n n"],
    linkage: Linkage,
    unrelated: ScalarLike,
    *,
    min_support: int = MIN_SUPPORT,
    resolution: ScalarLike = RESOLUTION,
) -> Separated:
    """Split a neuron's examples where two sides of its dendrogram are separated, and nowhere else.

    Two groups of examples A and B are *separated* if both of these hold, with `s_ij = 1 - d_ij` and `q_iC` the mean of
    `s_ij` over `j` in C other than `i`:

    1. More than chance makes. Each example has a score, `t_i = q_iA - q_iB`. The separation
       `(mean_A t - mean_B t) / sd`, where `sd` is the pooled standard deviation within A and within B, must exceed
       `nejax.neuron.defaults.least_separation`, which noise hardly ever does: 2 of 1,800 neurons without a feature or
       with one were split (32 to 128 examples in 64 to 768 dimensions).
    2. In different directions. With `W_A`, `W_B` the mean similarity within each and `b` that between, the cosine of
       the two directions is `b / sqrt(W_A W_B)`: noise that examples have each for themselves cancels. One minus this
       cosine must exceed `resolution * unrelated`.

    The reach of a group is halfway from the mean distance within it to `unrelated`. An example whose mean distance to
    the others exceeds it does not count in the two tests, and at least `min_support` must be left on each side.

    A dendrogram's merge splits its node if its two sides are separated, and all nodes above then. So different
    features may end at different heights. Of the groups that are left, those of at least `min_support` examples are
    features; two that are not separated from each other become one. At last each example goes to the nearest direction,
    and to none if it is beyond that feature's reach.

    Args:
        distances: `[n, n]` cosine distances of the neuron embeddings, such as `embedding_distances`; only those above
            the diagonal are read.
        linkage: `average_linkage` of the distances.
        unrelated: `[]` the distance of unrelated inputs as the neuron sees them:
            `calibrated_height(reference, w, quantile=0.5)`.
        min_support: the fewest examples of a feature, at least 2; static.
        resolution: `[]` how far apart the directions of two features are at least, as a share of `unrelated`.

    Returns:
        A `Separated`. There may be one feature, or none. It has no gradient.

    Raises:
        UserError: shapes that do not fit, or a number out of range.

    Example:
        >>> x, w = np.eye(4)[[0, 0, 0, 1, 1, 1, 2]], np.ones(4)
        >>> distances = nejax.embedding_distances(x, w)
        >>> found = nejax.separated(distances, nejax.average_linkage(distances), unrelated=1.0, min_support=3)
        >>> print(found.labels)
        [ 0  0  0  1  1  1 -1]
    """
    if min_support < 2:
        raise UserError(f"min_support is {min_support}; expected at least 2")
    return _separated(distances, linkage, unrelated, resolution, min_support=min_support)


@partial(jax.jit, static_argnames="min_support")
def _separated(
    distances: Array, linkage: Linkage, unrelated: ScalarLike, resolution: ScalarLike, *, min_support: int
) -> Separated:
    similarity = _similarity(distances, linkage.mask)
    unrelated, resolution = (jnp.asarray(value).astype(similarity.dtype) for value in (unrelated, resolution))
    apart = _Apart(unrelated, resolution)
    groups = _groups(similarity, linkage, apart, min_support)
    sides = _of_groups(groups, max(1, similarity.shape[0] // min_support), similarity.dtype)
    sides = _merge_unseparated(similarity, sides, apart, min_support)
    for _ in range(2):
        sides = _assign(similarity, sides, linkage.mask, apart, min_support)
    fine = jnp.isfinite(similarity).all() & jnp.isfinite(apart.unrelated)
    return _result(similarity, sides, apart, fine)


class _Apart(NamedTuple):
    """What separated means."""

    unrelated: Float[Array, ""]
    resolution: Float[Array, ""]


def _similarity(distances: Float[Array, "n n"], mask: Bool[Array, " n"]) -> Float[Array, "n n"]:
    """`1 - d_ij`, and 0 on the diagonal and where masked."""
    whole, mask, pairs = masked_distances(lax.stop_gradient(distances), mask)
    return jnp.where(pairs, 1 - jnp.where(pairs, whole, 0), 0).astype(at_least_float32(distances))


def _groups(similarity: Float[Array, "n n"], linkage: Linkage, apart: _Apart, min_support: int) -> Int[Array, " n"]:
    """The node of the dendrogram that each example is left in: -1 if there are too few in it, or if masked."""
    n, dtype = similarity.shape[0], similarity.dtype
    if n == 1:
        return jnp.full(1, -1, jnp.int32)
    children = linkage.merges[:, :2].astype(jnp.int32)
    is_real = jnp.arange(n - 1, dtype=jnp.int32) < linkage.n_merges
    nodes = jnp.arange(2 * n - 1, dtype=jnp.int32)
    zero = zero_of(similarity, linkage.mask)
    leaves = jnp.eye(n, dtype=dtype) * linkage.mask.astype(dtype)[:, None]
    within = jnp.concatenate([leaves, jnp.zeros((n - 1, n), dtype)]) + zero.astype(dtype)

    def join(k: Int[Array, ""], within: Array) -> Array:
        both = within[children[k, 0]] + within[children[k, 1]]
        return jnp.where((nodes == n + k)[:, None], jnp.where(is_real[k], both, 0)[None], within)

    within = lax.fori_loop(0, n - 1, join, within)  # [nodes, n]
    # Every merge's two sides, without what is too far from the rest of its side.
    inner = _inner(similarity, within.T, apart).T  # [nodes, n]
    both = jax.vmap(lambda two: _pairs(similarity, inner[two].T))(children)  # [merges, 2, 2]
    separation, direction_distance, fewest = (field[:, 0, 1] for field in both[:3])
    splits = is_real & (_strength(separation, direction_distance, fewest, apart, min_support) > 1)

    def spread_up(k: Int[Array, ""], state: tuple[Array, Array]) -> tuple[Array, Array]:
        split, below_split = state  # of each node: whether something in it splits, and whether its parent is split
        here = (splits[k] | split[children[k, 0]] | split[children[k, 1]]) & is_real[k]
        split = jnp.where(nodes == n + k, here, split)
        is_child = ((nodes == children[k, 0]) | (nodes == children[k, 1])) & is_real[k]
        return split, jnp.where(is_child, here, below_split)

    nobody = jnp.zeros(2 * n - 1, bool) | (zero > 0)
    # The root has no parent; it is all there is if nothing splits.
    is_root = nodes == jnp.where(linkage.n_merges > 0, n + linkage.n_merges - 1, -1)
    split, below_split = lax.fori_loop(0, n - 1, spread_up, (nobody, nobody))
    is_group = ~split & (below_split | is_root) & (within.sum(axis=1) >= min_support)
    found = is_group[:, None] & (within > 0)  # [nodes, n]
    return jnp.where(found.any(axis=0), jnp.argmax(found, axis=0).astype(jnp.int32), -1)


def _apart(within_a: Array, within_b: Array, between: Array, spread: Array) -> tuple[Array, Array]:
    """The separation of two groups, and the distance of their directions.

    Args:
        within_a: mean similarity within the one.
        within_b: mean similarity within the other.
        between: mean similarity between the two.
        spread: pooled variance of the scores within the groups.
    """
    gap = within_a + within_b - 2 * between
    # What rounding leaves of a variance of zero is no spread.
    floor = jnp.finfo(spread.dtype).eps ** 2 * 256
    separation = jnp.where(spread > floor, gap / jnp.sqrt(jnp.maximum(spread, floor)), jnp.where(gap > 0, jnp.inf, 0))
    lengths = jnp.sqrt(jnp.maximum(within_a, _LEAST_COSINE) * jnp.maximum(within_b, _LEAST_COSINE))
    return separation, 1 - between / lengths


def _strength(
    separation: Array, direction_distance: Array, fewest: Array, apart: _Apart, min_support: int
) -> Float[Array, "..."]:
    """Above 1 where two groups are separated: how far what is weakest exceeds what is demanded."""
    wanted = apart.resolution * apart.unrelated
    by_direction = jnp.where(wanted > 0, direction_distance / jnp.where(wanted > 0, wanted, 1), 0)
    strength = jnp.minimum(separation / least_separation(jnp.maximum(fewest, 1)), by_direction)
    return jnp.where(fewest >= min_support, strength, 0)


def _inner(similarity: Float[Array, "n n"], sides: Float[Array, "n groups"], apart: _Apart) -> Float[Array, "n groups"]:
    """Each group without the examples that are beyond its reach."""
    number = sides.sum(axis=0)
    score = similarity @ sides / jnp.maximum(number - 1, 1)[None]
    within = (score * sides).sum(axis=0) / jnp.maximum(number, 1)
    return jnp.where((1 - score) <= _reach(within, apart)[None], sides, 0)


def _of_groups(groups: Int[Array, " n"], most: int, dtype: jnp.dtype) -> Float[Array, "n most"]:
    """Entry `(i, c)`: 1 where example `i` is in group `c`."""
    labels = relabel(groups, groups >= 0)
    return (labels[:, None] == jnp.arange(most, dtype=jnp.int32)[None]).astype(dtype)


class _Pairs(NamedTuple):
    """Every two groups, [most, most], but for the scores."""

    separation: Array
    direction_distance: Array
    fewest: Array
    both: Array
    """Whether there are two."""
    score: Array
    """[n, most] mean similarity of each example to each group, itself left out."""
    within: Array
    """[most] mean similarity within each group."""


def _pairs(similarity: Float[Array, "n n"], sides: Float[Array, "n most"]) -> _Pairs:
    number = sides.sum(axis=0)
    score = similarity @ sides / jnp.maximum(number[None] - sides, 1)
    mean = sides.T @ score / jnp.maximum(number, 1)[:, None]  # of group c to group d
    centred = score - sides @ mean  # of each example, less the mean of its own group
    second = jnp.einsum("ic,ik,il->ckl", sides, centred, centred)  # summed over the examples of group c
    own = jnp.einsum("ccc->c", second)[:, None]
    other = jnp.einsum("cdd->cd", second)
    mixed = jnp.einsum("ccd->cd", second)
    summed = own + other - 2 * mixed  # over the examples of c, of (score to c - score to d)^2
    spread = (summed + summed.T) / jnp.maximum(number[:, None] + number[None], 1)
    within = jnp.diagonal(mean)
    between = (mean + mean.T) / 2
    separation, direction_distance = _apart(within[:, None], within[None], between, spread)
    there = number > 0
    both = there[:, None] & there[None] & ~jnp.eye(len(number), dtype=bool)
    fewest = jnp.minimum(number[:, None], number[None])
    return _Pairs(separation, direction_distance, fewest, both, score, within)


def _merge_unseparated(
    similarity: Float[Array, "n n"], sides: Float[Array, "n most"], apart: _Apart, min_support: int
) -> Float[Array, "n most"]:
    """Merge the two groups that are least separated, until all are separated from each other."""
    most = sides.shape[1]

    def least(sides: Array) -> tuple[Array, Array, Array]:
        pairs = _pairs(similarity, _inner(similarity, sides, apart))
        strength = _strength(pairs.separation, pairs.direction_distance, pairs.fewest, apart, min_support)
        there = sides.sum(axis=0) > 0
        both = there[:, None] & there[None] & ~jnp.eye(most, dtype=bool)
        strength = jnp.where(both, strength, jnp.inf).reshape(-1)
        weakest = jnp.argmin(strength)
        i, j = weakest // most, weakest % most
        return strength[weakest] <= 1, jnp.minimum(i, j), jnp.maximum(i, j)

    def merge(state: tuple[Array, tuple[Array, Array, Array]]) -> tuple[Array, tuple[Array, Array, Array]]:
        sides, (_, kept, dropped) = state
        columns = jnp.arange(most)
        joined = sides[:, kept] + sides[:, dropped]
        sides = jnp.where((columns == kept)[None], joined[:, None], jnp.where((columns == dropped)[None], 0, sides))
        return sides, least(sides)

    return lax.while_loop(lambda state: state[1][0], merge, (sides, least(sides)))[0]


def _assign(
    similarity: Float[Array, "n n"],
    sides: Float[Array, "n most"],
    mask: Bool[Array, " n"],
    apart: _Apart,
    min_support: int,
) -> Float[Array, "n most"]:
    """Give each example to the nearest direction, or to none; drop what has too few then."""
    pairs, there = _pairs(similarity, sides), sides.sum(axis=0) > 0
    lengths = jnp.sqrt(jnp.maximum(pairs.within, _LEAST_COSINE))[None]
    cosine = jnp.where(there[None], pairs.score / lengths, -jnp.inf)
    nearest = jnp.argmax(cosine, axis=1)
    is_nearest = nearest[:, None] == jnp.arange(sides.shape[1])[None]
    reached = (1 - pairs.score) <= _reach(pairs.within, apart)[None]
    assigned = (is_nearest & reached & there[None] & mask[:, None]).astype(sides.dtype)
    return jnp.where((assigned.sum(axis=0) >= min_support)[None], assigned, 0)


def _reach(within: Float[Array, " most"], apart: _Apart) -> Float[Array, " most"]:
    """Halfway from the mean distance within a group to that of unrelated inputs."""
    return ((1 - within) + apart.unrelated) / 2


def _result(
    similarity: Float[Array, "n n"], sides: Float[Array, "n most"], apart: _Apart, fine: Bool[Array, ""]
) -> Separated:
    n, most = sides.shape
    assigned = (sides.sum(axis=1) > 0) & fine
    labels = relabel(jnp.argmax(sides, axis=1).astype(jnp.int32), assigned)
    ordered = (labels[:, None] == jnp.arange(most, dtype=jnp.int32)[None]).astype(sides.dtype)
    pairs, there = _pairs(similarity, ordered), ordered.sum(axis=0) > 0

    def each(values: Float[Array, " most"], known: Bool[Array, " most"]) -> Float[Array, " n"]:
        return jnp.pad(jnp.where(known, values, jnp.nan), (0, n - most), constant_values=jnp.nan)

    has_other = pairs.both.any(axis=1)
    separation = jnp.min(jnp.where(pairs.both, pairs.separation, jnp.inf), axis=1)
    direction_distance = jnp.min(jnp.where(pairs.both, pairs.direction_distance, jnp.inf), axis=1) / apart.unrelated
    return Separated(
        labels=labels,
        reach=each(_reach(pairs.within, apart), there),
        separation=each(separation, has_other),
        direction_distance=each(direction_distance, has_other),
    )
