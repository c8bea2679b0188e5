"""One neuron split into its features: distances, dendrogram, clusters, measures, a map, directions."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, ScalarLike

from nejax.errors import UserError
from nejax.neuron.array_function import array_function
from nejax.neuron.clustering.average_linkage import Linkage, average_linkage, cut
from nejax.neuron.clustering.connected_components import connected_components
from nejax.neuron.clustering.kernel_kmeans import kmeans_from_distances
from nejax.neuron.clustering.labels import largest_first
from nejax.neuron.clustering.quality import silhouette
from nejax.neuron.clustering.spectral import spectral
from nejax.neuron.clusters import central_examples, cohesion, feature_directions
from nejax.neuron.coordinates import principal_coordinates
from nejax.neuron.defaults import (
    HEIGHT_QUANTILE,
    MAX_CLUSTERS,
    METHOD_SETTINGS,
    MIN_SILHOUETTE,
    N_NEIGHBORS,
    N_RESTARTS,
    Method,
)
from nejax.neuron.embeddings import embedding_distances
from nejax.neuron.polysemanticity import DISTANCES, Polysemanticity, polysemanticity


class Split(NamedTuple):
    """One neuron split into features. Under `vmap` or `lax.map`, a leading axis runs over neurons.

    Example:
        >>> x, w = np.eye(4)[[0, 0, 1, 1, 1, 2]], np.ones(4)
        >>> found = nejax.split(x, w, height=0.5)
        >>> print(found.measures.n_clusters, found.central)  # the largest feature first
        3 [ 2  0  5 -1 -1 -1]
    """

    linkage: Linkage
    """The whole average-linkage dendrogram over the `n` examples, whatever the method."""
    height: Float[Array, ""]
    """`[]` where it was cut, a cosine distance; NaN if the clusters do not end at a distance."""
    label: Int[Array, " n"]
    """`[n]` int32 the feature of each example: 0 is the largest, ties to the one whose first example comes first; -1
    where masked."""
    cohesion: Float[Array, " n"]
    """`[n]` mean similarity of each example to the others of its feature; NaN where there are none."""
    central: Int[Array, " n"]
    """`[n]` int32 entry `c` is the row of the central example of feature `c`; -1 where there is no such feature."""
    measures: Polysemanticity
    """Scalars; cosine distances."""
    silhouette: Float[Array, ""]
    """`[]` mean silhouette of the examples; NaN if there is one feature, or each example is its own."""
    coordinates: Float[Array, "n 2"]
    """`[n, 2]` the examples on the two principal axes of their unit embeddings; NaN where masked."""
    coordinates_share: Float[Array, ""]
    """`[]` of the unit embeddings' variance, the part on these axes; NaN if there is none."""
    directions: Float[Array, "n d"]
    """`[n, d_model]` row `c` is the unit mean embedding of feature `c`; zeros where there is no such feature."""


class _Options(NamedTuple):
    """What is static under `jit`."""

    method: Method
    n_clusters: int | None
    max_clusters: int
    n_restarts: int
    min_silhouette: float
    n_neighbors: int


@array_function
def split(
    x: Float[Array, "n d"],
    w: Float[Array, " d"],
    height: ScalarLike | None = None,
    *,
    mask: Bool[Array, " n"] | None = None,
    key: PRNGKeyArray | None = None,
    method: Method = "average",
    n_clusters: int | None = None,
    max_clusters: int = MAX_CLUSTERS,
    n_restarts: int = N_RESTARTS,
    min_silhouette: float = MIN_SILHOUETTE,
    n_neighbors: int = N_NEIGHBORS,
) -> Split:
    """Split one neuron into its features: all measures of an atlas, from arrays alone.

    The embeddings of its examples, `e_i = x_i * w`, are clustered by their cosine distances (`embedding_distances`).
    `"average"` cuts the average-linkage dendrogram at `height` (`cut`), `"components"` links what is at most `height`
    apart (`connected_components`), `"kmeans"` finds spherical clusters (`kmeans_from_distances`), `"spectral"` those of
    the graph of near neighbours (`spectral`). The other fields are those of the functions of the same names, of these
    labels. A neuron whose weights are zero has embeddings without direction: no measure of distances is defined.
    Source: Foote 2024, arXiv 2411.08166.

    Args:
        x: `[n, d_model]` the input of the neuron's layer at the peak of each example, strongest first.
        w: `[d_model]` the neuron's input weights.
        height: `[]` the cosine distance up to which clusters merge, such as `calibrated_height`; of `"average"` and
            `"components"` alone, which need it.
        mask: `[n]` false where there is no example; all rows count if None.
        key: random key of `"kmeans"` and `"spectral"`, which need one; others ignore it.
        method: `"average"`, `"components"`, `"kmeans"` or `"spectral"`; static.
        n_clusters: of `"kmeans"` and `"spectral"`: how many clusters, or as many as there are examples if these are
            fewer; chosen by silhouette or by eigengap if None. Static.
        max_clusters: of the same: the most that are chosen; static.
        n_restarts: of the same: starts of k-means, of which the best end is kept; static.
        min_silhouette: of `"kmeans"`: the mean silhouette that several clusters must exceed, if chosen; static.
        n_neighbors: of `"spectral"`: how many nearest examples each one is joined to; static.

    Returns:
        A `Split`. It has no gradient through the labels.

    Raises:
        UserError: shapes that do not fit, no such method, a height or key that is missing, an option that the method
            does not use, or a number out of range.

    Example:
        >>> x, w = np.eye(4)[[0, 0, 1, 1, 1, 2]], np.ones(4)
        >>> print(nejax.split(x, w, height=0.5).label)
        [1 1 0 0 0 2]
    """
    options = _Options(method, n_clusters, max_clusters, n_restarts, min_silhouette, n_neighbors)
    _check(options, height, key, x.shape[0])
    return _split(x, w, mask, height, key, options=options)


