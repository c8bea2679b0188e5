"""Split every neuron of a layer into its features: distances, dendrogram, clusters, measures, centres, directions."""

from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, ScalarLike

from nejax.errors import UserError
from nejax.neuron.average_linkage import Linkage, average_linkage, cut
from nejax.neuron.clusters import central_examples, cohesion, feature_directions
from nejax.neuron.connected_components import connected_components
from nejax.neuron.embeddings import embedding_distances
from nejax.neuron.polysemanticity import Polysemanticity, polysemanticity

Clustering = Literal["average", "components"]

HEIGHT_QUANTILE = 0.05
"""The calibrated height is this quantile of the distances between random inputs seen through the neuron's weights."""

_CHUNK_BYTES = 256 * 2**20
"""Bound on the device memory that one call's inputs and distances take."""


_CPU_BATCH = 8
"""Neurons side by side on CPU: 8 to 32 take a fifth less time than one at a time (BUILD_NOTES.md)."""


class Clustered(NamedTuple):
    """One neuron split into features. Under `vmap` or `lax.map`, a leading axis runs over neurons."""

    linkage: Linkage
    """The whole average-linkage dendrogram over the `n` examples, whatever the clustering."""
    height: Float[Array, ""]
    """Where it was cut, a cosine distance."""
    label: Int[Array, " n"]
    """The feature of each example: 0 is the largest, ties to the one with the strongest example; -1 where masked."""
    cohesion: Float[Array, " n"]
    """Mean similarity of each example to the others of its feature; NaN where there are none."""
    central: Int[Array, " n"]
    """Entry `c` is the central example of feature `c`; -1 where there is no such feature."""
    measures: Polysemanticity
    directions: Float[Array, "n d_model"]
    """Row `c` is the unit mean embedding of feature `c`; zeros where there is no such feature."""


def calibrated_height(
    reference: Float[Array, "n_reference d_model"], w: Float[Array, " d_model"], quantile: float
) -> Float[Array, ""]:
    """The cut height that unrelated inputs would fall below by chance, as seen by this neuron.

    Distances between embeddings depend on how a neuron's weights spread over the dimensions, so one height does not
    fit all neurons. This takes the distances between random inputs of the layer through the neuron's own weights:
    two clusters merge while they are nearer to each other than all but a fraction `quantile` of these.

    Args:
        reference: inputs of the layer at random positions of the corpus.
        w: the neuron's input weights.
        quantile: in (0, 1).

    Returns:
        The quantile of the distances over all pairs, linearly interpolated.

    Raises:
        UserError: fewer than two inputs have no distance.
    """
    if reference.shape[0] < 2:
        raise UserError(
            f"the cut height cannot be calibrated: the corpus has {reference.shape[0]} positions that can be a peak, "
            "expected at least 2; use a longer corpus, or give --height"
        )
    distances = embedding_distances(reference, w)
    upper = np.triu_indices(reference.shape[0], 1)
    return jnp.quantile(distances[upper], quantile)


def cluster_neuron(
    x: Float[Array, "n d_model"],
    mask: Bool[Array, " n"],
    w: Float[Array, " d_model"],
    height: Float[Array, ""],
    *,
    clustering: Clustering,
) -> Clustered:
    """Split one neuron.

    Args:
        x: the input at the peak of each example, strongest first.
        mask: which examples are there.
        w: the neuron's input weights.
        height: cosine distance up to which clusters merge.
        clustering: `"average"`: average linkage cut at `height` (Foote 2024); `"components"`: connected components of
            the graph of pairs at most `height` apart.

    Returns:
        Features and measures.
    """
    distances = embedding_distances(x, w)
    linkage = average_linkage(distances, mask)
    found = cut(linkage, height) if clustering == "average" else connected_components(distances, height, mask)
    label = largest_first(found)
    return Clustered(
        linkage=linkage,
        height=height,
        label=label,
        cohesion=cohesion(distances, label),
        central=central_examples(distances, label),
        measures=polysemanticity(distances, label),
        directions=feature_directions(x, w, label),
    )


