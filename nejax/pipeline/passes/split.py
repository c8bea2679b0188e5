"""Split every neuron of a layer into its features: distances, dendrogram, clusters, measures, a map, directions."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt32

from nejax.errors import UserError
from nejax.neuron._kernels.one_kernel import layer_program, loops_are_kernels
from nejax.neuron.clustering.average_linkage import Linkage, average_linkage
from nejax.neuron.clustering.labels import largest_first
from nejax.neuron.clustering.quality import silhouette
from nejax.neuron.clusters import central_examples, cohesion, feature_directions
from nejax.neuron.coordinates import principal_coordinates
from nejax.neuron.embeddings import embedding_distances
from nejax.neuron.polysemanticity import Polysemanticity, polysemanticity
from nejax.pipeline.passes.clustering import labels_of
from nejax.pipeline.run.constants import CHUNK_MIB, HEIGHT_QUANTILE
from nejax.pipeline.run.devices import AXIS, fetch, fill_up, mesh_of_all, place, up_to_devices
from nejax.pipeline.run.settings import Clustering

DISTANCES = tuple(name for name in Polysemanticity._fields if name.endswith("distance"))
"""The measures that are distances."""


class Clustered(NamedTuple):
    """One neuron split into features. Under `vmap` or `lax.map`, a leading axis runs over neurons."""

    linkage: Linkage
    """The whole average-linkage dendrogram over the `n` examples, whatever the clustering."""
    height: Float[Array, ""]
    """Where it was cut, a cosine distance; NaN if the clusters do not end at a distance."""
    label: Int[Array, " n"]
    """The feature of each example: 0 is the largest, ties to the one with the strongest example; -1 where masked."""
    cohesion: Float[Array, " n"]
    """Mean similarity of each example to the others of its feature; NaN where there are none."""
    central: Int[Array, " n"]
    """Entry `c` is the central example of feature `c`; -1 where there is no such feature."""
    measures: Polysemanticity
    silhouette: Float[Array, ""]
    """Mean silhouette of the examples; NaN if there is one feature, or each example is its own."""
    coordinates: Float[Array, "n 2"]
    """The examples on the two principal axes of their unit embeddings; NaN where masked."""
    coordinates_share: Float[Array, ""]
    """Of the unit embeddings' variance, the part on these axes; NaN if there is none."""
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
    key: PRNGKeyArray,
    *,
    clustering: Clustering,
) -> Clustered:
    """Split one neuron.

    Args:
        x: the input at the peak of each example, strongest first.
        mask: which examples are there.
        w: the neuron's input weights.
        height: cosine distance up to which clusters merge, or NaN.
        key: for methods that start at random.
        clustering: the method, and its settings.

    Returns:
        Features and measures.
    """
    distances = embedding_distances(x, w)
    linkage = average_linkage(distances, mask)
    label = largest_first(labels_of(clustering, distances, linkage, mask, height, key))
    coordinates, share = principal_coordinates(distances, mask)

    def defined(values: Array) -> Array:
        """Without weights embeddings have no direction: their distances are 1 by convention, and measure nothing."""
        return jnp.where(jnp.any(w != 0), values, jnp.nan)

    measures = polysemanticity(distances, label)
    measures = measures._replace(**{name: defined(getattr(measures, name)) for name in DISTANCES})
    return Clustered(
        linkage=linkage,
        height=height,
        label=label,
        cohesion=defined(cohesion(distances, label)),
        central=central_examples(distances, label),
        measures=measures,
        silhouette=defined(silhouette(distances, label).mean),
        coordinates=coordinates,
        coordinates_share=defined(share),
        directions=feature_directions(x, w, label),
    )


