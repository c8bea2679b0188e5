"""Collection against a look at all activations at once, sorted in NumPy."""

import itertools
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from flax import nnx
from tiny_gpt2 import D_MLP, DEAD, N_LAYERS, RULE, SEQ_LEN, SPECIAL

from nejax.errors import UserError
from nejax.neuron.streaming.moments import shape_of
from nejax.pipeline.corpus.windows import Sequences
from nejax.pipeline.passes import stream
from nejax.pipeline.passes.collect import Collection, collect
from nejax.pipeline.passes.peaks import PeakRule
from nejax.pipeline.passes.stream import batches
from nejax.pipeline.run.checkpoints import Checkpoints

KEEP = 6
NOTHING_SPECIAL = np.array([-1, -1], np.int32)


def from_number(sequences: Sequences, size: int = 10):
    """The sequences from a number on, in pieces."""

    def pieces(start: int):
        for first in range(start, len(sequences.tokens), size):
            yield Sequences(*(field[first : first + size] for field in sequences))

    return pieces


class Expected(NamedTuple):
    """By brute force."""

    can_peak: np.ndarray
    """[n_sequences, seq_len]"""
    places: list[list[list[tuple[float, int, int]]]]
    """For each layer and neuron: (activation, sequence, position) of the peaks, best first."""


def brute_force(seen, sequences, special, first_position) -> Expected:
    can_peak = np.zeros(sequences.tokens.shape, bool)
    for row, (tokens, length) in enumerate(zip(sequences.tokens, sequences.length, strict=True)):
        for position in range(first_position, length):
            can_peak[row, position] = tokens[position] not in special
    places = []
    for of_layer in seen.activation:
        places.append([])
        for neuron in range(D_MLP):
            peaks = []
            for row in np.flatnonzero(can_peak.any(axis=1)):
                values = np.where(can_peak[row], of_layer[row, :, neuron], -np.inf)
                peaks.append((float(values.max()), int(row), int(values.argmax())))
            places[-1].append(sorted(peaks, key=lambda peak: (-peak[0], peak[1], peak[2])))
    return Expected(can_peak, places)


def count_near_ties(found: Collection, expected: Expected, seen) -> int:
    """Check the examples; a place that differs must hold an activation equal to the expected within 1e-5."""
    n_ties = 0
    for layer, neuron in np.ndindex(N_LAYERS, D_MLP):
        wanted = expected.places[layer][neuron]
        activation, sequence, position = (np.asarray(field)[layer, neuron] for field in found.examples)
        k = min(KEEP, len(wanted))
        np.testing.assert_allclose(activation[:k], [peak[0] for peak in wanted[:k]], rtol=1e-5, atol=1e-6)
        assert (activation[k:] == -np.inf).all() and (sequence[k:] == -1).all() and (position[k:] == -1).all()
        assert len(set(sequence[:k])) == k, "one example a sequence"
        for rank in range(k):
            if (sequence[rank], position[rank]) != wanted[rank][1:]:
                n_ties += 1
                there = seen.activation[layer, sequence[rank], position[rank], neuron]
                np.testing.assert_allclose(there, wanted[rank][0], rtol=1e-5, atol=1e-6)
                assert expected.can_peak[sequence[rank], position[rank]]
    return n_ties


def assert_counts_and_moments(found: Collection, expected: Expected, seen) -> None:
    values = seen.activation[:, expected.can_peak].astype(np.float64)  # [n_layers, n_tokens, d_mlp]
    unsure = (np.abs(seen.pre_activation[:, expected.can_peak]) < 1e-6).sum(axis=1)  # may round to either side of 0
    assert (np.abs(found.n_fired - (values > 0).sum(axis=1)) <= unsure).all()
    assert (np.asarray(found.moments.count) == expected.can_peak.sum()).all()
    shape = shape_of(found.moments)
    alive = np.ones((N_LAYERS, D_MLP), bool)
    alive[tuple(zip(*DEAD, strict=True))] = False  # all their values are -0.0
    for name, wanted in {
        "mean": values.mean(axis=1),
        "variance": values.var(axis=1),
        "skewness": scipy.stats.skew(values, axis=1),
        "kurtosis": scipy.stats.kurtosis(values, axis=1, fisher=False),
    }.items():
        got = np.asarray(getattr(shape, name))[alive]
        np.testing.assert_allclose(got, wanted[alive], rtol=1e-5, atol=1e-5, err_msg=name)


def assert_identical(a: Collection, b: Collection) -> None:
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype and np.array_equal(x, y)


@pytest.fixture(scope="module")
def expected(seen, sequences) -> Expected:
    return brute_force(seen, sequences, SPECIAL, 1)


