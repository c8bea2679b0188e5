"""Neuron embeddings in JAX: split every neuron of a language model into its distinct features."""

import importlib
import os
from typing import TYPE_CHECKING, Any

# Before anything imports transformers: it advises that without PyTorch it is no use for models, and nejax needs none.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

if TYPE_CHECKING:
    from nejax.atlas.atlas import open_atlas
    from nejax.models.loading import load_model
    from nejax.models.sae.evaluation import evaluate_sae
    from nejax.models.sae.files import load_sae
    from nejax.neuron.assignment import assign
    from nejax.neuron.clustering.average_linkage import average_linkage, cut
    from nejax.neuron.clustering.connected_components import connected_components
    from nejax.neuron.clustering.kernel_kmeans import kmeans_from_distances
    from nejax.neuron.clustering.kmeans import kmeans
    from nejax.neuron.clustering.quality import adjusted_rand_index, silhouette
    from nejax.neuron.clustering.spectral import spectral
    from nejax.neuron.embeddings import embedding_distances, neuron_embeddings
    from nejax.neuron.polysemanticity import neuron_embedding_loss, polysemanticity, sum_unit_embeddings

__all__ = [
    "adjusted_rand_index",
    "assign",
    "average_linkage",
    "connected_components",
    "cut",
    "embedding_distances",
    "evaluate_sae",
    "kmeans",
    "kmeans_from_distances",
    "load_model",
    "load_sae",
    "neuron_embedding_loss",
    "neuron_embeddings",
    "open_atlas",
    "polysemanticity",
    "silhouette",
    "spectral",
    "sum_unit_embeddings",
]

_MODULES = {
    "adjusted_rand_index": "neuron.clustering.quality",
    "assign": "neuron.assignment",
    "average_linkage": "neuron.clustering.average_linkage",
    "connected_components": "neuron.clustering.connected_components",
    "cut": "neuron.clustering.average_linkage",
    "embedding_distances": "neuron.embeddings",
    "evaluate_sae": "models.sae.evaluation",
    "kmeans": "neuron.clustering.kmeans",
    "kmeans_from_distances": "neuron.clustering.kernel_kmeans",
    "load_model": "models.loading",
    "load_sae": "models.sae.files",
    "neuron_embedding_loss": "neuron.polysemanticity",
    "neuron_embeddings": "neuron.embeddings",
    "open_atlas": "atlas.atlas",
    "polysemanticity": "neuron.polysemanticity",
    "silhouette": "neuron.clustering.quality",
    "spectral": "neuron.clustering.spectral",
    "sum_unit_embeddings": "neuron.polysemanticity",
}


def __getattr__(name: str) -> Any:
    """A public name, from its module. JAX comes with the first one: who only reads an atlas's files needs none."""
    if name not in _MODULES:
        raise AttributeError(f"module 'nejax' has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(f"nejax.{_MODULES[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
