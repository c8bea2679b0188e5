"""Which feature of a neuron a new input excites: features as directions."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, ScalarLike

from nejax.errors import UserError
from nejax.neuron.array_function import array_function
from nejax.neuron.clustering.labels import members
from nejax.neuron.clusters import feature_similarity
from nejax.neuron.embeddings import unit_embeddings
from nejax.neuron.precision import at_least_float32


class Assignment(NamedTuple):
    """The feature that each input excites. Under `vmap`, a leading axis runs over neurons.

    Example:
        >>> found = nejax.assign(np.eye(4)[:3], np.ones(4), np.eye(4)[:2])
        >>> print(found.similarity)
        [1. 1. 0.]
    """

    feature: Int[Array, " m"]
    """`[m]` int32: row of the directions; -1 where the input excites none of them."""
    similarity: Float[Array, " m"]
    """`[m]` cosine between the input's embedding and the direction of its feature; where it has none, the highest to
    any direction; 0 for a zero embedding, NaN where there is no direction at all."""


@array_function
@jax.jit
def assign(
    x: Float[Array, "m d"],
    w: Float[Array, " d"],
    directions: Float[Array, "k d"],
    min_similarity: ArrayLike = 0.5,
) -> Assignment:
    """Find which feature of a neuron each input excites.

    With `c_f` the direction of feature `f`, `similarity_f = x . (w * c_f) / |x * w|`. The input excites the feature of
    the highest similarity among those whose own minimum is reached, `similarity_f >= min_similarity_f`; of equally
    similar ones, the first. To leave features out, for example to pad a batch under `vmap`, make their directions zero:
    a zero direction is never assigned, whatever its minimum, nor is an input whose embedding is zero. Whether the
    neuron fires at an input is not checked.

    Args:
        x: `[m, d_model]` inputs of the neuron's layer.
        w: `[d_model]` the neuron's input weights.
        directions: `[k, d_model]` unit directions, see `feature_directions`; zero rows are masked.
        min_similarity: `[]` or `[k]` the least cosine, such as `min_similarity`.

    Returns:
        Features and similarities.

    Raises:
        UserError: the shapes do not fit.

    Example:
        >>> x, w = np.eye(4)[[0, 0, 1, 1, 1, 2]], np.ones(4)
        >>> print(nejax.assign(x, w, directions=np.eye(4)[:2]).feature)
        [ 0  0  1  1  1 -1]
    """
    if jnp.shape(min_similarity) not in ((), directions.shape[:1]):
        raise UserError(
            f"min_similarity has shape {jnp.shape(min_similarity)}; expected one number, or one for each of "
            f"{len(directions)} directions"
        )
    similarity = feature_similarity(x, w, directions)
    is_there = jnp.any(directions != 0, axis=1)
    excites = jnp.any(unit_embeddings(x, w) != 0, axis=1)
    if directions.shape[0] == 0:
        return Assignment(jnp.full(len(x), -1, jnp.int32), jnp.full(len(x), jnp.nan, similarity.dtype))
    minimum = jnp.broadcast_to(jnp.asarray(min_similarity).astype(similarity.dtype), len(directions))
    reached = is_there[None, :] & (similarity >= minimum[None, :]) & excites[:, None]
    best = jnp.where(reached, similarity, -jnp.inf)
    feature = jnp.where(jnp.any(reached, axis=1), jnp.argmax(best, axis=1), -1).astype(jnp.int32)
    nearest = jnp.where(jnp.any(is_there), jnp.max(jnp.where(is_there[None, :], similarity, -jnp.inf), axis=1), jnp.nan)
    return Assignment(feature, jnp.where(feature >= 0, jnp.max(best, axis=1), nearest))


@array_function
@jax.jit
def min_similarity(cohesion: Float[Array, " n"], labels: Int[Array, " n"], height: ScalarLike) -> Float[Array, " n"]:
    """The least similarity to each feature's direction at which an input is as near to its examples as they must be.

    Average linkage joins what is at most `height` apart in the mean. With `m` the mean of the feature's `k` unit
    embeddings, `c = m / |m|` its direction, and `u` the unit embedding of an input, the mean cosine between the input
    and the examples is `u . m = (u . c) |m|`, where `|m|^2 = (1 + (k - 1) mean cohesion) / k`. So the input's mean
    distance to the examples is at most `height` if and only if `u . c >= (1 - height) / |m|`.

    Args:
        cohesion: `[n]` of each example, from `cohesion`; not read where an example is alone.
        labels: `[n]` the cluster of each example; -1 where masked.
        height: `[]` cosine distance at which the neuron's dendrogram is cut.

    Returns:
        `[n]` float32: entry `c` is the minimum of cluster `c` for `assign`; +inf, never reached, where there is no
        cluster `c` or its embeddings cancel out.

    Raises:
        UserError: the two differ in length.

    Example:
        >>> x, w, labels = np.eye(4)[[0, 0, 1, 1, 1, 2]], np.ones(4), [0, 0, 1, 1, 1, 2]
        >>> cohesion = nejax.cohesion(nejax.embedding_distances(x, w), labels)
        >>> print(nejax.min_similarity(cohesion, labels, height=0.5))
        [0.5 0.5 0.5 inf inf inf]
    """
    member, cohesion = members(labels, len(labels)), cohesion.astype(at_least_float32(cohesion))
    size = jnp.sum(member, axis=1, dtype=jnp.int32)
    # Each example of a cluster has equally many others: the mean over examples is the mean over pairs.
    sums = jnp.sum(jnp.where(member & ~jnp.isnan(cohesion)[None, :], cohesion[None, :], 0), axis=1)
    mean = sums / jnp.maximum(size, 1).astype(sums.dtype)
    height = jnp.broadcast_to(jnp.asarray(height, jnp.float32), mean.shape)
    least = min_similarity_of_features(height, mean, jnp.maximum(size, 1))
    return jnp.where(size > 0, least, jnp.inf)


def min_similarity_of_features(
    height: Float[ArrayLike, "*features"],
    cohesion: Float[ArrayLike, "*features"],
    n_examples: Int[ArrayLike, "*features"],
) -> Float[Array, "*features"]:
    """`min_similarity` of features of any neurons, from what is known of each.

    Args:
        height: cosine distance at which the neuron's dendrogram is cut.
        cohesion: mean cosine over all pairs of the feature's examples; not read where there is only one.
        n_examples: of the feature, at least 1.

    Returns:
        The minimum for `assign`, in float32; +inf, never reached, where the embeddings cancel out.
    """
    n = jnp.asarray(n_examples, jnp.float32)
    pairs = jnp.where(n > 1, (n - 1) * jnp.asarray(cohesion, jnp.float32), 0)
    square = (1 + pairs) / n
    cancel = square <= 0
    return jnp.where(cancel, jnp.inf, (1 - jnp.asarray(height, jnp.float32)) / jnp.sqrt(jnp.where(cancel, 1, square)))
