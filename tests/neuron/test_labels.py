import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nejax.neuron.clustering.labels import relabel

relabel = jax.jit(relabel)


@given(st.lists(st.tuples(st.integers(-3, 20), st.booleans()), min_size=7, max_size=7))
@settings(deadline=None, derandomize=True, max_examples=200)
def test_groups_are_named_in_the_order_of_their_first_unmasked_row(rows):
    groups, mask = np.array([g for g, _ in rows], np.int32), np.array([m for _, m in rows])
    names = {}
    expected = [names.setdefault(g, len(names)) if m else -1 for g, m in rows]
    np.testing.assert_array_equal(relabel(groups, mask), expected)


@pytest.mark.parametrize("mask", [True, False])
def test_one_row(mask):
    assert relabel(jnp.array([5]), jnp.array([mask])).tolist() == [0 if mask else -1]