def largest_first(labels: Int[Array, " n"]) -> Int[Array, " n"]:
    """Rename clusters so that 0 is the largest; of equally large ones, the one that appears first."""
    n = labels.shape[0]
    size = jnp.zeros(n, jnp.int32).at[jnp.where(labels >= 0, labels, n)].add(1, mode="drop")
    order = jnp.argsort(-size, stable=True)
    rank = jnp.zeros(n, jnp.int32).at[order].set(jnp.arange(n, dtype=jnp.int32))
    return jnp.where(labels >= 0, rank[labels], -1)


class LayerClusterer:
    """Splits all neurons of a layer, a chunk at a time; one compilation serves all layers.

    Args:
        n_inputs: most distinct inputs any layer has: shorter ones are padded to it.
        n_examples: examples a neuron.
        d_model: width of the inputs.
        clustering: see `cluster_neuron`.
        height: cut height for all neurons, in (0, 2], or None for `calibrated_height`.

    Raises:
        UserError: the height is outside (0, 2].
    """

    def __init__(self, *, n_inputs: int, n_examples: int, d_model: int, clustering: Clustering, height: float | None):
        check_height(height)
        self.n_inputs, self.clustering, self.height = n_inputs, clustering, height
        per_neuron = 4 * n_examples * (3 * d_model + 4 * n_examples)
        self.chunk = max(1, min(1024, _CHUNK_BYTES // per_neuron))

    def __call__(
        self, inputs: np.ndarray, input_of: np.ndarray, reference: np.ndarray, w_in: np.ndarray | Array
    ) -> tuple[Clustered, np.ndarray]:
        """Split a layer.

        Args:
            inputs: [n_distinct, d_model] float32.
            input_of: [n_neurons, n_examples] int32, rows of `inputs`; -1 where empty.
            reference: [n_reference, d_model] float32.
            w_in: [d_model, n_neurons].

        Returns:
            What was found, as NumPy arrays with a leading neuron axis (`directions` left empty: [n_neurons, 0, 0]),
            and the directions of the features there are: [n_features, d_model] float32, neuron by neuron.
        """
        n_neurons = len(input_of)
        padded = jnp.asarray(np.pad(inputs, ((0, self.n_inputs - len(inputs)), (0, 0))))
        w = jnp.asarray(w_in, jnp.float32).T
        n_chunks = -(-n_neurons // self.chunk)
        size = -(-n_neurons // n_chunks)  # chunks of about one size need the fewest rows to fill the last one up
        parts, directions = [], []
        for start in range(0, n_neurons, size):
            stop = min(start + size, n_neurons)
            missing = size - (stop - start)
            rows = jnp.asarray(np.pad(input_of[start:stop], ((0, missing), (0, 0)), constant_values=-1))
            w_rows = jnp.pad(w[start:stop], ((0, missing), (0, 0)))
            found = _split_chunk(padded, jnp.asarray(reference), rows, w_rows, self.height, clustering=self.clustering)
            found = jax.tree.map(lambda leaf: np.asarray(leaf)[: stop - start], found)  # noqa: B023
            directions.append(found.directions[found.central >= 0])
            parts.append(found._replace(directions=found.directions[:, :0, :0]))
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts), np.concatenate(directions)


@partial(jax.jit, static_argnames="clustering")
def _split_chunk(
    inputs: Float[Array, "n_inputs d_model"],
    reference: Float[Array, "n_reference d_model"],
    rows: Int[Array, "chunk n_examples"],
    w: Float[Array, "chunk d_model"],
    height: ScalarLike | None,
    *,
    clustering: Clustering,
) -> Clustered:
    """Split some neurons, each with its own rows of the inputs and its own weights."""

    def split(neuron: tuple[Array, Array]) -> Clustered:
        rows, w = neuron
        at = calibrated_height(reference, w, HEIGHT_QUANTILE) if height is None else jnp.asarray(height, jnp.float32)
        return cluster_neuron(inputs[jnp.maximum(rows, 0)], rows >= 0, w, at, clustering=clustering)

    # On CPU a few neurons at a time keep their matrices in cache; accelerators want all side by side.
    return lax.map(split, (rows, w), batch_size=_CPU_BATCH if jax.default_backend() == "cpu" else len(rows))


def check_height(height: float | None) -> None:
    """Refuse a height that no cosine distance reaches or exceeds.

    Raises:
        UserError: outside (0, 2].
    """
    if height is not None and not 0 < height <= 2:
        raise UserError(
            f"height {height:g} is outside (0, 2], the range of cosine distances; leave it out to have it calibrated"
        )
