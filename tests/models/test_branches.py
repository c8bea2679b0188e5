"""Branches of sequences, against a plain pass over each sequence with its branch spliced in."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from branch_cases import LONGEST, SEQ, VOCAB, Case, assert_same_views, both_ways, random_case
from flax import nnx

from nejax.models.families.gpt2 import GPT2, GPT2Config
from nejax.models.reading import Branches


def a_model(n_layers: int, dtype: Any = jnp.float32) -> GPT2:
    """Random, with weights large enough that tokens far back matter."""
    config = GPT2Config(VOCAB, LONGEST, 16, n_layers, 2, 24)
    graph, shapes = nnx.split(nnx.eval_shape(lambda: GPT2(config, dtype=dtype, param_dtype=dtype, rngs=nnx.Rngs(0))))
    rng = np.random.default_rng(3)
    return nnx.merge(graph, jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.4, leaf.shape), leaf.dtype), shapes))


@pytest.fixture(scope="module")
def model() -> GPT2:
    return a_model(3)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_branch_is_the_sequence_with_it_spliced_in(seed: int, model: GPT2):
    found, expected = both_ways(model, random_case(seed))
    assert found[0].activation.shape[0] == 3 and found[0].layer.tolist() == [0, 1, 2]
    assert_same_views(found, expected, rtol=1e-5, atol=1e-5)  # float32 sums of values near 10


def test_the_rows_hold_what_is_asked():
    """The cases are what they say: other tokens before and behind, other sequences, room left over."""
    case = random_case(0)
    lengths = [len(rows) for _, rows in case.at]
    assert {0, SEQ - 1} <= set(case.start) and max(np.add(case.start, lengths)) == LONGEST > SEQ
    assert any((np.diff(rows) < 0).any() for _, rows in case.at) and (case.branches.start == -1).any()


@pytest.mark.parametrize("edited", [False, True])
def test_one_layer(edited: bool):
    found, expected = both_ways(a_model(1), random_case(0), edited=edited)
    assert found[0].resid_post.shape[0] == 1
    assert_same_views(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("edited", [False, True])
def test_bfloat16(edited: bool):
    """The same to the last bit, save where sums in another order round a bfloat16 the other way: at most 0.02 here.

    One step of a bfloat16 is 0.8%, and values reach 24.
    """
    found, expected = both_ways(a_model(3, jnp.bfloat16), random_case(0), edited=edited)
    assert_same_views(found, expected, rtol=0, atol=0.04)


def test_an_editor_reaches_branches_and_nothing_else(model: GPT2):
    """What is added in the branches is added in the plain pass from the branch's start on: before it stays as it is."""
    case = random_case(0)
    found, expected = both_ways(model, case, edited=True)
    assert_same_views(found, expected, rtol=1e-5, atol=1e-5)  # values near 24
    undisturbed, _ = both_ways(model, case)
    assert all((a.resid_pre != b.resid_pre).all() for a, b in zip(found, undisturbed, strict=True))


def test_rows_that_fill_up_change_nothing(model: GPT2):
    """Whatever tokens and positions they have."""
    case = random_case(0)
    filling, branches = case.branches.start == -1, case.branches
    other = branches._replace(
        tokens=jnp.where(filling, VOCAB - 1, branches.tokens), position=jnp.where(filling, 7, branches.position)
    )
    found, _ = both_ways(model, case)
    again, _ = both_ways(model, case._replace(branches=other))
    for ours, theirs in zip(found, again, strict=True):
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_what_the_first_of_two_branches_says_does_not_reach_the_other(model: GPT2):
    """Two branches of one block, the tokens of one changed: the other is the same to the last bit."""
    case = random_case(0)
    (block, rows), *_ = case.at
    other = case.branches._replace(tokens=case.branches.tokens.at[block, rows].add(1) % VOCAB)
    found, _ = both_ways(model, case)
    again, _ = both_ways(model, case._replace(branches=other))
    assert (found[0].resid_post != again[0].resid_post).all()
    for ours, theirs in zip(found[1:], again[1:], strict=True):
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_what_branches_see():
    """Of two sequence tokens, then rows of a branch from 1 in reverse order, one from 2, and one that fills up."""
    rows = jnp.array([[2, 1, 2, 0]]), jnp.array([[1, 1, 2, -1]])
    sees = Branches(jnp.array([0]), jnp.zeros((1, 4), jnp.int32), *rows).sees(2)
    expected = [
        [1, 0, 1, 1, 0, 0],
        [1, 0, 0, 1, 0, 0],
        [1, 1, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]
    np.testing.assert_array_equal(sees[0], np.array(expected, bool))


def test_sequences_that_are_too_long(model: GPT2):
    case: Case = random_case(0)
    tokens = jnp.zeros((3, LONGEST + 1), jnp.int32)
    with pytest.raises(ValueError, match=f"sequences of {LONGEST + 1} tokens; this model has {LONGEST} positions"):
        model.read_branches(tokens, case.branches, reader=lambda view: view.activation)
