"""How the examples of a neuron are clustered: four methods, one shape of answer."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from nejax.neuron.clustering.average_linkage import Linkage, cut
from nejax.neuron.clustering.connected_components import connected_components
from nejax.neuron.clustering.kernel_kmeans import kmeans_from_distances
from nejax.neuron.clustering.spectral import spectral
from nejax.pipeline.run.settings import Clustering


def labels_of(
    how: Clustering,
    distances: Float[Array, "n n"],
    linkage: Linkage,
    mask: Bool[Array, " n"],
    height: Float[Array, ""],
    key: PRNGKeyArray,
) -> Int[Array, " n"]:
    """The cluster of each example of one neuron.

    Args:
        how: the method with its settings.
        distances: cosine distances between its examples.
        linkage: their dendrogram.
        mask: which examples are there.
        height: used by average linkage and components.
        key: used by k-means and spectral clustering.

    Returns:
        0..k-1 in order of first appearance; -1 where masked.
    """
    if how.method == "average":
        return cut(linkage, height)
    if how.method == "components":
        return connected_components(distances, height, mask)
    most = how.max_clusters if how.n_clusters is None else how.n_clusters
    # A neuron with fewer examples than clusters has as many clusters as examples: hence the traced number.
    given = None if how.n_clusters is None else jnp.minimum(how.n_clusters, jnp.maximum(jnp.sum(mask), 1))
    shared = {"key": key, "mask": mask, "max_clusters": min(most, len(mask)), "n_restarts": how.n_restarts}
    if how.method == "kmeans":
        # spherical, since the distances are those of directions
        return kmeans_from_distances(
            distances, given, spherical=True, min_silhouette=how.min_silhouette, **shared
        ).labels
    return spectral(distances, given, n_neighbors=how.n_neighbors, **shared).labels
