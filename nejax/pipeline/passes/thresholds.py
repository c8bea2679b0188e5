"""From which similarity on an input belongs to a feature, and whether a neuron's own examples then do.

The rule is that of `nejax.neuron.assignment.min_similarity`. It follows from what average linkage does, not from the
examples, so these are a test of it.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from nejax.neuron._kernels.one_kernel import layer_program, loops_are_kernels
from nejax.neuron.assignment import assign, min_similarity_of_features
from nejax.neuron.clusters import feature_similarity
from nejax.neuron.defaults import HEIGHT_QUANTILE
from nejax.neuron.split import calibrated_height
from nejax.pipeline.passes.split import check_reference
from nejax.pipeline.run.devices import fetch, fill_up, mesh_or_all, place, up_to_devices
from nejax.pipeline.run.spread import over_devices, place_rows

_SIDE_BY_SIDE = 128
"""Neurons at a time, except on CPU."""


class Reproduced(NamedTuple):
    """How many stored examples come out as their own feature, and why others do not."""

    examples: int
    own: int
    """Those whose own feature is found."""
    nearer_to_another: int
    """Another feature's direction is nearer, though the own minimum is reached too: clusters were joined pair by pair,
    and each example stays where it was joined first."""
    only_another: int
    """The own minimum is not reached (the feature grew away from it), that of another is."""
    none: int
    """No minimum is reached."""


class Checker:
    """Compares the features of examples with those that their inputs are assigned to, a layer at a time.

    Args:
        n_inputs: most distinct inputs of any layer.
        n_features: most features of any layer: shorter ones are padded, so that one compilation serves all.
        mesh: the devices, see `nejax.pipeline.run.devices.mesh_of`; all of them, if None.
    """

    def __init__(self, n_inputs: int, n_features: int, mesh: Mesh | None = None):
        self.n_inputs, self.n_features, self.mesh = n_inputs, n_features, mesh_or_all(mesh)
        self._check = jax.jit(over_devices(_check, self.mesh))

    def __call__(
        self,
        inputs: np.ndarray,
        input_of: np.ndarray,
        label: np.ndarray,
        w_in: np.ndarray,
        directions: np.ndarray,
        n_features: np.ndarray,
        minimum: np.ndarray,
    ) -> Reproduced:
        """Check a layer.

        Args:
            inputs: [n_distinct, d_model] float32.
            input_of: [n_neurons, n_examples] int32, rows of `inputs`; -1 where empty.
            label: [n_neurons, n_examples] int32, the feature of each example; -1 where empty.
            w_in: [d_model, n_neurons].
            directions: [n_features, d_model], neuron by neuron.
            n_features: [n_neurons] int, of each.
            minimum: [n_features] least similarity to each direction.

        Returns:
            The counts.
        """
        # A slice at the end would be moved to fit: there must be room for as many features as a neuron can have.
        room = self.n_features + label.shape[1]
        for_all = (
            fill_up(inputs, self.n_inputs),
            fill_up(directions, room),
            fill_up(minimum.astype(np.float32), room, np.inf),
        )
        first = (n_features.cumsum() - n_features).astype(np.int32)
        of_neurons = w_in.T.astype(np.float32), first, n_features.astype(np.int32), input_of, label
        rows = place_rows(of_neurons, up_to_devices(len(label), self.mesh), self.mesh, fill=-1)
        return Reproduced(*fetch(self._check(place(for_all, self.mesh), rows)).sum(axis=0).tolist())


@layer_program
def _check(
    for_all: tuple[
        Float[Array, "n_inputs d_model"], Float[Array, "n_directions d_model"], Float[Array, " n_directions"]
    ],
    of_neurons: list[Array],
) -> Int[Array, "n_neurons 5"]:
    """The counts of every neuron, fields of `Reproduced`.

    Args:
        for_all: inputs, and the directions and least similarities of all features.
        of_neurons: input weights [n_neurons, d_model], the first feature and their number [n_neurons], and of each
            example its input and its feature [n_neurons, n_examples].
    """
    inputs, directions, minimum = for_all
    most = of_neurons[-1].shape[1]

    def check(neuron: tuple[Array, ...]) -> Array:
        w, first, n_features, input_of, label = neuron
        x = inputs[jnp.maximum(input_of, 0)]
        own_directions = lax.dynamic_slice(directions, (first, 0), (most, directions.shape[1]))
        own_directions = jnp.where(jnp.arange(most)[:, None] < n_features, own_directions, 0)
        own_minimum = lax.dynamic_slice(minimum, (first,), (most,))
        found = assign(x, w, own_directions, own_minimum).feature
        own = jnp.maximum(label, 0)[:, None]
        similarity = jnp.take_along_axis(feature_similarity(x, w, own_directions), own, axis=1)[:, 0]
        reached, other = similarity >= own_minimum[own[:, 0]], (found >= 0) & (found != label)
        kinds = (label >= -1, found == label, other & reached, other & ~reached, found < 0)
        return jnp.stack([(kind & (label >= 0)).sum(dtype=jnp.int32) for kind in kinds])

    return lax.map(check, tuple(of_neurons), batch_size=None if loops_are_kernels() else _SIDE_BY_SIDE)


def layer_minimums(
    label: np.ndarray, cohesion: np.ndarray, central: np.ndarray, height: np.ndarray
) -> Float[np.ndarray, " n_features"]:
    """The least similarity of every feature of a layer.

    Args:
        label: [n_neurons, n_examples] int, see `Clustered`, as are the next two.
        cohesion: [n_neurons, n_examples].
        central: [n_neurons, n_examples] int.
        height: [n_neurons] where each dendrogram is cut; where it is not, the calibrated one, see `heights`.

    Returns:
        [features of the layer] float32, neuron by neuron.
    """
    n_features = (central >= 0).sum(axis=1)
    first = n_features.cumsum() - n_features
    neuron, example = np.nonzero(label >= 0)
    feature = first[neuron] + label[neuron, example]
    of_layer = int(n_features.sum())
    size = np.bincount(feature, minlength=of_layer)
    # Each example of a feature has equally many others: the mean over examples is the mean over pairs.
    mean = np.bincount(feature, np.nan_to_num(cohesion[neuron, example]), minlength=of_layer) / np.maximum(size, 1)
    of_feature = np.repeat(height, n_features)
    return np.asarray(
        min_similarity_of_features(of_feature.astype(np.float32), mean.astype(np.float32), np.maximum(size, 1))
    )


@partial(jax.jit, static_argnames="quantile")
@layer_program
def heights(
    reference: Float[Array, "n_reference d_model"],
    w_in: Float[Array, "d_model n_neurons"],
    quantile: float = HEIGHT_QUANTILE,
) -> Float[Array, " n_neurons"]:
    """The calibrated height of every neuron of a layer, see `calibrated_height`."""
    check_reference(reference)
    return lax.map(
        lambda w: calibrated_height(reference, w, quantile),
        w_in.T.astype(jnp.float32),
        batch_size=None if loops_are_kernels() else _SIDE_BY_SIDE,
    )
