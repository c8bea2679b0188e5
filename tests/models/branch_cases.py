"""Random branches of random sequences, and the plain pass that each is a part of."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from nejax.models.reading import Branches, Editor, LayerView

VOCAB, SEQ, LONGEST, ROWS = 30, 11, 16, 24
"""Tokens; of a sequence; of a sequence with a branch that goes on behind its end; of a block."""


class Case(NamedTuple):
    """Branches, and for each its spliced sequence, its first position, and the block and rows that hold it."""

    tokens: np.ndarray
    branches: Branches
    spliced: np.ndarray
    start: np.ndarray
    at: list[tuple[int, np.ndarray]]


def random_case(seed: int) -> Case:
    """Four blocks of two of three sequences, three branches in each, their rows shuffled among rows that fill up.

    One begins at the first position, one at the last, one goes on behind the end of its sequence.
    """
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, VOCAB, (3, SEQ)).astype(np.int32)
    of_block = np.array([2, 0, 2, 0], np.int32)
    token, position = (np.zeros((len(of_block), ROWS), np.int32) for _ in range(2))
    start = np.full((len(of_block), ROWS), -1, np.int32)
    spliced, starts, at = [], [], []
    for block, sequence in enumerate(of_block):
        free = rng.permutation(ROWS)
        firsts = rng.choice(SEQ, 3, replace=False)
        ends = np.array([rng.integers(first + 1, SEQ + 1) for first in firsts])
        if block == 0:
            firsts, ends = np.array([0, 5, SEQ - 1]), np.array([4, LONGEST, SEQ])
        for first, end in zip(firsts, ends, strict=True):
            rows, free = free[: min(end - first, 8)], free[min(end - first, 8) :]
            end = first + len(rows)
            if block == 0 and first == 5:
                rows, free, end = np.append(rows, free[: LONGEST - end]), free[LONGEST - end :], LONGEST
            own = rng.integers(0, VOCAB, len(rows))
            token[block, rows], position[block, rows], start[block, rows] = own, np.arange(first, end), first
            whole = np.zeros(LONGEST, np.int32)
            whole[:SEQ], whole[first:end] = tokens[sequence], own
            spliced.append(whole)
            starts.append(first)
            at.append((block, rows))
    return Case(tokens, Branches(*map(jnp.asarray, (of_block, token, position, start))), np.stack(spliced), starts, at)


def shift_from(start: Any, position: Any) -> Editor:
    """An editor that changes every named value, by how much each says, at positions from a start on."""
    here = (position >= start)[:, :, None]

    def edit(name: str, value: jax.Array, layer: jax.Array) -> jax.Array:
        return jnp.where(here, value * 1.1 + 0.01 * len(name) + 0.1 * layer, value).astype(value.dtype)

    return edit


def both_ways(model: Any, case: Case, *, edited: bool = False) -> tuple[list[LayerView], list[LayerView]]:
    """Of every branch everything that a reader sees, from `read_branches` and from a plain pass: [n_layers, rows, ...].

    Args:
        model: with `read_branches`.
        case: see `random_case`.
        edited: change what goes on in the branches.
    """
    start, position = np.array(case.start)[:, None], np.arange(LONGEST)[None]

    def in_branches(model: Any, tokens: Any, branches: Branches) -> LayerView:
        own = {"editor": shift_from(branches.start, branches.position)} if edited else {}
        return model.read_branches(tokens, branches, reader=lambda view: view, **own)

    def plainly(model: Any, tokens: Any) -> LayerView:
        own = {"editor": shift_from(start, position)} if edited else {}
        return model(tokens, reader=lambda view: view, **own)[1]

    found = jax.tree.map(_as_numpy, nnx.jit(in_branches)(model, jnp.asarray(case.tokens), case.branches))
    expected = jax.tree.map(_as_numpy, nnx.jit(plainly)(model, jnp.asarray(case.spliced)))

    def part(view: Any, cut: Callable[[Any], Any]) -> LayerView:
        return LayerView(*(field if field.ndim == 1 else cut(field) for field in view))

    of_branches, of_passes = [], []
    for i, (block, rows) in enumerate(case.at):
        places = case.start[i] + np.arange(len(rows))
        of_branches.append(part(found, lambda field: field[:, block, rows]))  # noqa: B023
        of_passes.append(part(expected, lambda field: field[:, i, places]))  # noqa: B023
    return of_branches, of_passes


def _as_numpy(x: jax.Array) -> np.ndarray:
    return np.asarray(x, np.int32 if x.dtype == jnp.int32 else np.float32)


def assert_same_views(found: list[LayerView], expected: list[LayerView], *, rtol: float, atol: float) -> None:
    """All fields of all branches."""
    assert len(found) == len(expected) > 0
    for branch, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        for name, a, b in zip(LayerView._fields, ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=rtol, atol=atol, err_msg=f"branch {branch}, {name}")
