"""How the examples of a neuron are clustered: four methods, each with its own settings, one shape of answer."""

import dataclasses
from typing import Literal

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int, PRNGKeyArray

from nejax.errors import UserError
from nejax.neuron.average_linkage import Linkage, cut
from nejax.neuron.connected_components import connected_components
from nejax.neuron.kernel_kmeans import kmeans_from_distances
from nejax.neuron.kmeans_search import MAX_CLUSTERS, MIN_SILHOUETTE
from nejax.neuron.spectral import N_NEIGHBORS, spectral

Method = Literal["average", "components", "kmeans", "spectral"]

_OWN = {
    "average": ("height",),
    "components": ("height",),
    "kmeans": ("n_clusters", "max_clusters", "n_restarts", "min_silhouette"),
    "spectral": ("n_clusters", "max_clusters", "n_restarts", "n_neighbors"),
}
"""Which settings a method heeds."""


@dataclasses.dataclass(frozen=True)
class Clustering:
    """A method and its settings; those of other methods stay as they are here."""

    method: Method = "average"
    height: float | None = None
    """Where the dendrogram is cut, or how far neighbours in the graph are apart; None: calibrated."""
    n_clusters: int | None = None
    """For all neurons (fewer where a neuron has fewer examples); None: chosen for each."""
    max_clusters: int = MAX_CLUSTERS
    """The most that are chosen."""
    n_restarts: int = 10
    """Starts of k-means."""
    min_silhouette: float = MIN_SILHOUETTE
    """The mean silhouette that several clusters must exceed; otherwise there is one."""
    n_neighbors: int = N_NEIGHBORS
    """The neighbour whose distance is an example's own scale in the affinity."""

    @property
    def has_height(self) -> bool:
        """Whether clusters end at a distance."""
        return "height" in _OWN[self.method]

    def check(self, n_examples: int) -> None:
        """Refuse settings out of range, and those of another method.

        Args:
            n_examples: examples a neuron.

        Raises:
            UserError: names the setting, its value, and what was expected.
        """
        for field in dataclasses.fields(self)[1:]:
            value = getattr(self, field.name)
            if value != field.default and field.name not in _OWN[self.method]:
                heeding = " or ".join(method for method, own in _OWN.items() if field.name in own)
                raise UserError(
                    f"--{field.name}={value:g} is not used by --clustering={self.method}: "
                    f"leave it out, or take --clustering={heeding}"
                )
        if self.height is not None and not 0 < self.height <= 2:
            raise UserError(
                f"--height={self.height:g}: expected a number in (0, 2], the range of cosine distances; "
                "leave it out to have it calibrated"
            )
        if self.n_clusters is not None and not 1 <= self.n_clusters <= n_examples:
            raise UserError(f"--n_clusters={self.n_clusters}: expected 1 to --examples={n_examples}")
        for name in ("max_clusters", "n_restarts", "n_neighbors"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name}={getattr(self, name)}: expected at least 1")
        if not -1 <= self.min_silhouette <= 1:
            raise UserError(f"--min_silhouette={self.min_silhouette:g}: expected a number from -1 to 1")

    def labels(
        self,
        distances: Float[Array, "n n"],
        linkage: Linkage,
        mask: Bool[Array, " n"],
        height: Float[Array, ""],
        key: PRNGKeyArray,
    ) -> Int[Array, " n"]:
        """The cluster of each example of one neuron.

        Args:
            distances: cosine distances between its examples.
            linkage: their dendrogram.
            mask: which examples are there.
            height: used by average linkage and components.
            key: used by k-means and spectral clustering.

        Returns:
            0..k-1 in order of first appearance; -1 where masked.
        """
        if self.method == "average":
            return cut(linkage, height)
        if self.method == "components":
            return connected_components(distances, height, mask)
        most = self.max_clusters if self.n_clusters is None else self.n_clusters
        # A neuron with fewer examples than clusters has as many clusters as examples: hence the traced number.
        given = None if self.n_clusters is None else jnp.minimum(self.n_clusters, jnp.maximum(jnp.sum(mask), 1))
        shared = {"key": key, "mask": mask, "max_clusters": min(most, len(mask)), "n_restarts": self.n_restarts}
        if self.method == "kmeans":
            # spherical, since the distances are those of directions
            return kmeans_from_distances(
                distances, given, spherical=True, min_silhouette=self.min_silhouette, **shared
            ).labels
        return spectral(distances, given, n_neighbors=self.n_neighbors, **shared).labels
