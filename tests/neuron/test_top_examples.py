import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nejax.errors import UserError
from nejax.neuron.streaming import top_examples
from nejax.neuron.streaming.top_examples import TopExamples, empty_top_examples, update_top_examples

N_STREAM = 60
# Many ties in the activation and in the sequence, few values, and masked entries; an example comes once.
STREAMS = st.lists(
    st.tuples(st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 0.5, 2.0]), st.integers(0, 15), st.integers(0, 7)),
    min_size=N_STREAM,
    max_size=N_STREAM,
    unique_by=lambda example: example[1:],
)


def best(stream, k):
    """By sorting the whole stream."""
    kept = sorted((example for example in stream if example[0] > -np.inf), key=lambda e: (-e[0], e[1], e[2]))[:k]
    return kept + [(-np.inf, -1, -1)] * (k - len(kept))


def feed(top, stream, sizes):
    """In batches of the given sizes, one after another and again from the first."""
    activation, sequence, position = (np.array(column) for column in zip(*stream, strict=True))
    start = 0
    while start < len(stream):
        for size in sizes:
            batch = slice(start, start + size)
            # the last batch is filled up with masked entries
            missing = size - len(activation[batch])
            top = update_top_examples(
                top,
                np.pad(activation[batch], (0, missing), constant_values=-np.inf).astype("f4"),
                np.pad(sequence[batch], (0, missing)).astype("i4"),
                np.pad(position[batch], (0, missing)).astype("i4"),
            )
            start += size
    return top


def as_list(top):
    return list(zip(*(np.asarray(field).tolist() for field in top), strict=True))


@given(STREAMS, st.randoms(use_true_random=False), st.sampled_from([(7,), (16,), (7, 40)]))
@settings(deadline=None, derandomize=True, max_examples=50)
@pytest.mark.parametrize("k", [1, 20, 70])
def test_the_best_of_a_stream_in_any_order_and_any_batches(k, stream, random, sizes):
    shuffled = random.sample(stream, len(stream))
    assert as_list(feed(empty_top_examples(k), shuffled, sizes)) == best(stream, k)


@given(STREAMS, st.sampled_from([1, 5, 16, 40]))
@settings(deadline=None, derandomize=True, max_examples=30)
def test_accelerators_keep_the_same(stream, size):
    """What runs there, run here: chunks instead of one by one."""
    top = tuple(empty_top_examples(20))
    insert = jax.jit(top_examples._insert_by_chunks)
    activation, sequence, position = (np.array(column) for column in zip(*stream, strict=True))
    for start in range(0, N_STREAM, size):
        part = slice(start, start + size)
        columns = activation[part].astype("f4"), sequence[part].astype("i4"), position[part].astype("i4")
        top = insert(top, *map(jnp.asarray, columns))
    assert as_list(top) == best(stream, 20)


def test_neurons_side_by_side_on_accelerators(monkeypatch):
    """`vmap` over neurons, as collection does it, in the form for accelerators."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    activation = np.random.default_rng(0).normal(size=(3, 40)).astype("f4")
    arrivals = jnp.arange(40, dtype=jnp.int32)
    empty = jax.tree.map(lambda values: jnp.stack([values] * 3), empty_top_examples(20))
    update = jax.vmap(lambda top, values: update_top_examples(top, values, arrivals, arrivals))
    for neuron, top in enumerate(zip(*update(empty, activation), strict=True)):
        stream = list(zip(activation[neuron].tolist(), range(40), range(40), strict=True))
        assert as_list(top) == best(stream, 20)


def test_nan_and_masked_are_never_kept():
    stream = [(np.nan, 0, 0), (-np.inf, -7, -7), (-np.inf, 1, 0), (-5.0, 2, 0), (np.inf, 3, 0)]
    assert as_list(feed(empty_top_examples(3), stream, (5,))) == [
        (np.inf, 3, 0),
        (-5.0, 2, 0),
        (-np.inf, -1, -1),
    ]


def test_zeros_of_both_signs_are_equal():
    stream = [(0.0, 2, 0), (-0.0, 1, 0), (0.0, 0, 0)]
    assert [sequence for _, sequence, _ in as_list(feed(empty_top_examples(3), stream, (3,)))] == [0, 1, 2]


def test_an_example_that_comes_twice_is_kept_twice():
    stream = [(1.0, 0, 0), (2.0, 1, 1), (1.0, 0, 0)]
    expected = [(2.0, 1, 1), (1.0, 0, 0), (1.0, 0, 0), (-np.inf, -1, -1)]
    assert as_list(feed(empty_top_examples(4), stream, (3,))) == expected
    assert as_list(feed(empty_top_examples(4), stream, (1,))) == expected


def test_no_arrivals():
    top = feed(empty_top_examples(2), [(1.0, 4, 5)], (1,))
    nothing = np.zeros(0, "f4"), np.zeros(0, "i4"), np.zeros(0, "i4")
    assert as_list(update_top_examples(top, *nothing)) == as_list(top)


def test_types_are_kept():
    top = empty_top_examples(3)
    new = update_top_examples(top, jnp.ones(2, jnp.bfloat16), np.arange(2, dtype="i8"), np.arange(2, dtype="i8"))
    assert [field.dtype for field in new] == [field.dtype for field in top] == ["float32", "int32", "int32"]


def test_layers_of_neurons_are_loops():
    rng = np.random.default_rng(0)
    layers, neurons, k, b = 2, 3, 10, 24
    top = jax.tree.map(lambda field: jnp.tile(field, (layers, neurons, 1)), empty_top_examples(k))
    single = [[empty_top_examples(k) for _ in range(neurons)] for _ in range(layers)]
    update = jax.jit(jax.vmap(jax.vmap(update_top_examples, (0, 0, None, 0)), (0, 0, None, 0)))
    for start in range(0, 5 * b, b):
        activation = rng.integers(0, 9, (layers, neurons, b)).astype("f4")
        position = rng.integers(0, 30, (layers, neurons, b)).astype("i4")
        sequence = np.arange(start, start + b, dtype="i4")
        top = update(top, activation, sequence, position)
        for i in range(layers):
            for j in range(neurons):
                single[i][j] = update_top_examples(single[i][j], activation[i, j], sequence, position[i, j])
                assert as_list(TopExamples(*(field[i, j] for field in top))) == as_list(single[i][j])


@pytest.mark.parametrize("k", [0, -3])
def test_a_buffer_for_nothing_is_refused(k):
    with pytest.raises(UserError, match=f"k is {k}; expected at least 1"):
        empty_top_examples(k)
