"""Neuron embeddings in JAX: split every neuron of a language model into its distinct features.

Examples in the documentation of its names begin with `import jax, nejax` and `import jax.numpy as jnp, numpy as np`.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

# Before anything imports transformers: it advises that without PyTorch it is no use for models, and nejax needs none.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

if TYPE_CHECKING:
    from nejax.atlas.atlas import Atlas, open_atlas
    from nejax.atlas.build import build_atlas
    from nejax.atlas.entries import Example, Feature
    from nejax.atlas.neuron import Neuron
    from nejax.errors import SettingError, UserError
    from nejax.models.loading import LoadedModel, load_model
    from nejax.models.reading import Branches, Editor, LayerView, Reader
    from nejax.models.sae.architectures import SAE, GatedSAE, JumpReLUSAE, TopKSAE
    from nejax.models.sae.evaluation import SAEReport, evaluate_sae
    from nejax.models.sae.files import LoadedSAE, load_sae, save_sae
    from nejax.neuron.assignment import Assignment, assign, min_similarity
    from nejax.neuron.clustering.average_linkage import Linkage, average_linkage, cut, to_scipy
    from nejax.neuron.clustering.connected_components import connected_components
    from nejax.neuron.clustering.kernel_kmeans import kmeans_from_distances
    from nejax.neuron.clustering.kmeans import KMeans, kmeans
    from nejax.neuron.clustering.quality import Silhouette, adjusted_rand_index, silhouette
    from nejax.neuron.clustering.separated import Separated, separated
    from nejax.neuron.clustering.spectral import Spectral, spectral
    from nejax.neuron.clusters import central_examples, cohesion, feature_directions, feature_similarity
    from nejax.neuron.coordinates import PrincipalCoordinates, principal_coordinates
    from nejax.neuron.embeddings import embedding_distances, neuron_embeddings
    from nejax.neuron.importance import token_importance
    from nejax.neuron.polysemanticity import (
        Polysemanticity,
        count_unit_embeddings,
        neuron_embedding_loss,
        polysemanticity,
        streaming_mean_distance,
        sum_unit_embeddings,
    )
    from nejax.neuron.split import Split, calibrated_height, split
    from nejax.pipeline.passes.arrays import collect
    from nejax.pipeline.passes.collect import Collection
    from nejax.pipeline.run.settings import Settings

_EXPORTED = {
    "atlas.atlas": "Atlas open_atlas",
    "atlas.build": "build_atlas",
    "atlas.entries": "Example Feature",
    "atlas.neuron": "Neuron",
    "errors": "SettingError UserError",
    "models.loading": "LoadedModel load_model",
    "models.reading": "Branches Editor LayerView Reader",
    "models.sae.architectures": "SAE GatedSAE JumpReLUSAE TopKSAE",
    "models.sae.evaluation": "SAEReport evaluate_sae",
    "models.sae.files": "LoadedSAE load_sae save_sae",
    "neuron.assignment": "Assignment assign min_similarity",
    "neuron.clustering.average_linkage": "Linkage average_linkage cut to_scipy",
    "neuron.clustering.connected_components": "connected_components",
    "neuron.clustering.kernel_kmeans": "kmeans_from_distances",
    "neuron.clustering.kmeans": "KMeans kmeans",
    "neuron.clustering.quality": "Silhouette adjusted_rand_index silhouette",
    "neuron.clustering.separated": "Separated separated",
    "neuron.clustering.spectral": "Spectral spectral",
    "neuron.clusters": "central_examples cohesion feature_directions feature_similarity",
    "neuron.coordinates": "PrincipalCoordinates principal_coordinates",
    "neuron.embeddings": "embedding_distances neuron_embeddings",
    "neuron.importance": "token_importance",
    "neuron.polysemanticity": "Polysemanticity count_unit_embeddings neuron_embedding_loss polysemanticity "
    "streaming_mean_distance sum_unit_embeddings",
    "neuron.split": "Split calibrated_height split",
    "pipeline.passes.arrays": "collect",
    "pipeline.passes.collect": "Collection",
    "pipeline.run.settings": "Settings",
}
"""Public names by module, as they are imported above for whoever checks types."""

_MODULES = {name: module for module, names in _EXPORTED.items() for name in names.split()}

__all__ = sorted(_MODULES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """A public name, from its module. JAX comes with the first one: who only reads an atlas's files needs none."""
    if name not in _MODULES:
        raise AttributeError(f"module 'nejax' has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(f"nejax.{_MODULES[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
