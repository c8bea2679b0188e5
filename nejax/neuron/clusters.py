"""The features of a labeling of one neuron's examples: their cohesion, central examples and directions."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from nejax.neuron.array_function import array_function
from nejax.neuron.clustering.labels import members
from nejax.neuron.clustering.pairs import masked_distances
from nejax.neuron.embeddings import unit_embeddings, unit_rows


@array_function
@jax.jit
def cohesion(distances: Float[Array, "n n"], labels: Int[Array, " n"]) -> Float[Array, " n"]:
    """Mean similarity of each example to the others of its cluster: the mean of `1 - d_ij` over these `j`.

    Source: Foote 2024, arXiv 2411.08166, by whose highest value a feature's central example is chosen.

    Args:
        distances: `[n, n]` cosine distances; only those above the diagonal are read.
        labels: `[n]` the cluster of each example; -1 where masked.

    Returns:
        `[n]` between -1 and 1; NaN for an example alone in its cluster, and where masked.

    Raises:
        UserError: the distances are not square, or the labels have another length.

    Example:
        >>> x, w = np.eye(4)[[0, 0, 1, 1, 1, 2]], np.ones(4)
        >>> print(nejax.cohesion(nejax.embedding_distances(x, w), [0, 0, 1, 1, 1, 2]))
        [ 1.  1.  1.  1.  1. nan]
    """
    total, others = _distance_to_others(distances, labels)
    return jnp.where(others > 0, 1 - total / jnp.maximum(others, 1).astype(total.dtype), jnp.nan)


@array_function
@jax.jit
def central_examples(distances: Float[Array, "n n"], labels: Int[Array, " n"]) -> Int[Array, " n"]:
    """The central example of each cluster: `argmax` of `cohesion`, the highest mean similarity to the others.

    Source: Foote 2024, arXiv 2411.08166.

    Args:
        distances: `[n, n]` cosine distances; only those above the diagonal are read.
        labels: `[n]` the cluster of each example; -1 where masked.

    Returns:
        `[n]` int32: entry `c` is the row of the central example of cluster `c`, the lowest row on a tie; an
        example alone is its own centre; -1 where there is no cluster `c`.

    Raises:
        UserError: the distances are not square, or the labels have another length.

    Example:
        >>> x, w = np.eye(4)[[0, 0, 1, 1, 1, 2]], np.ones(4)
        >>> print(nejax.central_examples(nejax.embedding_distances(x, w), [0, 0, 1, 1, 1, 2]))
        [ 0  2  5 -1 -1 -1]
    """
    total, _ = _distance_to_others(distances, labels)  # the others are equally many in one cluster: a sum will do
    member = members(labels, len(labels))
    centre = jnp.argmin(jnp.where(member, total[None, :], jnp.inf), axis=1)
    return jnp.where(jnp.any(member, axis=1), centre, -1).astype(jnp.int32)


@array_function
@jax.jit
def feature_directions(x: Float[Array, "n d"], w: Float[Array, " d"], labels: Int[Array, " n"]) -> Float[Array, "n d"]:
    """The direction of each feature: the mean of the unit embeddings of its examples, at length 1.

    `c_f = m_f / |m_f|` with `m_f` the mean of `u_i = (x_i * w) / |x_i * w|` over the examples `i` of feature `f`.

    Args:
        x: `[n, d_model]` the input of the neuron's layer at the peak of each example.
        w: `[d_model]` the neuron's input weights.
        labels: `[n]` the cluster of each example; -1 where masked.

    Returns:
        `[n, d_model]`: row `c` is the direction of cluster `c`; zeros where there is no cluster `c`, or where
        its embeddings are zero or cancel out. Differentiable in `x` and `w`.

    Raises:
        UserError: the shapes do not fit.

    Example:
        >>> x, w = np.eye(4)[[0, 0, 1, 1, 1, 2]], np.ones(4)
        >>> print(nejax.feature_directions(x, w, [0, 0, 1, 1, 1, 2])[:3])
        [[1. 0. 0. 0.]
         [0. 1. 0. 0.]
         [0. 0. 1. 0.]]
    """
    units = jnp.where((labels >= 0)[:, None], unit_embeddings(x, w), 0)
    member = members(labels, len(labels)).astype(units.dtype)
    return unit_rows(jnp.matmul(member, units, precision=lax.Precision.HIGHEST))


@array_function
@jax.jit
def feature_similarity(
    x: Float[Array, "m d"], w: Float[Array, " d"], directions: Float[Array, "k d"]
) -> Float[Array, "m k"]:
    """How similar new inputs are to each feature of a neuron: `x . (w * c) / |x * w|`.

    This is the cosine between an input's embedding and the direction `c`: it shows which feature of the neuron a text
    excites, if any.

    Args:
        x: `[m, d_model]` inputs of the neuron's layer.
        w: `[d_model]` the neuron's input weights.
        directions: `[k, d_model]` from `feature_directions`.

    Returns:
        `[m, k]` between -1 and 1; 0 for a zero embedding or a zero direction.

    Raises:
        UserError: the shapes do not fit.

    Example:
        >>> x, w = np.eye(4)[[0, 0, 1, 1, 1, 2]], np.ones(4)
        >>> print(nejax.feature_similarity(x, w, np.eye(4)[:2])[0])
        [1. 0.]
    """
    return jnp.matmul(unit_embeddings(x, w), directions.T, precision=lax.Precision.HIGHEST)


def _distance_to_others(
    distances: Float[Array, "n n"], labels: Int[Array, " n"]
) -> tuple[Float[Array, " n"], Int[Array, " n"]]:
    """Each example's summed distance to the others of its cluster, and how many they are."""
    distances, _, pairs = masked_distances(distances, labels >= 0)
    together = pairs & (labels[:, None] == labels[None, :])
    return jnp.sum(jnp.where(together, distances, 0), axis=1), jnp.sum(together, axis=1)
