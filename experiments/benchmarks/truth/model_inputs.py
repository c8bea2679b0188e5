"""The inputs of a model's MLPs at every token of a corpus, and where units peak that read them."""

import tempfile
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from nejax.models.families.activations import ACTIVATIONS
from nejax.models.loading import load_model
from nejax.neuron.streaming.top_examples import TopExamples
from nejax.pipeline.corpus.windows import Sequences
from nejax.pipeline.passes.peaks import PeakRule
from nejax.pipeline.run.settings import Settings
from nejax.pipeline.stages.run import Run

FIRST_POSITION = 8
"""No peak before it: there the beginning of a window is what a neuron sees."""

_BATCH = 32


class ModelInputs(NamedTuple):
    """What some layers of a model read. Of gated neurons, the gate stands for the neuron."""

    model: str
    layers: tuple[int, ...]
    x: np.ndarray
    """[n_layers, n_sequences, seq_len, d_model] float16."""
    w: np.ndarray
    """[n_layers, d_model, d_mlp] float32"""
    b: np.ndarray
    """[n_layers, d_mlp] float32"""
    activate: Callable[[Array], Array]
    sequences: Sequences
    allowed: np.ndarray
    """[n_sequences, seq_len] bool: where a peak may be."""
    spell: Callable[[int], str]
    """A token in text."""


def read_model(name: str, n_sequences: int, n_layers: int) -> ModelInputs:
    """Read the documents of the Python installation.

    Args:
        name: of the model.
        n_sequences: at most so many, of 128 tokens.
        n_layers: at most so many, evenly over the depth.
    """
    model = load_model(name).model
    depth = model.config.n_layers
    layers = tuple(np.unique(np.linspace(0, depth - 1, min(n_layers, depth)).round().astype(int)).tolist())
    with tempfile.TemporaryDirectory() as folder:
        run = Run(folder, Settings.of(model=name, max_sequences=n_sequences), quiet=True)
        sequences = Sequences(*map(np.concatenate, zip(*run.sequences.stream(), strict=True)))
        tokenizer = run.loaded.tokenizer
    rule = PeakRule.of(np.array(sorted(tokenizer.all_special_ids)), FIRST_POSITION)
    chosen = jnp.array(layers)

    @jax.jit
    def inputs_of(tokens: Array) -> Array:
        _, read = model.first_layers(layers[-1] + 1)(tokens, reader=lambda view: view.mlp_input.astype(jnp.float16))
        return read[chosen]

    n, rest = len(sequences.tokens), -len(sequences.tokens) % _BATCH
    padded = np.pad(sequences.tokens, ((0, rest), (0, 0)))
    x = np.concatenate([np.asarray(inputs_of(padded[i : i + _BATCH])) for i in range(0, n, _BATCH)], axis=1)[:, :n]
    w, b = (np.asarray(of(), np.float32)[list(layers)] for of in (model.input_weights, model.input_bias))
    activate = ACTIVATIONS[model.config.activation]
    return ModelInputs(
        name,
        layers,
        x,
        w,
        b,
        activate,
        sequences,
        rule.allowed_in(sequences),
        lambda token: str(tokenizer.decode([token])),
    )


def best_examples(inputs: ModelInputs, layer: int, w: np.ndarray, b: np.ndarray, keep: int) -> TopExamples:
    """The best of units that read one layer: one peak a sequence.

    Args:
        inputs: of the model.
        layer: the place in `inputs.layers`.
        w: [d_model, m] the units' weights.
        b: [m]
        keep: at most so many examples a unit.

    Returns:
        Of each unit, [m, keep].
    """
    n = len(inputs.allowed)
    peaks = [_peaks(inputs.x[layer, i : i + _BATCH], inputs.allowed[i : i + _BATCH], w, b) for i in range(0, n, _BATCH)]
    value, position = (np.concatenate(parts, axis=1) for parts in zip(*peaks, strict=True))  # [m, n]
    order = np.argsort(-value, axis=1, kind="stable")[:, :keep]
    best = np.take_along_axis(value, order, 1)
    activation = np.where(np.isfinite(best), np.asarray(inputs.activate(jnp.asarray(best))), -np.inf)
    return TopExamples(activation, order.astype(np.int32), np.take_along_axis(position, order, 1))  # pyright: ignore[reportArgumentType]


@jax.jit
def _peaks(x: Array, allowed: Array, w: Array, b: Array) -> tuple[Array, Array]:
    """Of each unit the highest pre-activation of each sequence, and where: [m, n]."""
    value = jnp.where(allowed[:, :, None], x.astype(jnp.float32) @ w + b, -jnp.inf)
    return value.max(axis=1).T, value.argmax(axis=1).T.astype(jnp.int32)
