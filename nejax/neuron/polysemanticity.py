"""How polysemantic a neuron is: the measures of its examples, and the mean distance in linear time."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from nejax.neuron._kernels.one_kernel import each_row, least, padded_to_lanes, small_call, total
from nejax.neuron.array_function import array_function
from nejax.neuron.clustering.labels import relabel
from nejax.neuron.precision import at_least_float32


class Polysemanticity(NamedTuple):
    """The measures of one neuron, over the pairs `i < j` of its examples; NaN where there is no such pair.

    Example:
        >>> x, w = np.eye(4)[[0, 0, 1, 1, 1, 2]], np.ones(4)
        >>> measures = nejax.polysemanticity(nejax.embedding_distances(x, w), [0, 0, 1, 1, 1, 1])
        >>> print(measures.n_clusters, measures.max_distance)
        2 1.0
    """

    max_distance: Float[Array, ""]
    """`[]` the largest distance of all pairs."""
    mean_distance: Float[Array, ""]
    """`[]` mean distance of all pairs."""
    intra_cluster_distance: Float[Array, ""]
    """`[]` mean distance of all pairs in the same cluster, pooled over clusters (not a mean of means)."""
    inter_cluster_distance: Float[Array, ""]
    """`[]` mean distance of all pairs in different clusters."""
    n_examples: Int[Array, ""]
    """`[]` int32 number of examples with a label."""
    n_clusters: Int[Array, ""]
    """`[]` int32 number of different labels."""


DISTANCES = tuple(name for name in Polysemanticity._fields if name.endswith("distance"))
"""The measures that are distances."""


@array_function
@jax.jit
def polysemanticity(distances: Float[Array, "n n"], labels: Int[Array, " n"]) -> Polysemanticity:
    """Measure how far apart a neuron's examples are, within its features and between them.

    Each mean is over pairs: `intra = sum(d_ij for i < j, label_i = label_j) / number of such pairs`, and
    likewise for the others. Differentiable in the distances. Source: Foote 2024, arXiv 2411.08166, the
    quantitative metrics.

    Args:
        distances: `[n, n]` distances; only those above the diagonal are read.
        labels: `[n]` the cluster of each example; -1 where masked.

    Returns:
        A `Polysemanticity` of scalars, in the units of the distances.

    Raises:
        UserError: the distances are not square, or the labels have another length.

    Example:
        >>> x, w = np.eye(4)[[0, 0, 1, 1, 1, 2]], np.ones(4)
        >>> measures = nejax.polysemanticity(nejax.embedding_distances(x, w), [0, 0, 1, 1, 1, 2])
        >>> print(measures.intra_cluster_distance, measures.inter_cluster_distance)
        0.0 1.0
    """
    mask = labels >= 0
    sums, pairs, top = _sums_over_pairs(distances, labels)
    n_pairs = jnp.sum(pairs, axis=0)
    same, other = jnp.sum(sums, axis=0)

    def mean(total: Float[Array, ""], n_pairs: Int[Array, ""]) -> Float[Array, ""]:
        return jnp.where(n_pairs > 0, total / jnp.maximum(n_pairs, 1).astype(total.dtype), jnp.nan)

    return Polysemanticity(
        max_distance=jnp.where(jnp.any(pairs), jnp.max(top), jnp.nan),
        mean_distance=mean(same + other, jnp.sum(n_pairs)),
        intra_cluster_distance=mean(same, n_pairs[0]),
        inter_cluster_distance=mean(other, n_pairs[1]),
        n_examples=jnp.sum(mask, dtype=jnp.int32),
        n_clusters=jnp.max(relabel(labels, mask)) + 1,
    )


@small_call
def _sums_over_pairs(
    distances: Float[Array, "n n"], labels: Int[Array, " n"]
) -> tuple[Float[Array, "n 2"], Int[Array, "n 2"], Float[Array, " n"]]:
    """Of each row, over its pairs `i < j`: summed distance to its own cluster and to others, their numbers, maximum.

    Sums of sums keep the rounding at 2e-7 of a mean, where one sum of 20,000 distances has 4e-6.
    """
    distances = distances.astype(at_least_float32(distances))
    columns = jnp.arange(len(labels))

    def row(i: Int[Array, ""], label: Int[Array, ""], distances: Float[Array, " n"]) -> tuple[Array, Array, Array]:
        pair = (i < columns) & (label >= 0) & (labels >= 0)
        kinds = (pair & (labels == label), pair & (labels != label))
        sums = [total(jnp.where(kind, distances, 0)) for kind in kinds]
        filler = padded_to_lanes(len(labels)) - len(labels)
        top = -least(jnp.pad(jnp.where(pair, -distances, jnp.inf), (0, filler), constant_values=jnp.inf))
        return jnp.stack(sums), jnp.stack([total(kind.astype(jnp.int32)) for kind in kinds]), top

    return each_row(row, columns, labels, distances)


@array_function(spread="n")
@jax.jit
def sum_unit_embeddings(
    x: Float[Array, "b d"], w_in: Float[Array, "d n"], weights: Float[Array, "b n"] | Bool[Array, "b n"]
) -> Float[Array, "d n"]:
    """Every neuron's weighted sum of unit embeddings, `S_j = sum_i m_ij u_ij`.

    Here `u_ij = (x_i * w_j) / |x_i * w_j|`. Two matrix products give the sums of all neurons at once:
    `N = sqrt((X * X) @ (W * W))` and `S = W * (X.T @ (M / N))`. They accumulate by addition: the `S` of a
    corpus is the sum of those of its batches. A zero embedding adds zero. Linear in the weights, which may be
    any numbers; differentiable in all arguments, with finite gradients.

    Args:
        x: `[b, d_model]` inputs, finite in masked rows too. Before the squares are taken, each row is divided
            by its largest entry, and each column of `w_in` by its own: a scale changes nothing.
        w_in: `[d_model, n]` input weights, a column a neuron.
        weights: `[b, n]` weight of input `i` for neuron `j`: a mask, say where the neuron fires.

    Returns:
        `[d_model, n]`, a column a neuron, at least float32.

    Raises:
        UserError: the shapes do not fit.

    Example:
        >>> x, w_in, fires = np.eye(4)[[0, 0, 1, 1, 1, 2]], np.ones((4, 2)), np.arange(12).reshape(6, 2) < 4
        >>> print(nejax.sum_unit_embeddings(x, w_in, fires).T)
        [[2. 0. 0. 0.]
         [2. 0. 0. 0.]]
    """
    x, w_in, inverse = _scaled_and_inverse_norms(x, w_in)
    return w_in * jnp.matmul(x.T, weights.astype(inverse.dtype) * inverse, precision=lax.Precision.HIGHEST)


@array_function(spread="n")
@jax.jit
def count_unit_embeddings(
    x: Float[Array, "b d"], w_in: Float[Array, "d n"], mask: Float[Array, "b n"] | Bool[Array, "b n"]
) -> Float[Array, " n"]:
    """How many unit embeddings `sum_unit_embeddings` added up for each neuron: those that are not zero.

    Only a zero input, a neuron with zero weights, or the two without a common entry make this differ from
    `mask.sum(0)`. In one `jit` with `sum_unit_embeddings` the two share their first product.

    Args:
        x: `[b, d_model]` inputs.
        w_in: `[d_model, n]` input weights, a column a neuron.
        mask: `[b, n]` 1 (or true) where input `i` is an example of neuron `j`, 0 elsewhere.

    Returns:
        `[n]`; like the sums, it accumulates over batches by addition.

    Raises:
        UserError: the shapes do not fit.

    Example:
        >>> x, w_in, fires = np.eye(4)[[0, 0, 1, 1, 1, 2]], np.ones((4, 2)), np.arange(12).reshape(6, 2) < 4
        >>> print(nejax.count_unit_embeddings(x, w_in, fires))
        [2. 2.]
    """
    _, _, inverse = _scaled_and_inverse_norms(x, w_in)
    return jnp.sum(jnp.where(inverse > 0, mask.astype(inverse.dtype), 0), axis=0)


def _scaled_and_inverse_norms(
    x: Float[Array, "b d"], w_in: Float[Array, "d n"]
) -> tuple[Float[Array, "b d"], Float[Array, "d n"], Float[Array, "b n"]]:
    """Inputs and weights with largest entries of 1, and `1 / |x_i * w_j|` of these (0 for zero)."""
    dtype = at_least_float32(x, w_in)
    x, w_in = scaled(x.astype(dtype), axis=1), scaled(w_in.astype(dtype), axis=0)
    return x, w_in, inverse_norms(x * x, w_in * w_in)


def inverse_norms(x_squared: Float[Array, "b d"], w_squared: Float[Array, "d n"]) -> Float[Array, "b n"]:
    """`1 / |x_i * w_j|` from the squares of scaled inputs and weights (see `scaled`); 0 for a zero embedding."""
    squares = jnp.matmul(x_squared, w_squared, precision=lax.Precision.HIGHEST)
    zero = squares < jnp.finfo(squares.dtype).tiny  # a NaN is not zero and goes through
    return jnp.where(zero, 0, 1 / jnp.sqrt(jnp.where(zero, 1, squares)))


def scaled(values: Float[Array, "rows columns"], axis: int) -> Float[Array, "rows columns"]:
    """Divide by the largest absolute value along an axis; no gradient goes through that scale.

    Directions do not change, and squares of the result neither over- nor underflow.
    """
    largest = lax.stop_gradient(jnp.max(jnp.abs(values), axis=axis, keepdims=True))
    return values / jnp.where(largest < jnp.finfo(values.dtype).tiny, 1, largest)


@array_function(spread="n")
@jax.jit
def streaming_mean_distance(
    sum_unit: Float[Array, "d n"], n_examples: Float[Array, " n"] | Int[Array, " n"]
) -> Float[Array, " n"]:
    """Every neuron's mean cosine distance over the pairs of its examples, from their sum of unit embeddings.

    `1 - (|S|^2 - n) / (n (n - 1))`, computed as the equal `(1 - |S / n|^2) n / (n - 1)`, which loses less to
    rounding. As a loss it draws the examples of each neuron together.

    It holds for `S` from a mask: weights of 0 and 1, no other. `n` then counts the ones whose embedding is
    not zero (`count_unit_embeddings`): a zero embedding has no direction and is in no pair here.

    Args:
        sum_unit: `[d_model, n]` from `sum_unit_embeddings`, added over batches.
        n_examples: `[n]` how many unit embeddings each neuron's sum has.

    Returns:
        `[n]` between 0 and 2; NaN for neurons with fewer than two examples. Differentiable in the sums.

    Raises:
        UserError: the shapes do not fit.

    Example:
        >>> x, w_in, fires = np.eye(4)[[0, 0, 1, 1, 1, 2]], np.ones((4, 2)), np.ones((6, 2), bool)
        >>> sums = nejax.sum_unit_embeddings(x, w_in, fires)
        >>> counts = nejax.count_unit_embeddings(x, w_in, fires)
        >>> print(nejax.streaming_mean_distance(sums, counts).round(4))  # 11 of 15 pairs are at right angles
        [0.7333 0.7333]
    """
    count = n_examples.astype(sum_unit.dtype)
    enough = count >= 2
    count = jnp.where(enough, count, 2)
    mean = sum_unit / count[None, :]
    distance = (1 - jnp.sum(mean * mean, axis=0)) * (count / (count - 1))
    return jnp.where(enough, jnp.clip(distance, 0, 2), jnp.nan)


@array_function(spread="n")
@jax.jit
def neuron_embedding_loss(
    x: Float[Array, "b d"], w_in: Float[Array, "d n"], mask: Float[Array, "b n"] | Bool[Array, "b n"]
) -> Float[Array, ""]:
    """Mean over neurons of the mean cosine distance between the embeddings of each one's examples.

    The streaming form, so two matrix products and no embedding in memory; equal to the mean of all pairs' distances.
    As a loss on the encoder of a sparse autoencoder it makes latents monosemantic (Foote 2024, arXiv 2411.08166).

    Args:
        x: `[b, d_model]` inputs.
        w_in: `[d_model, n]` input weights, a column a neuron.
        mask: `[b, n]` 1 (or true) where input `i` is an example of neuron `j`, 0 elsewhere.

    Returns:
        `[]`, over the neurons with two examples or more; 0 if there are none. Differentiable in `x` and `w_in`.

    Raises:
        UserError: the shapes do not fit.

    Example:
        >>> x, w_in, fires = np.eye(4)[[0, 0, 1, 1, 1, 2]], np.ones((4, 2)), np.ones((6, 2), bool)
        >>> print(nejax.neuron_embedding_loss(x, w_in, fires).round(4))
        0.7333
    """
    count = lax.stop_gradient(count_unit_embeddings(x, w_in, mask))
    distance = streaming_mean_distance(sum_unit_embeddings(x, w_in, mask), count)
    counts = count >= 2
    return jnp.sum(jnp.where(counts, distance, 0)) / jnp.maximum(jnp.sum(counts), 1).astype(distance.dtype)