@pytest.fixture(scope="module")
def collected(model, sequences) -> Collection:
    """In batches of 7, the last of 2."""
    return collect(model, from_number(sequences), keep=KEEP, rule=RULE, batch_size=7)


def test_the_corpus_of_these_tests_is_worth_it(expected, sequences, seen):
    """Specials inside, short rows, ties of equal prefixes, more sequences than are kept, and dead neurons."""
    assert (np.isin(sequences.tokens[:, 1:], SPECIAL[1:])).any()
    assert sequences.length.min() == 3 and sequences.length.max() == SEQ_LEN
    assert len(expected.places[0][0]) > KEEP
    assert not any((seen.activation[layer, ..., neuron] > 0).any() for layer, neuron in DEAD)
    pairs = [pair for peaks in expected.places[0] for pair in itertools.pairwise(peaks)]
    assert any(a == (b[0], 0, b[2]) and b[1] == 2 for a, b in pairs)


def test_all_fields_are_those_of_brute_force(collected, expected, seen):
    assert count_near_ties(collected, expected, seen) == 0
    assert_counts_and_moments(collected, expected, seen)


@pytest.mark.parametrize("batch_size", [1, pytest.param(3, marks=pytest.mark.slow), 64])
def test_the_batch_size_does_not_matter(batch_size, model, sequences, expected, seen):
    found = collect(model, from_number(sequences), keep=KEEP, rule=RULE, batch_size=batch_size)
    # Sequences 0 and 2 begin alike and have equal peaks: products of other shapes may settle that tie otherwise.
    assert count_near_ties(found, expected, seen) <= 0.02 * N_LAYERS * D_MLP * KEEP
    assert_counts_and_moments(found, expected, seen)


def test_the_first_position_may_peak_and_special_tokens_too_if_one_wants(model, sequences, seen):
    found = collect(model, from_number(sequences), keep=KEEP, rule=PeakRule.of(NOTHING_SPECIAL, 0), batch_size=64)
    expected = brute_force(seen, sequences, NOTHING_SPECIAL, 0)
    # BOS at position 0 is the same in all sequences: a tie of all where it is the peak.
    assert count_near_ties(found, expected, seen) <= 0.5 * N_LAYERS * D_MLP * KEEP
    assert (found.examples.position == 0).any()
    assert_counts_and_moments(found, expected, seen)


def test_more_to_keep_than_there_are_sequences(model, sequences, expected):
    few = type(sequences)(*(field[:4] for field in sequences))
    found = collect(model, from_number(few), keep=KEEP, rule=RULE, batch_size=7)
    assert ((found.examples.sequence >= 0).sum(axis=-1) == 4).all()
    assert (found.examples.activation[..., 4:] == -np.inf).all()
    assert (found.moments.count == expected.can_peak[:4].sum()).all()


def test_a_sequence_without_any_place_for_a_peak_adds_nothing(model, sequences):
    tokens = sequences.tokens.copy()
    tokens[3:6, 1:] = SPECIAL[1]
    few = sequences._replace(tokens=tokens)
    few = type(few)(*(field[:8] for field in few))
    found = collect(model, from_number(few), keep=KEEP, rule=RULE, batch_size=7)
    rows = np.asarray(found.examples.sequence)
    assert (np.sort(rows) == [-1, 0, 1, 2, 6, 7]).all()


def test_peakable_is_a_loop_over_tokens():
    rng = np.random.default_rng(0)
    tokens, length = rng.integers(0, 5, (6, 9)), np.array([0, 1, 2, 5, 8, 9])
    for first in (0, 1, 4):
        for special in ([], [2], [0, 4]):
            found = PeakRule.of(special, first).allows(jnp.asarray(tokens), jnp.asarray(length))
            wanted = [
                [first <= p < length[row] and tokens[row, p] not in special for p in range(9)] for row in range(6)
            ]
            assert np.array_equal(found, wanted)


@pytest.mark.parametrize("piece", [1, 3, 10, 64])
def test_batches_are_the_sequences_in_order_however_they_come_in_pieces(piece, sequences):
    for size, start in ((7, 0), (64, 0), (5, 15), (7, 37)):
        parts = list(batches(from_number(sequences, piece)(start), size, start))
        assert all(tokens.shape == (size, SEQ_LEN) for tokens, _, _ in parts)
        n = len(sequences.tokens) - start
        if n == 0:
            assert parts == []
            continue
        tokens, length, number = (np.concatenate(column) for column in zip(*parts, strict=True))
        assert np.array_equal(tokens[:n], sequences.tokens[start:])
        assert np.array_equal(length[:n], sequences.length[start:]) and not length[n:].any()
        assert np.array_equal(number[:n], np.arange(start, start + n))


def test_one_compilation_serves_all_batches_the_last_smaller_one_too(model, sequences, traces):
    collect(model, from_number(sequences), keep=2, rule=RULE, batch_size=5)
    assert traces == [(5, SEQ_LEN)]


