"""The stage `features`: every neuron of a layer split into its features, a store a layer, `features-LL`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from nejax.neuron.polysemanticity import Polysemanticity
from nejax.pipeline.passes.split import LayerClusterer
from nejax.pipeline.passes.thresholds import heights, layer_minimums
from nejax.pipeline.run.devices import fetch, mesh_or_all, place
from nejax.pipeline.stages.inputs import INPUTS, inputs_of_layer
from nejax.pipeline.stages.run import Run
from nejax.pipeline.stages.stage import Facts, LayerStage


class Features(NamedTuple):
    """What a layer's neurons are split into: [d_mlp, ...], but for the last two; see `Clustered`."""

    merges: np.ndarray
    n_merges: np.ndarray
    height: np.ndarray
    label: np.ndarray
    cohesion: np.ndarray
    central: np.ndarray
    silhouette: np.ndarray
    coordinates: np.ndarray
    """float16."""
    coordinates_share: np.ndarray
    measures: Polysemanticity
    directions: np.ndarray
    """[n_features of the layer, d_model] float16, neuron by neuron."""
    min_similarity: np.ndarray
    """[n_features of the layer] float32: the cosine with its direction from which on an input is the feature's."""

    @property
    def n_features(self) -> np.ndarray:
        """[d_mlp] of each neuron."""
        return (self.central >= 0).sum(axis=1)


def features_of_layer(
    found: Any,
    directions: np.ndarray,
    reference: np.ndarray,
    w_in: np.ndarray,
    has_height: bool,
    mesh: Mesh | None = None,
) -> tuple[Features, Facts]:
    """The result of a layer.

    Args:
        found: `Clustered`, as NumPy arrays, from `LayerClusterer`; with the directions of the features there are.
        directions: [n_features, d_model].
        reference: [n_reference, d_model], inputs at random positions.
        w_in: [d_model, d_mlp].
        has_height: whether clusters end at a distance; where not, that of the calibrated cut stands for it.
        mesh: the devices; all of them, if None.
    """
    height = found.height if has_height else fetch(heights(*place((reference, w_in), mesh_or_all(mesh))))
    result = Features(
        merges=found.linkage.merges,
        n_merges=found.linkage.n_merges,
        height=found.height,
        label=found.label,
        cohesion=found.cohesion,
        central=found.central,
        silhouette=found.silhouette,
        coordinates=found.coordinates.astype(np.float16),
        coordinates_share=found.coordinates_share,
        measures=found.measures,
        directions=directions.astype(np.float16),
        min_similarity=layer_minimums(found.label, found.cohesion, found.central, height),
    )
    facts: dict[str, int | float | None] = {"features": int(found.measures.n_clusters.clip(0).sum())}
    if has_height:
        alive = found.measures.n_examples > 0
        facts["median_height"] = round(float(np.median(found.height[alive])), 6) if alive.any() else None
    return result, facts


def _prepare(run: Run) -> Callable[[int], tuple[Features, Facts]]:
    of_all, clustering = INPUTS.of(run), run.settings.clustering
    split = LayerClusterer(
        n_inputs=int(of_all.n_distinct.max()),
        n_examples=of_all.input_of.shape[2],
        d_model=of_all.reference.shape[2],
        clustering=clustering,
        seed=run.settings.seed,
        chunk_mib=run.chunk_mib,
        mesh=run.mesh,
    )

    def layer(layer: int) -> tuple[Features, Facts]:
        inputs, input_of = inputs_of_layer(run, layer), of_all.input_of[layer]
        reference, w_in = of_all.reference[layer], run.input_weights[layer]
        found = split(inputs, input_of, reference, w_in, layer)
        return features_of_layer(*found, reference, w_in, clustering.has_height, run.mesh)

    return layer


def _n_layers(run: Run) -> int:
    """As many as have a store of inputs."""
    return sum(stage.startswith(f"{INPUTS.name}-") for stage in run.directory.manifest["stages"])


FEATURES = LayerStage(name="features", needs=(INPUTS,), result=Features, n_layers=_n_layers, prepare=_prepare)
