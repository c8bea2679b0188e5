"""A site's inputs against a model run whole, and a shuffled stream that is the same wherever it begins."""

import itertools
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny_gpt2 import D_MODEL, N_LAYERS, N_SEQUENCES, RULE, SEQ_LEN, SPECIAL, random_model, random_sequences, see_all

from nejax.errors import UserError
from nejax.models.families.gpt2 import GPT2
from nejax.models.sae.hook_points import Site
from nejax.pipeline.corpus.sequences import SequenceShards
from nejax.pipeline.corpus.windows import Account, Sequences, Shard
from nejax.pipeline.passes.peaks import PeakRule
from nejax.pipeline.run.directory import RunDirectory
from nejax.training.site_inputs import InputStream, SiteReader, first_inputs

SHARD, BATCH = 10, 29


def some(sequences: Sequences, rows: slice) -> Sequences:
    return Sequences(*(field[rows] for field in sequences))


def shards_of(sequences: Sequences, path: Path) -> SequenceShards:
    """The sequences on disk, in shards of 10."""

    def cut(after, seen):
        for start in range(0, len(sequences.tokens), SHARD):
            piece = some(sequences, slice(start, start + SHARD))
            n = start + len(piece.tokens)
            counts = {"sequences": n, "tokens": int(sequences.length[:n].sum()) - n}
            place = [n, 0, n, n] if n < len(sequences.tokens) else None
            yield Shard(piece, ["text"] * len(piece.tokens), Account(counts, {}, place))

    return SequenceShards(RunDirectory(path, {}), SEQ_LEN, cut)


@pytest.fixture(scope="module")
def model() -> GPT2:
    return random_model()


@pytest.fixture(scope="module")
def sequences() -> Sequences:
    return random_sequences()


@pytest.fixture(scope="module")
def where(sequences) -> np.ndarray:
    """Written out: not BOS at the first position, no special token, no padding."""
    position = np.arange(SEQ_LEN)
    return (position >= 1) & (position < sequences.length[:, None]) & ~np.isin(sequences.tokens, SPECIAL)


@pytest.fixture(scope="module")
def read(model) -> SiteReader:
    return SiteReader(model, Site(1, "mlp_input"), rule=RULE, batch_size=8)


@pytest.fixture(scope="module")
def inputs(model, sequences, where) -> np.ndarray:
    return see_all(model, sequences).mlp_input[1][where]


@pytest.fixture(scope="module")
def stream(read, sequences, tmp_path_factory) -> InputStream:
    return InputStream(read, shards_of(sequences, tmp_path_factory.mktemp("run")), buffer=7 * SEQ_LEN + 3, seed=4)


def rows_of(batches: list[np.ndarray], inputs: np.ndarray) -> np.ndarray:
    """Which of the distinct inputs each row is."""
    rows, found = np.concatenate(batches), []
    for row in rows:
        distance = np.abs(inputs - row).max(axis=1)
        assert distance.min() < 1e-5
        found.append(int(distance.argmin()))
    return np.array(found)


# --- reading


