"""Neuron embeddings in JAX: split every neuron of a language model into its distinct features."""

import os

# Before anything imports transformers: it advises that without PyTorch it is no use for models, and nejax needs none.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

from nejax.atlas.atlas import open_atlas
from nejax.models.loading import load_model
from nejax.neuron.average_linkage import average_linkage, cut
from nejax.neuron.connected_components import connected_components
from nejax.neuron.embeddings import embedding_distances, neuron_embeddings
from nejax.neuron.polysemanticity import polysemanticity, sum_unit_embeddings

__all__ = [
    "average_linkage",
    "connected_components",
    "cut",
    "embedding_distances",
    "load_model",
    "neuron_embeddings",
    "open_atlas",
    "polysemanticity",
    "sum_unit_embeddings",
]
