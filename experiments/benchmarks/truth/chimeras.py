"""Chimeras: neurons with known features on a real model's inputs, each a sum of neurons that answer to one token.

A label is as good as its parent is pure. A parent answers to one token, but may tell its uses apart.
"""

from collections.abc import Iterator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from benchmarks.truth.model_inputs import ModelInputs, best_examples
from benchmarks.truth.units import N_EXAMPLES, Unit
from nejax.neuron.streaming.top_examples import TopExamples
from nejax.pipeline.passes.select import Chosen, choose_examples

DEPTH = 1024
"""Examples of a neuron that are looked at: many neurons are pure at the top, and not below."""

PURITY = 0.8
"""The share of them whose token must be the same."""

PARENT_FRACTION, CHIMERA_FRACTION = 0.4, 0.25
"""Of the maximum, that an example's activation exceeds."""

OWN, OTHERS = 0.5, 0.25
"""An example is a parent's if the parent is at least so active, as a share of its maximum, and all others at most."""


class Parent(NamedTuple):
    """A neuron that answers to one token."""

    neuron: int
    token: int
    purity: float
    maximum: float


def chimera_units(inputs: ModelInputs, n_each: int, seed: int = 0) -> Iterator[Unit]:
    """Chimeras of one to four parents with different tokens.

    Args:
        inputs: of the model.
        n_each: at most so many of each number of parents in each layer.
        seed: of the parents that are drawn.
    """
    for layer, number in enumerate(inputs.layers):
        rng = np.random.default_rng([seed, number])
        parents = find_parents(inputs, layer)
        families = [family for k in (1, 2, 3, 4) for family in _families(rng, parents, k, n_each)]
        if families:
            yield from _chimeras(inputs, layer, families, rng)


def find_parents(inputs: ModelInputs, layer: int) -> list[Parent]:
    """The pure neurons of a layer with enough examples."""
    best = best_examples(inputs, layer, inputs.w[layer], inputs.b[layer], 2 * DEPTH)
    sequence, position, activation = _choose(inputs, best, PARENT_FRACTION)
    found = []
    for neuron in range(len(sequence)):
        there = sequence[neuron] >= 0
        if there.sum() < N_EXAMPLES:
            continue
        tokens, count = np.unique(inputs.sequences.tokens[sequence, position][neuron, there], return_counts=True)
        purity = count.max() / there.sum()
        if purity >= PURITY:
            found.append(Parent(neuron, int(tokens[count.argmax()]), float(purity), float(activation[neuron, 0])))
    return found


def _choose(inputs: ModelInputs, best: TopExamples, fraction: float) -> Chosen:
    """As the pipeline does, of one layer: fields [m, DEPTH]."""
    rule = {"n_examples": DEPTH, "min_fraction": fraction, "max_repeats": 2}
    of_layers = TopExamples(*(np.asarray(field)[None] for field in best))  # pyright: ignore[reportArgumentType]
    chosen, _, _ = choose_examples(of_layers, [inputs.sequences], selection="fraction", **rule)
    return Chosen(*(field[0] for field in chosen))


def _families(rng: np.random.Generator, parents: list[Parent], k: int, n: int) -> list[tuple[Parent, ...]]:
    """Up to `n` different sets of `k` parents, of different tokens."""
    if k == 1:
        return [(parents[i],) for i in rng.permutation(len(parents))[:n]]
    found: dict[tuple[Parent, ...], None] = {}
    for _ in range(20 * n if len(parents) >= k else 0):
        family = tuple(parents[i] for i in np.sort(rng.choice(len(parents), k, replace=False)))
        if len({parent.token for parent in family}) == k and len(found) < n:
            found[family] = None
    return list(found)


def _chimeras(
    inputs: ModelInputs, layer: int, families: list[tuple[Parent, ...]], rng: np.random.Generator
) -> Iterator[Unit]:
    """The unit that fires with any of its parents, each scaled to its maximum."""
    w, b = inputs.w[layer], inputs.b[layer]
    of_units = [[(parent.neuron, parent.maximum) for parent in family] for family in families]
    joint_w = np.stack([sum(w[:, j] / top for j, top in unit) for unit in of_units], axis=1)
    joint_b = np.array([sum(b[j] / top for j, top in unit) for unit in of_units], np.float32)
    sequence, position, _ = _choose(inputs, best_examples(inputs, layer, joint_w, joint_b, DEPTH), CHIMERA_FRACTION)
    places = np.argwhere(inputs.allowed)
    for row, family in enumerate(families):
        at = sequence[row][sequence[row] >= 0], position[row][sequence[row] >= 0]
        x, token = inputs.x[layer][at].astype(np.float32), inputs.sequences.tokens[at]
        label = owners(inputs, layer, family, x, token)
        clear = np.flatnonzero(label >= 0)[:N_EXAMPLES]
        random = places[rng.choice(len(places), N_EXAMPLES, replace=False)]
        names = tuple(f"{inputs.layers[layer]}.{p.neuron} {inputs.spell(p.token)!r}" for p in family)
        yield Unit(
            *("chimera", f"layer {inputs.layers[layer]}", False, len(family), float("nan"), 0),
            *(x[clear], joint_w[:, row], label[clear]),
            inputs.x[layer][tuple(random.T)].astype(np.float32),
            token[clear],
            names,
        )


def owners(inputs: ModelInputs, layer: int, family: tuple[Parent, ...], x: np.ndarray, token: np.ndarray) -> np.ndarray:
    """[n] whose each example is, -1 where that is not clear.

    Args:
        inputs: of the model.
        layer: the place in `inputs.layers`.
        family: the parents.
        x: [n, d_model]
        token: [n] at the peaks.
    """
    neurons = [parent.neuron for parent in family]
    pre = x @ inputs.w[layer][:, neurons] + inputs.b[layer][neurons]
    filled = np.pad(pre, ((0, DEPTH - len(pre)), (0, 0)))  # one shape, compiled once
    share = np.asarray(inputs.activate(jnp.asarray(filled)))[: len(pre)] / [parent.maximum for parent in family]
    own = share.argmax(axis=1)
    others = np.where(own[:, None] == np.arange(len(family)), -np.inf, share).max(axis=1)
    is_token = np.array([parent.token for parent in family])[own] == token
    return np.where((share.max(axis=1) >= OWN) & (others <= OTHERS) & is_token, own, -1)
