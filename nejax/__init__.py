"""Neuron embeddings in JAX: split every neuron of a language model into its distinct features."""

import os

# Before anything imports transformers: it advises that without PyTorch it is no use for models, and nejax needs none.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

from nejax.atlas.atlas import open_atlas
from nejax.models.loading import load_model
from nejax.neuron.average_linkage import average_linkage, cut
from nejax.neuron.connected_components import connected_components
from nejax.neuron.embeddings import embedding_distances, neuron_embeddings
from nejax.neuron.kernel_kmeans import kmeans_from_distances
from nejax.neuron.kmeans import kmeans
from nejax.neuron.polysemanticity import polysemanticity, sum_unit_embeddings
from nejax.neuron.quality import adjusted_rand_index, silhouette
from nejax.neuron.spectral import spectral

__all__ = [
    "adjusted_rand_index",
    "average_linkage",
    "connected_components",
    "cut",
    "embedding_distances",
    "kmeans",
    "kmeans_from_distances",
    "load_model",
    "neuron_embeddings",
    "open_atlas",
    "polysemanticity",
    "silhouette",
    "spectral",
    "sum_unit_embeddings",
]