def _check(options: _Options, height: ScalarLike | None, key: PRNGKeyArray | None, n: int) -> None:
    method = options.method
    heeded = METHOD_SETTINGS[method]
    given = {
        name
        for name, value, default in (
            ("height", height, None),
            ("n_clusters", options.n_clusters, None),
            ("max_clusters", options.max_clusters, MAX_CLUSTERS),
            ("n_restarts", options.n_restarts, N_RESTARTS),
            ("min_silhouette", options.min_silhouette, MIN_SILHOUETTE),
            ("n_neighbors", options.n_neighbors, N_NEIGHBORS),
        )
        if value is not default and (default is None or value != default)
    }
    if unheeded := sorted(given - set(heeded)):
        raise UserError(f"{unheeded[0]} is not used by method {method!r}; leave it out, or take another method")
    if "height" in heeded and height is None:
        raise UserError(
            f"height is missing: method {method!r} needs one; expected a cosine distance, such as "
            "calibrated_height(reference, w)"
        )
    if "n_clusters" in heeded and key is None:
        raise UserError(f"key is missing: method {method!r} starts at random; pass one, such as jax.random.key(0)")
    if options.n_clusters is not None and not 1 <= options.n_clusters <= n:
        raise UserError(f"n_clusters is {options.n_clusters}; expected 1 to {n}, the number of rows, or None")
    if options.max_clusters < 1:
        raise UserError(f"max_clusters is {options.max_clusters}; expected at least 1")


@partial(jax.jit, static_argnames="options")
def _split(
    x: Array, w: Array, mask: Array | None, height: ScalarLike | None, key: Array | None, *, options: _Options
) -> Split:
    mask = jnp.ones(x.shape[0], bool) if mask is None else mask
    distances = embedding_distances(x, w)
    height = jnp.asarray(jnp.nan if height is None else height).astype(distances.dtype)
    linkage = average_linkage(distances, mask)
    label = largest_first(_labels(options, distances, linkage, mask, height, key))
    coordinates, share = principal_coordinates(distances, mask)

    def defined(values: Array) -> Array:
        """Without weights embeddings have no direction: their distances are 1 by convention, and measure nothing."""
        return jnp.where(jnp.any(w != 0), values, jnp.nan)

    measures = polysemanticity(distances, label)
    measures = measures._replace(**{name: defined(getattr(measures, name)) for name in DISTANCES})
    return Split(
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


def _labels(
    options: _Options, distances: Array, linkage: Linkage, mask: Array, height: Array, key: Array | None
) -> Int[Array, " n"]:
    """The cluster of each example, 0..k-1 in order of first appearance; -1 where masked."""
    method = options.method
    if method == "average":
        return cut(linkage, height)
    if method == "components":
        return connected_components(distances, height, mask)
    most = options.max_clusters if options.n_clusters is None else options.n_clusters
    # A neuron with fewer examples than clusters has as many clusters as examples: hence the traced number.
    given = None if options.n_clusters is None else jnp.minimum(options.n_clusters, jnp.maximum(jnp.sum(mask), 1))
    shared = {"key": key, "mask": mask, "max_clusters": min(most, len(mask)), "n_restarts": options.n_restarts}
    if method == "kmeans":
        # spherical, since the distances are those of directions
        return kmeans_from_distances(
            distances, given, spherical=True, min_silhouette=options.min_silhouette, **shared
        ).labels
    return spectral(distances, given, n_neighbors=options.n_neighbors, **shared).labels


@array_function
@partial(jax.jit, static_argnames="quantile")
def calibrated_height(
    reference: Float[Array, "m d"], w: Float[Array, " d"], quantile: float = HEIGHT_QUANTILE
) -> Float[Array, ""]:
    """The cut height that unrelated inputs would fall below by chance, as seen by this neuron.

    Distances between embeddings depend on how a neuron's weights spread over the dimensions, so one height does not
    fit all neurons. This takes the distances between random inputs of the layer through the neuron's own weights:
    two clusters merge while they are nearer to each other than all but a fraction `quantile` of these.

    Args:
        reference: `[m, d_model]` inputs of the layer at random positions of a corpus, at least two.
        w: `[d_model]` the neuron's input weights.
        quantile: in (0, 1); static.

    Returns:
        `[]` the quantile of the cosine distances over all pairs, linearly interpolated.

    Raises:
        UserError: fewer than two inputs have no distance; shapes that do not fit, or a quantile out of range.

    Example:
        >>> reference, w = np.eye(4)[[0, 0, 1, 1, 1, 2]], np.ones(4)
        >>> print(nejax.calibrated_height(reference, w, quantile=0.5))
        1.0
    """
    if len(reference) < 2:
        raise UserError(f"reference has shape {reference.shape}; expected at least 2 rows: one has no distance")
    if not 0 < quantile < 1:
        raise UserError(f"quantile is {quantile!r:.40}; expected a number between 0 and 1")
    distances = embedding_distances(reference, w)
    upper = np.triu_indices(len(reference), 1)
    return jnp.quantile(distances[upper], quantile)
