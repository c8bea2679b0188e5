"""The choice of examples against a loop over neurons that does what the documentation says."""

from typing import Any

import numpy as np
import pytest

from nejax.neuron.streaming.top_examples import TopExamples
from nejax.pipeline.corpus.windows import Sequences
from nejax.pipeline.passes.select import Chosen, choose_examples
from nejax.pipeline.run.constants import CONTEXT

N_LAYERS, D_MLP, KEEP, N_SEQUENCES, SEQ_LEN = 2, 40, 12, 30, 14


def a_buffer(seed: int) -> tuple[TopExamples, np.ndarray]:
    """Best examples full of ties, negative activations, empty places and dead neurons, on text that repeats itself."""
    rng = np.random.default_rng(seed)
    tokens = (rng.random((N_SEQUENCES, SEQ_LEN)) < 0.04).astype(np.int32)
    tokens[:, 0] = 7  # BOS: a context that begins before it differs from one that does not
    activation = rng.choice(np.array([-0.5, 0.0, 0.3, 1.0, 1.1, 2.0, 5.0], np.float32), (N_LAYERS, D_MLP, KEEP))
    activation -= 4 * (rng.random((N_LAYERS, D_MLP, 1)) < 0.1).astype(np.float32)  # some nearly dead
    activation[:, 3] = -0.1  # dead
    activation[0, 4] = 1.0  # all alike
    activation[1, 5] = 0.0
    sequence = rng.permuted(np.broadcast_to(np.arange(N_SEQUENCES), (N_LAYERS, D_MLP, N_SEQUENCES)), axis=2)
    sequence = sequence[..., :KEEP].astype(np.int32)
    position = rng.integers(1, SEQ_LEN, sequence.shape).astype(np.int32)
    n_there = rng.integers(0, KEEP + 1, (N_LAYERS, D_MLP, 1))
    there = (np.arange(KEEP) < n_there) | (rng.random((N_LAYERS, D_MLP, 1)) < 0.5)
    order = np.argsort(-np.where(there, activation, -np.inf), axis=2, kind="stable")
    fields = np.where(there, activation, -np.inf), np.where(there, sequence, -1), np.where(there, position, -1)
    return TopExamples(*(np.take_along_axis(field, order, 2) for field in fields)), tokens


def candidates(best: TopExamples, tokens: np.ndarray, layer: int, neuron: int, min_fraction, max_repeats):
    """One neuron's examples that may be chosen, and how many were left out as repeats."""
    seen: dict[tuple, int] = {}
    kept, n_repeats = [], 0
    activation, sequence, position = (field[layer, neuron] for field in best)
    for a, s, p in zip(activation, sequence, position, strict=True):
        if s < 0 or not a > 0 or (min_fraction is not None and not a > np.float32(min_fraction) * activation[0]):
            continue
        context = tuple(tokens[s, max(p - CONTEXT + 1, 0) : p + 1])  # shorter at the sequence's start
        seen[context] = seen.get(context, 0) + 1
        if seen[context] <= max_repeats:
            kept.append((float(a), int(s), int(p)))
        else:
            n_repeats += 1
    return kept, n_repeats


def choose(best, tokens, **options: Any) -> tuple[Chosen, dict[str, int]]:
    defaults = {"selection": "top", "n_examples": 5, "min_fraction": 0.4, "max_repeats": 2}
    none = np.zeros(len(tokens), np.int32)  # the choice looks at tokens alone
    pieces = [
        Sequences(*(field[i : i + 11] for field in (tokens, none, none, none))) for i in range(0, len(tokens), 11)
    ]
    chosen, repeats, counts = choose_examples(best, pieces, **(defaults | options))
    assert repeats.shape == np.asarray(best.sequence).shape[:2] and repeats.sum() == counts["repeats_left_out"]
    return chosen, counts


def examples_of(chosen: Chosen, layer: int, neuron: int) -> list[tuple[float, int, int]]:
    """One neuron's examples, after a check that the rest of its row is empty."""
    sequence, position, activation = (field[layer, neuron] for field in chosen)
    n = int((sequence >= 0).sum())
    assert (sequence[n:] == -1).all() and (position[n:] == 0).all() and np.isnan(activation[n:]).all()
    return [(float(a), int(s), int(p)) for a, s, p in zip(activation[:n], sequence[:n], position[:n], strict=True)]