class LayerClusterer:
    """Splits all neurons of a layer, a chunk at a time, spread over all devices; one compilation serves all layers.

    Args:
        n_inputs: most distinct inputs any layer has: shorter ones are padded to it.
        n_examples: examples a neuron.
        d_model: width of the inputs.
        clustering: the method, and its settings. A height of None is calibrated for each neuron.
        seed: for methods that start at random.
        chunk_mib: bound on the memory, in MiB, that the neurons of one chunk take on all devices together, beside the
            layer's inputs and weights. Does not change the result.

    Raises:
        UserError: a setting is out of range.
    """

    def __init__(
        self,
        *,
        n_inputs: int,
        n_examples: int,
        d_model: int,
        clustering: Clustering,
        seed: int = 0,
        chunk_mib: int = CHUNK_MIB,
    ):
        clustering.check(n_examples)
        if chunk_mib < 1:
            raise UserError(f"--chunk_mib={chunk_mib}: expected at least 1")
        self.n_inputs, self.key = n_inputs, jax.random.key(seed)
        mesh = mesh_of_all()
        # Accelerators hold the matrices of a whole chunk at once; a CPU those of a few neurons, and their results.
        per_neuron = 4 * n_examples * (3 * d_model + 4 * n_examples)
        side_by_side = max(1, chunk_mib * 2**20 // per_neuron // mesh.size)
        self.chunk = min(1024, side_by_side) * mesh.size
        everywhere, spread = PartitionSpec(), PartitionSpec(AXIS)
        self._split = jax.jit(
            jax.shard_map(
                partial(_split_neurons, clustering=clustering),
                mesh=mesh,
                in_specs=(*[everywhere] * 3, *[spread] * 3),
                out_specs=spread,
            )
        )

    def __call__(
        self, inputs: np.ndarray, input_of: np.ndarray, reference: np.ndarray, w_in: np.ndarray | Array, layer: int = 0
    ) -> tuple[Clustered, np.ndarray]:
        """Split a layer.

        Args:
            inputs: [n_distinct, d_model] float32.
            input_of: [n_neurons, n_examples] int32, rows of `inputs`; -1 where empty.
            reference: [n_reference, d_model] float32.
            w_in: [d_model, n_neurons].
            layer: which one: neurons of different layers start at random differently.

        Returns:
            What was found, as NumPy arrays with a leading neuron axis (`directions` left empty: [n_neurons, 0, 0]),
            and the directions of the features there are: [n_features, d_model] float32, neuron by neuron.
        """
        n_neurons = len(input_of)
        w = np.asarray(w_in).astype(np.float32).T
        of_layer = jax.random.key_data(jax.random.fold_in(self.key, layer))
        for_all = place((fill_up(inputs, self.n_inputs), reference, of_layer))
        n_chunks = -(-n_neurons // self.chunk)
        # chunks of about one size need the fewest rows to fill the last one up
        size = up_to_devices(-(-n_neurons // n_chunks))
        parts, directions = [], []
        for start in range(0, n_neurons, size):
            stop = min(start + size, n_neurons)
            number = np.minimum(np.arange(start, start + size, dtype=np.int32), n_neurons - 1)
            of_neurons = fill_up(input_of[start:stop], size, -1), fill_up(w[start:stop], size), number
            found = fetch(self._split(*for_all, *place(of_neurons, AXIS)))
            found = jax.tree.map(lambda leaf: leaf[: stop - start], found)  # noqa: B023
            directions.append(found.directions[found.central >= 0])
            parts.append(found._replace(directions=found.directions[:, :0, :0]))
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts), np.concatenate(directions)


@layer_program
def _split_neurons(
    inputs: Float[Array, "n_inputs d_model"],
    reference: Float[Array, "n_reference d_model"],
    of_layer: UInt32[Array, " key"],
    rows: Int[Array, "chunk n_examples"],
    w: Float[Array, "chunk d_model"],
    number: Int[Array, " chunk"],
    *,
    clustering: Clustering,
) -> Clustered:
    """Split some neurons, each with its own rows of the inputs, its own weights, and its own random key."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.wrap_key_data(of_layer), number)

    def split(neuron: tuple[Array, Array, Array]) -> Clustered:
        rows, w, key = neuron
        if not clustering.has_height:
            height = jnp.float32(jnp.nan)
        elif clustering.height is None:
            height = calibrated_height(reference, w, HEIGHT_QUANTILE)
        else:
            height = jnp.float32(clustering.height)
        return cluster_neuron(inputs[jnp.maximum(rows, 0)], rows >= 0, w, height, key, clustering=clustering)

    # A CPU core keeps the matrices of one neuron in its cache; accelerators want all side by side.
    return lax.map(split, (rows, w, keys), batch_size=None if loops_are_kernels() else len(rows))