def test_inputs_are_those_of_the_whole_model_at_the_right_positions(read, sequences, where, inputs):
    np.testing.assert_array_equal(read.positions(sequences), where)
    np.testing.assert_allclose(read(sequences), inputs, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_every_site_of_the_last_layer(model, sequences, where):
    few, layer, names = some(sequences, slice(5)), N_LAYERS - 1, ("resid_pre", "resid_mid", "mlp_output", "resid_post")

    @jax.jit
    def see(tokens):
        return model(tokens, reader=lambda view: {name: getattr(view, name) for name in names})[1]

    expected = see(few.tokens)
    for name in names:
        found = SiteReader(model, Site(layer, name), rule=RULE, batch_size=5)(few)
        np.testing.assert_allclose(found, np.asarray(expected[name])[layer][where[:5]], rtol=1e-5, atol=1e-5)


def test_centred_inputs_have_no_mean_and_the_first_position_can_be_read(model, sequences, inputs):
    site, nothing = Site(1, "mlp_input"), np.array([], np.int32)
    found = SiteReader(model, site, rule=RULE, centred=True)(sequences)
    np.testing.assert_allclose(found, inputs - inputs.mean(axis=1, keepdims=True), rtol=1e-5, atol=1e-5)
    everywhere = SiteReader(model, site, rule=PeakRule.of(nothing, 0))
    assert everywhere.positions(sequences).sum() == sequences.length.sum()


def test_values_that_are_not_finite_are_refused_with_their_place(model, sequences):
    broken = random_model()
    broken.blocks.mlp_norm.scale[...] = broken.blocks.mlp_norm.scale[...].at[1, 3].set(np.nan)
    with pytest.raises(UserError, match="mlp_input of layer 1"):
        SiteReader(broken, Site(1, "mlp_input"), rule=RULE)(some(sequences, slice(2)))


def test_the_first_inputs_come_in_the_order_of_the_text_and_no_more_is_read_than_needed(read, sequences, inputs, where):
    taken = []

    def pieces():
        for start in range(0, N_SEQUENCES, 4):
            taken.append(start)
            yield some(sequences, slice(start, start + 4))

    n = int(where[:6].sum()) - 1
    found, used = first_inputs(read, pieces(), n)
    assert len(used.tokens) == 6 and taken == [0, 4]
    np.testing.assert_allclose(found, inputs[: n + 1], rtol=1e-5, atol=1e-6)
    found, used = first_inputs(read, pieces(), 10**9)
    assert len(found) == len(inputs) and len(used.tokens) == N_SEQUENCES


def test_a_text_with_nothing_to_read_is_refused(read, sequences, tmp_path):
    nothing = sequences._replace(tokens=np.zeros_like(sequences.tokens))
    with pytest.raises(UserError, match="no position to read"):
        first_inputs(read, [nothing], 5)
    with pytest.raises(UserError, match="no position to read"):
        InputStream(read, shards_of(nothing, tmp_path), buffer=100, seed=0)


# --- the stream


def test_every_input_comes_as_often_as_any_other(stream, inputs):
    """Inputs repeat (two sequences begin alike), so they are counted by their value."""
    distinct, n = inputs[np.unique(inputs.round(4), axis=0, return_index=True)[1]], len(inputs)
    places = rows_of([inputs], distinct)
    distinct, count = distinct[np.unique(places)], np.bincount(places)[np.unique(places)]
    assert stream.n_inputs == n and stream.n_sequences == N_SEQUENCES
    rows = rows_of(list(itertools.islice(stream.batches(BATCH), 3 * n // BATCH + 20)), distinct)
    seen = np.bincount(rows[: 3 * n], minlength=len(distinct)) / count
    # The stream ends in the middle of a window: a block of inputs more or less than three epochs.
    assert seen.mean() == pytest.approx(3, abs=0.3) and seen.min() >= 1 and seen.max() <= 5


def test_neighbours_in_the_text_are_no_neighbours_in_the_stream(stream, inputs):
    rows = rows_of(list(itertools.islice(stream.batches(BATCH), 40)), inputs)
    assert np.mean(np.abs(np.diff(rows)) == 1) < 0.05
    first_window = rows[: stream.n_inputs // 8]
    assert len(np.unique(first_window // 50)) > 3  # from all over the corpus


@pytest.mark.parametrize("first", [1, 2, 13, 40, 77])
def test_a_stream_that_begins_in_the_middle_is_the_same_to_the_bit(first: int, stream):
    whole = list(itertools.islice(stream.batches(BATCH), 80))
    for expected, found in zip(whole[first:], stream.batches(BATCH, first), strict=False):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
def test_batch_sizes_cut_the_same_stream_and_seeds_make_others(stream, read, sequences, tmp_path):
    small = np.concatenate(list(itertools.islice(stream.batches(10), 60)))
    large = np.concatenate(list(itertools.islice(stream.batches(300), 2)))
    np.testing.assert_array_equal(small, large)
    other = InputStream(read, shards_of(sequences, tmp_path), buffer=7 * SEQ_LEN + 3, seed=5)
    assert np.abs(next(other.batches(300)) - large[:300]).max() > 0.1


@pytest.mark.slow
def test_a_buffer_larger_than_the_corpus_and_one_of_a_sequence(read, sequences, inputs, tmp_path):
    shards = shards_of(sequences, tmp_path)
    whole = InputStream(read, shards, buffer=10**6, seed=0)
    assert whole.sample().shape == (len(inputs), D_MODEL)
    assert next(whole.batches(2 * len(inputs), 1)).shape == (2 * len(inputs), D_MODEL)
    tiny = InputStream(read, shards, buffer=1, seed=0)
    expected = np.concatenate(list(itertools.islice(tiny.batches(5), 30)))
    np.testing.assert_array_equal(next(tiny.batches(50, 2)), expected[100:])