def evenly(m: int, n: int) -> list[int]:
    """Ranks 0 to m - 1 at n even steps, each rounded to the nearest, halves up; all in whole numbers."""
    if m <= n:
        return list(range(m))
    return [(2 * i * (m - 1) + (n - 1)) // (2 * (n - 1)) for i in range(n)] if n > 1 else [0]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("selection", ["fraction", "top", "quantiles"])
@pytest.mark.parametrize(("n_examples", "max_repeats"), [(1, 1), (4, 1), (5, 2), (KEEP, 3), (KEEP + 5, KEEP)])
def test_every_neuron_has_the_examples_of_a_plain_loop(seed, selection, n_examples, max_repeats):
    best, tokens = a_buffer(seed)
    chosen, counts = choose(best, tokens, selection=selection, n_examples=n_examples, max_repeats=max_repeats)
    assert all(field.shape == (N_LAYERS, D_MLP, n_examples) for field in chosen)
    assert [field.dtype for field in chosen] == [np.int32, np.int32, np.float32]
    n_repeats = n_dead = n_chosen = 0
    for layer, neuron in np.ndindex(N_LAYERS, D_MLP):
        fraction = 0.4 if selection == "fraction" else None
        kept, left_out = candidates(best, tokens, layer, neuron, fraction, max_repeats)
        ranks = evenly(len(kept), n_examples) if selection == "quantiles" else range(min(n_examples, len(kept)))
        assert examples_of(chosen, layer, neuron) == [kept[rank] for rank in ranks]
        n_repeats, n_dead, n_chosen = n_repeats + left_out, n_dead + (not kept), n_chosen + len(ranks)
    assert counts == {"examples": n_chosen, "repeats_left_out": n_repeats, "dead_neurons": n_dead}
    assert n_dead >= N_LAYERS and (n_repeats > 0 or max_repeats > 2)


def test_quantiles_reach_from_the_strongest_to_the_weakest():
    best, tokens = a_buffer(0)
    kept = [candidates(best, tokens, *place, None, 3)[0] for place in np.ndindex(N_LAYERS, D_MLP)]
    for n in (2, 3, 5):
        chosen, _ = choose(best, tokens, selection="quantiles", n_examples=n, max_repeats=3)
        for place, there in zip(np.ndindex(N_LAYERS, D_MLP), kept, strict=True):
            if len(there) < n:
                continue
            found = examples_of(chosen, *place)
            assert (found[0], found[-1]) == (there[0], there[-1])
            steps = np.diff([there.index(example) for example in found])
            assert steps.min() >= 1 and steps.max() - steps.min() <= 1


@pytest.mark.parametrize("min_fraction", [0.0, 0.2, 0.55, 0.999])
def test_the_fraction_is_of_the_neurons_own_maximum_and_is_not_reached(min_fraction):
    best, tokens = a_buffer(1)
    chosen, _ = choose(best, tokens, selection="fraction", min_fraction=min_fraction, n_examples=KEEP, max_repeats=99)
    for place in np.ndindex(N_LAYERS, D_MLP):
        there = [a for a in best.activation[place].tolist() if a > 0]
        above = [a for a in there if a > np.float32(min_fraction) * there[0]]
        assert [a for a, _, _ in examples_of(chosen, *place)] == above


def one_neuron(tokens: list[list[int]], places: list[tuple[int, int]]) -> tuple[TopExamples, np.ndarray]:
    """Peaks at the given (sequence, position)s, in falling order of activation."""
    sequence, position = np.array(places, np.int32).T[:, None, None, :]
    activation = np.arange(len(places), 0, -1, dtype=np.float32)[None, None]
    return TopExamples(activation, sequence, position), np.array(tokens, np.int32)


def chosen_ranks(tokens, places, **options) -> list[int]:
    best, tokens = one_neuron(tokens, places)
    found = examples_of(choose(best, tokens, n_examples=len(places), **options)[0], 0, 0)
    return [len(places) - int(a) for a, _, _ in found]


def test_a_repeat_has_the_same_eight_tokens_not_seven_not_nine():
    shared = [1, 2, 3, 4, 5, 6, 7]
    texts = [[9, 8, *shared], [5, 8, *shared], [9, 9, *shared], [9, 8, *shared[:-1], 0]]
    places = [(0, 8), (1, 8), (2, 8), (3, 8)]
    assert CONTEXT == 8 and chosen_ranks(texts, places, max_repeats=1) == [0, 2, 3]


def test_near_the_start_the_context_is_short_and_a_longer_one_is_another():
    """`3 4` at the start of a sequence is not `3 4` after something else, be it even token 0 or padding."""
    texts = [[3, 4, 0, 0], [0, 3, 4, 0], [3, 4, 9, 9], [0, 0, 3, 4]]
    assert chosen_ranks(texts, [(0, 1), (1, 2), (2, 1), (3, 3)], max_repeats=1) == [0, 1, 3]


def test_neurons_do_not_share_their_contexts():
    """A context that one neuron used up is still free for another."""
    tokens = np.zeros((1, 6), np.int32)
    activation, places = np.ones((1, 2, 1), np.float32), np.zeros((1, 2, 1), np.int32)
    chosen, counts = choose(TopExamples(activation, places, places + 3), tokens, max_repeats=1)
    assert (chosen.sequence[..., 0] == 0).all() and counts["repeats_left_out"] == 0


def test_tokens_in_another_order_are_another_context():
    rng = np.random.default_rng(0)
    texts = [list(rng.permutation(8)) for _ in range(60)]
    distinct = {tuple(text): rank for rank, text in reversed(list(enumerate(texts)))}
    assert chosen_ranks(texts, [(i, 7) for i in range(60)], max_repeats=1) == sorted(distinct.values())


def test_a_corpus_in_which_nothing_fires_has_no_examples(recwarn):
    empty = TopExamples(np.full((1, 3, 4), -np.inf, np.float32), *(np.full((1, 3, 4), -1, np.int32),) * 2)
    for selection in ("fraction", "top", "quantiles"):
        chosen, counts = choose(empty, np.zeros((2, 5), np.int32), selection=selection, min_fraction=0.0)
        assert (chosen.sequence == -1).all() and np.isnan(chosen.activation).all()
        assert counts == {"examples": 0, "repeats_left_out": 0, "dead_neurons": 3}
    assert not recwarn.list