def test_progress_adds_up_to_the_real_tokens(model, sequences):
    told = []
    collect(model, from_number(sequences), keep=KEEP, rule=RULE, batch_size=7, progress=told.append)
    assert sum(told) == sequences.length.sum() and len(told) == 6


# --- what is not finite


def with_nan(model, layer: int):
    """One NaN among the input weights of a layer."""
    damaged = nnx.merge(*nnx.split(model))
    kernel = np.array(damaged.blocks.mlp_in.kernel[...])
    kernel[layer, 2, 3] = np.nan
    damaged.blocks.mlp_in.kernel = nnx.Param(jnp.asarray(kernel))
    return damaged


def test_a_nan_weight_stops_the_run_and_names_its_layer_and_those_after_it(model, sequences):
    with pytest.raises(UserError, match=r"not finite .* in layer\(s\) 1, 2; .* use precision=float32"):
        collect(with_nan(model, 1), from_number(sequences), keep=KEEP, rule=RULE, batch_size=7)


def test_a_run_that_is_not_finite_stops_within_a_few_batches(model, sequences, monkeypatch):
    monkeypatch.setattr(stream, "LOOK_EVERY", 2)
    told = []
    with pytest.raises(UserError, match=r"in layer\(s\) 2; "):
        collect(with_nan(model, 2), from_number(sequences), keep=KEEP, rule=RULE, batch_size=7, progress=told.append)
    assert len(told) <= 2


# --- interrupted, and started again


class Interruption(Exception):
    pass


def interrupted_after(n_calls: int):
    """A progress callback that stops the work at its n-th batch."""
    told = []

    def progress(n_tokens: int) -> None:
        told.append(n_tokens)
        if len(told) == n_calls:
            raise Interruption

    return progress


def resume_after(
    interruptions: tuple[int, ...], model, sequences, folder: Path, batch_size: int = 7
) -> tuple[Collection, list[int]]:
    """Interrupt a collection in batches of 7, each time after some more, then finish it: the result, what was told."""
    options = {"keep": KEEP, "rule": RULE, "checkpoints": Checkpoints(folder, 0.0)}
    for n_batches in interruptions:
        with pytest.raises(Interruption):
            collect(model, from_number(sequences), batch_size=7, progress=interrupted_after(n_batches), **options)
    told = []
    return collect(model, from_number(sequences), batch_size=batch_size, progress=told.append, **options), told


@pytest.fixture
def looks_often(monkeypatch):
    monkeypatch.setattr(stream, "LOOK_EVERY", 2)


@pytest.mark.parametrize(("interruptions", "n_saved"), [((1,), 0), ((3,), 2), ((5,), 4), ((3, 3), 4)])
def test_an_interrupted_collection_goes_on_to_the_same_bits(
    interruptions, n_saved, model, sequences, collected, tmp_path, looks_often
):
    found, told = resume_after(interruptions, model, sequences, tmp_path / "partial")
    assert_identical(found, collected)
    assert sum(told) == sequences.length[7 * n_saved :].sum(), "it goes on from its last checkpoint"


def test_a_collection_goes_on_with_another_batch_size(model, sequences, expected, seen, tmp_path, looks_often):
    """Which sequences are done is what counts, not how many batches."""
    found, told = resume_after((5,), model, sequences, tmp_path / "partial", batch_size=64)
    assert sum(told) == sequences.length[28:].sum()
    assert count_near_ties(found, expected, seen) <= 0.02 * N_LAYERS * D_MLP * KEEP
    assert_counts_and_moments(found, expected, seen)


@pytest.mark.parametrize(("n_damaged", "goes_on_from"), [(1, 2), (2, 0)])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(
    n_damaged, goes_on_from, model, sequences, collected, tmp_path, looks_often, capsys
):
    folder = tmp_path / "partial"
    options = {"keep": KEEP, "rule": RULE, "checkpoints": Checkpoints(folder, 0.0), "batch_size": 7}
    with pytest.raises(Interruption):
        collect(model, from_number(sequences), progress=interrupted_after(5), **options)
    latest = sorted(folder.iterdir())[-n_damaged:]
    assert [int(path.name) for path in sorted(folder.iterdir())] == [14, 28], "two are kept"
    for path in latest:
        file = max((file for file in path.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)
        file.write_bytes(file.read_bytes()[::-1])
    told = []
    assert_identical(collect(model, from_number(sequences), progress=told.append, **options), collected)
    assert sum(told) == sequences.length[7 * goes_on_from :].sum()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == n_damaged and all(str(path) in line for path, line in zip(latest[::-1], lines, strict=True))
    assert all("is damaged (" in line for line in lines)
