"""Which embedding of gated neurons separates better what a neuron answers to? Measures on a finished run's examples.

Compared are the embeddings of `nejax.models.families.two_sided`, and that of `w_up` alone. None may be judged by its
own distance alone, so two judges know nothing of it:

- **Token**: do examples with the same token at the peak lie nearer to each other than others? `AUC` is the chance that
  a random pair with the same token is nearer than a random pair with different ones: 0.5 says that distance and token
  have nothing to do with each other, 1 that the token decides.
- **Gradient**: the activation's own first-order account of itself, `x * d activation / d x`, weighs gate and up at
  every example as the function does. `rank correlation` (Spearman's) is that between an embedding's distances of all
  pairs and the distances of these vectors.

And, of the features that average linkage cuts at the calibrated height: the silhouette in the embedding's own
distance, and the adjusted Rand index between features and tokens at the peak.
"""

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int
from scipy.stats import rankdata

from nejax.models.families.activations import ACTIVATIONS
from nejax.models.families.two_sided import gate_and_up
from nejax.neuron._kernels.one_kernel import layer_program
from nejax.neuron.embeddings import embedding_distances
from nejax.neuron.split import calibrated_height, split
from nejax.pipeline.compare.agreement import agreement

EMBEDDINGS = ("gate", "up", "gate_and_up")


class Unit(NamedTuple):
    """One side of a gated neuron with its examples; under `lax.map`, all fields have a leading axis."""

    x: Float[Array, "n d_model"]
    """The inputs at the peaks, strongest first."""
    mask: Bool[Array, " n"]
    """Which examples are there."""
    gate: Float[Array, " d_model"]
    up: Float[Array, " d_model"]
    bias: Float[Array, "2"]
    """The gate's and the other's."""
    reference: Float[Array, "n_reference d_model"]
    """Inputs at random positions, which calibrate the height."""


class Judged(NamedTuple):
    """What one embedding makes of one unit; NaN where there is nothing to say."""

    token_auc: np.ndarray
    gradient_correlation: np.ndarray
    silhouette: np.ndarray
    token_rand_index: np.ndarray
    n_features: np.ndarray


def judge(units: Unit, tokens: Int[np.ndarray, "units n"], activation: str) -> Mapping[str, Judged]:
    """Judge every embedding by the same examples.

    Args:
        units: some, stacked.
        tokens: at the peak of each example.
        activation: the gate's non-linearity, see `nejax.models.families.activations.ACTIVATIONS`.

    Returns:
        For each of `EMBEDDINGS` its measures, with an entry for each unit.
    """
    distances, by_gradient, labels, silhouette = map(np.asarray, _split(units, activation=activation))
    found = {}
    for i, name in enumerate(EMBEDDINGS):
        where, rows = np.nonzero(units.mask), []
        agreed = agreement(where[0], labels[:, i][where], tokens[where], n_neurons=len(tokens))
        for j, mask in enumerate(np.asarray(units.mask)):
            upper = np.triu(np.outer(mask, mask), 1)
            of_pairs, token = distances[j, i][upper], tokens[j]
            same = (token[:, None] == token[None, :])[upper]
            rows.append(
                (
                    auc(of_pairs, same),
                    _spearman(of_pairs, by_gradient[j][upper]),
                    silhouette[j, i],
                    agreed.rand_index[j],
                    labels[j, i].max() + 1.0,
                )
            )
        found[name] = Judged(*np.array(rows, float).T)
    return found


def auc(distances: Float[np.ndarray, " pairs"], same: Bool[np.ndarray, " pairs"]) -> float:
    """The chance that a pair of the same kind is nearer than one of different kinds, ties counting half.

    Args:
        distances: of the pairs.
        same: which pairs are of the same kind.

    Returns:
        NaN if all pairs are the same, or none is. Source: Mann and Whitney 1947.
    """
    n_same, n_other = int(same.sum()), int((~same).sum())
    if not n_same or not n_other:
        return float("nan")
    above = _ranks(distances)[~same].sum() - n_other * (n_other + 1) / 2
    return float(above / (n_same * n_other))


def gradient_embeddings(unit: Unit, activation: str) -> Float[Array, "n d_model"]:
    """`x * d a / d x` at every example, with `a = act(x . gate + bias) * (x . up + bias)`."""
    function = ACTIVATIONS[activation]

    def value(x: Float[Array, " d_model"]) -> Float[Array, ""]:
        return function(x @ unit.gate + unit.bias[0]) * (x @ unit.up + unit.bias[1])

    return unit.x * jax.vmap(jax.grad(value))(unit.x)


@partial(jax.jit, static_argnames="activation")
@layer_program
def _split(units: Unit, *, activation: str) -> tuple[Array, Array, Array, Array]:
    """Of every unit: distances by each embedding, by the gradient, and each embedding's labels and silhouette."""

    def of_embeddings(unit: Unit) -> tuple[Array, Array, Array, Array]:
        weights = unit.gate, unit.up, gate_and_up(unit.gate, unit.up)
        gradient = gradient_embeddings(unit, activation)
        by_gradient = embedding_distances(gradient, jnp.ones_like(unit.gate))
        found = []
        for w in weights:
            of_unit = split(unit.x, w, calibrated_height(unit.reference, w), mask=unit.mask)
            found.append((embedding_distances(unit.x, w), of_unit.label, of_unit.silhouette))
        distances, labels, silhouettes = (jnp.stack(part) for part in zip(*found, strict=True))
        return distances, by_gradient, labels, silhouettes

    return lax.map(of_embeddings, units)


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of the ranks; NaN where one of the two is constant or there is nothing."""
    of_a, of_b = _ranks(a), _ranks(b)
    if len(a) < 2 or of_a.std() == 0 or of_b.std() == 0:
        return float("nan")
    return float(np.corrcoef(of_a, of_b)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1 on, ties sharing their mean; in float64, as SciPy from 1.18 on ranks float32 values in float32."""
    return rankdata(values.astype(np.float64))
