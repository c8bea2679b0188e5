"""Every exported function of arrays, with the arguments to call it on: those of a layer."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import nejax

ON_THE_HOST = {"to_scipy"}
"""Of arrays, but no JAX: the shape of what comes out depends on values."""

OF_ARRAYS = {
    name
    for name in nejax.__all__
    if getattr(nejax, name).__module__.startswith("nejax.neuron.") and not isinstance(getattr(nejax, name), type)
}
"""Every exported function of arrays; other names are of models, of files, or types."""


class Case(NamedTuple):
    """One neuron's call of a function, or a layer's where it takes all neurons at once."""

    call: Callable[..., Any]
    arguments: tuple[str, ...]
    """Names in `Arrays`."""
    gradient: bool = False
    """Whether it is differentiable in its first argument."""
    of_layer: bool = False
    has_nan: bool = False
    """Whether NaN is among what it returns for want of a definition, which `jax_debug_nans` refuses."""


class Arrays(NamedTuple):
    """A layer: the leading axis runs over neurons."""

    x: Any
    w: Any
    directions: Any
    distances: Any
    mask: Any
    labels: Any
    others: Any
    linkage: Any
    height: Any
    minimum: Any
    key: Any
    batch: Any
    w_in: Any
    fires: Any
    sums: Any
    counts: Any
    cohesion: Any
    activation: Any
    without: Any


LAYOUT = {"w_in": (None, "n"), "fires": (None, "n"), "sums": (None, "n"), "counts": ("n",)}
"""Of the arguments of functions of a layer: where their axis over neurons is."""


K_MEANS = {"n_restarts": 2, "max_steps": 20}
CASES = {
    "adjusted_rand_index": Case(nejax.adjusted_rand_index, ("labels", "others")),
    "assign": Case(nejax.assign, ("x", "w", "directions", "minimum")),
    "average_linkage": Case(nejax.average_linkage, ("distances", "mask")),
    "calibrated_height": Case(nejax.calibrated_height, ("x", "w")),
    "central_examples": Case(nejax.central_examples, ("distances", "labels")),
    "cohesion": Case(nejax.cohesion, ("distances", "labels"), gradient=True),
    "connected_components": Case(nejax.connected_components, ("distances", "height", "mask")),
    "count_unit_embeddings": Case(nejax.count_unit_embeddings, ("batch", "w_in", "fires"), of_layer=True),
    "cut": Case(nejax.cut, ("linkage", "height")),
    "embedding_distances": Case(nejax.embedding_distances, ("x", "w"), gradient=True),
    "feature_directions": Case(nejax.feature_directions, ("x", "w", "labels"), gradient=True),
    "feature_similarity": Case(nejax.feature_similarity, ("x", "w", "directions"), gradient=True),
    "kmeans": Case(
        lambda x, key, mask: nejax.kmeans(x, None, key=key, mask=mask, max_clusters=5, spherical=True, **K_MEANS),
        ("x", "key", "mask"),
        has_nan=True,  # the silhouette of one cluster
    ),
    "kmeans_from_distances": Case(
        lambda distances, key, mask: nejax.kmeans_from_distances(distances, 3, key=key, mask=mask, **K_MEANS),
        ("distances", "key", "mask"),
    ),
    "min_similarity": Case(nejax.min_similarity, ("cohesion", "labels", "height")),
    "neuron_embedding_loss": Case(
        nejax.neuron_embedding_loss, ("batch", "w_in", "fires"), gradient=True, of_layer=True
    ),
    "neuron_embeddings": Case(nejax.neuron_embeddings, ("x", "w"), gradient=True),
    "polysemanticity": Case(nejax.polysemanticity, ("distances", "labels"), gradient=True),
    "principal_coordinates": Case(nejax.principal_coordinates, ("distances", "mask")),
    "separated": Case(
        lambda distances, linkage, height: nejax.separated(distances, linkage, height, min_support=2),
        ("distances", "linkage", "height"),
        has_nan=True,  # what speaks for features that there are not
    ),
    "silhouette": Case(nejax.silhouette, ("distances", "labels"), gradient=True),
    "spectral": Case(
        lambda distances, key, mask: nejax.spectral(distances, key=key, mask=mask, max_clusters=4, n_restarts=2),
        ("distances", "key", "mask"),
    ),
    "split": Case(lambda x, w, height, mask: nejax.split(x, w, height, mask=mask), ("x", "w", "height", "mask")),
    "streaming_mean_distance": Case(nejax.streaming_mean_distance, ("sums", "counts"), gradient=True, of_layer=True),
    "sum_unit_embeddings": Case(nejax.sum_unit_embeddings, ("batch", "w_in", "fires"), gradient=True, of_layer=True),
    "token_importance": Case(nejax.token_importance, ("activation", "without"), gradient=True),
}


PARTS_OF_SPLIT = {
    *("average_linkage", "central_examples", "cohesion", "cut", "embedding_distances", "feature_directions"),
    *("polysemanticity", "principal_coordinates", "silhouette"),
}
"""What `split` of these cases calls with the same arguments, and returns."""


def a_layer(n_neurons: int, n: int, d: int, dtype: Any = np.float32) -> Arrays:
    """Neurons whose examples are in four groups; two examples of every third neuron are masked.

    Of ten or more, one has no example, and one a single one.
    """
    rng = np.random.default_rng(0)
    group = np.arange(n) % 4
    own = rng.normal(size=(n_neurons, 4, d)).astype(np.float32)
    x = (own[:, group] + 0.4 * rng.normal(size=(n_neurons, n, d)).astype(np.float32)).astype(dtype)
    w = rng.normal(size=(n_neurons, d)).astype(dtype)
    mask = np.ones((n_neurons, n), bool)
    mask[::3, 1:3] = False
    mask[4:5], mask[5:6, 1:] = False, False
    labels = np.where(mask, group, -1).astype(np.int32)
    others = np.where(rng.uniform(size=labels.shape) < 0.2, 0, labels).astype(np.int32)
    x, w, mask, labels = (jnp.asarray(values) for values in (x, w, mask, labels))
    distances = lax.map(lambda each: nejax.embedding_distances(*each), (x, w))
    directions = lax.map(lambda each: nejax.feature_directions(*each), (x, w, labels))[:, :8]
    linkage = lax.map(lambda each: nejax.average_linkage(*each), (distances, mask))
    fires = jnp.asarray(rng.uniform(size=(n, n_neurons)) < 0.3)
    activation = rng.uniform(1, 5, (n_neurons, n)).astype(np.float32)
    without = activation[:, :, None] * rng.uniform(-0.2, 1.1, (n_neurons, n, 8)).astype(np.float32)
    without[:, :, 0] = 0.1 * activation
    return Arrays(
        x=x,
        w=w,
        directions=directions,
        distances=distances,
        mask=mask,
        labels=labels,
        others=jnp.asarray(others),
        linkage=linkage,
        height=jnp.full(n_neurons, 0.6, jnp.float32),
        minimum=jnp.asarray(rng.uniform(0.3, 0.9, (n_neurons, 8)).astype(np.float32)),
        key=jax.random.split(jax.random.key(0), n_neurons),
        batch=x[0],
        w_in=w.T,
        fires=fires,
        sums=nejax.sum_unit_embeddings(x[0], w.T, fires),
        counts=nejax.count_unit_embeddings(x[0], w.T, fires),
        cohesion=lax.map(lambda each: nejax.cohesion(*each), (distances, labels)),
        activation=jnp.asarray(activation),
        without=jnp.asarray(without),
    )
