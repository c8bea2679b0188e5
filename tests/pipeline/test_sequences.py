"""Sequences on disk in shards: the same however they are cut, read, asked for or interrupted; and what runs ahead."""

import gc
import hashlib
import itertools
import json
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_corpus import assert_same, random_documents

from nejax.errors import UserError
from nejax.pipeline.corpus import windows as corpus_module
from nejax.pipeline.corpus.digests import Digests
from nejax.pipeline.corpus.documents import Corpus, Document
from nejax.pipeline.corpus.sequences import SequenceShards, ahead, rows_by_piece
from nejax.pipeline.corpus.windows import Sequences, TokenizedCorpus, cut_documents, make_sequences
from nejax.pipeline.run.directory import RunDirectory

SEQ_LEN, SHARD = 8, 7


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    """Of them two are copies, one is too short, and two are long enough for several shards."""
    some = random_documents(24, max_words=12)
    long = [Document(f"long {i}", text) for i, (_, text) in enumerate(random_documents(2, seed=5, max_words=300))]
    copies = [Document("copy", some[2].text), Document("copy of a long one", long[0].text)]
    return [*some[:9], long[0], *copies, Document("short", "~"), *some[9:], long[1], copies[0]]


def corpus_of(documents: list[Document]) -> Corpus:
    """With some that cannot be used between them."""
    pairs = [pair for i, document in enumerate(documents) for pair in (document, *[("blank", " ")] * (i % 3 == 0))]
    return Corpus("test", lambda skipped: iter([tuple(pair) for pair in pairs]))


@pytest.fixture(scope="module")
def whole(documents, tokenizer) -> TokenizedCorpus:
    """All at once."""
    return make_sequences(corpus_of(documents), tokenizer, seq_len=SEQ_LEN, batch_size=4)


def shards_in(path: Path, documents, tokenizer, shard_size: int = SHARD, **options) -> SequenceShards:
    def cut(after, seen):
        rule = {"seq_len": SEQ_LEN, "batch_size": 4, "shard_size": shard_size} | options
        return cut_documents(corpus_of(documents), tokenizer, after=after, seen=seen, **rule)

    return SequenceShards(RunDirectory(path, {}), SEQ_LEN, cut)


@pytest.fixture(scope="module")
def finished(documents, tokenizer, tmp_path_factory) -> SequenceShards:
    shards = shards_in(tmp_path_factory.mktemp("shards") / "run", documents, tokenizer)
    for _ in shards.stream():
        pass
    return shards


def joined(pieces: Iterator[Sequences]) -> Sequences:
    return Sequences(*map(np.concatenate, zip(*pieces, strict=True)))


def facts_in(path: Path) -> dict:
    """What the manifest says, but for times; the digests of the stores are among it."""
    stages = json.loads((path / "manifest.json").read_text())["stages"]
    return {stage: {name: fact for name, fact in facts.items() if name != "seconds"} for stage, facts in stages.items()}


# --- shards are a cut through one whole


def test_the_documents_of_these_tests_are_worth_it(whole):
    assert len(whole.sequences.tokens) > 6 * SHARD and len(whole.sequences.tokens) % SHARD
    assert whole.counts["duplicate_sequences"] > 2 * SHARD and whole.counts["short_windows"] > 0
    n_windows = np.bincount(whole.sequences.document)
    assert n_windows.max() > 2 * SHARD, "shards in which no document begins"


@settings(max_examples=12, deadline=None)
@given(shard_size=st.integers(1, 150), batch_size=st.integers(1, 9), limit=st.none() | st.integers(1, 120))
def test_any_size_of_shards_gives_the_same_sequences(shard_size, batch_size, limit, documents, tokenizer):
    rule = {"seq_len": SEQ_LEN, "max_sequences": limit, "batch_size": batch_size}
    expected = make_sequences(corpus_of(documents), tokenizer, **rule, shard_size=10**6)
    with Digests() as seen:
        shards = list(cut_documents(corpus_of(documents), tokenizer, **rule, seen=seen, shard_size=shard_size))
    assert_same(joined(shard.sequences for shard in shards), expected.sequences)
    assert [name for shard in shards for name in shard.documents] == expected.documents
    assert (shards[-1].account.counts, shards[-1].account.skipped) == expected[2:]
    sizes = [len(shard.sequences.tokens) for shard in shards]
    assert set(sizes[:-1]) <= {shard_size} and 0 < sizes[-1] <= shard_size
    assert [shard.account.place is None for shard in shards] == [False] * (len(shards) - 1) + [True]


@settings(max_examples=12, deadline=None)
@given(shard_size=st.integers(1, 40), n_done=st.integers(1, 5), limit=st.none() | st.integers(50, 120))
def test_cutting_goes_on_after_any_shard(shard_size, n_done, limit, documents, tokenizer):
    """With only what the shards before say: no document before the place is tokenized again."""
    rule = {"seq_len": SEQ_LEN, "max_sequences": limit, "batch_size": 4, "shard_size": shard_size}
    with Digests() as seen:
        shards = list(cut_documents(corpus_of(documents), tokenizer, **rule, seen=seen))
    n_done = min(n_done, len(shards) - 1)
    if not n_done:
        return
    after = type(shards[0].account)(**json.loads(json.dumps(shards[n_done - 1].account._asdict())))
    texts = []

    def watched(tokenizer, batch):
        texts.extend(batch)
        return tokenize(tokenizer, batch)

    tokenize = corpus_module.tokenize
    with Digests() as seen:
        for shard in shards[:n_done]:
            for row, length in zip(*shard.sequences[:2], strict=True):
                seen.add(row[1:length])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(corpus_module, "tokenize", watched)
            rest = list(cut_documents(corpus_of(documents), tokenizer, **rule, seen=seen, after=after))
    for a, b in zip(rest, shards[n_done:], strict=True):
        assert_same(a.sequences, b.sequences)
        assert a[1:] == b[1:]
    assert texts[0] == documents[after.place[0]].text


def test_the_stored_shards_are_the_sequences(finished, whole, documents):
    n = len(whole.sequences.tokens)
    assert finished.are_whole and finished.n_sequences == n
    assert finished.n_tokens == finished.expected_tokens(None) == whole.sequences.length.sum()
    assert [name for names in finished.documents() for name in names] == whole.documents
    path = finished._directory.path
    facts = facts_in(path)
    digest = hashlib.blake2b(whole.sequences.tokens.tobytes(), digest_size=16).hexdigest()
    assert facts["tokens"] == {
        **whole.counts,
        "skipped": whole.skipped,
        "fingerprint": digest,
        "shards": -(-n // SHARD),
    }
    assert facts.keys() == {"tokens", *(f"tokens-{shard:04d}" for shard in range(-(-n // SHARD)))}
    assert not list(path.glob("*partial*")), "no digests are left"


@pytest.mark.slow
def test_a_stream_from_every_start(finished, whole):
    n = len(whole.sequences.tokens)
    for start in (0, 1, SHARD - 1, SHARD, SHARD + 1, 5 * SHARD + 3, 6 * SHARD, n - 1):
        pieces = list(finished.stream(start))
        assert max(len(piece.tokens) for piece in pieces) <= SHARD and min(len(piece.tokens) for piece in pieces) > 0
        assert_same(joined(pieces), Sequences(*(field[start:] for field in whole.sequences)))
        assert finished.tokens_before(start) == whole.sequences.length[:start].sum()
    assert list(finished.stream(n)) == []
    assert finished.tokens_before(n) == finished.n_tokens


def test_taking_is_indexing_and_reads_each_shard_once(finished, whole, monkeypatch):
    rng = np.random.default_rng(0)
    n, loads, load = len(whole.sequences.tokens), [], SequenceShards._load
    monkeypatch.setattr(SequenceShards, "_load", lambda self, shard: loads.append(shard) or load(self, shard))
    for numbers in (rng.integers(0, n, 50), np.arange(n), np.arange(n)[::-1], np.array([n - 1]), np.empty(0, int)):
        loads.clear()
        assert_same(finished.take(numbers), Sequences(*(field[numbers] for field in whole.sequences)))
        assert len(loads) == len(set(loads))
    loads.clear()
    for first in range(0, n, 3):
        finished.take(np.arange(first, min(first + 3, n)))
    assert loads == list(range(-(-n // SHARD))), "batch by batch in ascending order, too"


@given(st.lists(st.integers(-1, 40), max_size=60), st.lists(st.integers(1, 20), min_size=1, max_size=8))
def test_rows_by_piece_are_each_numbers_own(numbers, sizes):
    bounds = np.cumsum([0, *sizes])
    pieces = (Sequences(*[np.arange(a, b)] * 4) for a, b in itertools.pairwise(bounds))
    found = np.full(len(numbers), -1)
    for piece, entries, rows in rows_by_piece(pieces, np.array(numbers, int)):
        assert (found[entries] == -1).all()
        found[entries] = piece.tokens[rows]
    assert found.tolist() == [number if 0 <= number < bounds[-1] else -1 for number in numbers]


# --- stopped, and gone on with


@pytest.mark.slow
@pytest.mark.parametrize("start", [0, 10])
def test_stopped_at_any_shard_or_within_one_it_goes_on_to_the_same_bits(
    start, documents, tokenizer, finished, whole, tmp_path
):
    """The reader stops after each shard in turn, and a digests file of a killed process lies about."""
    n_shards = -(-len(whole.sequences.tokens) // SHARD)
    for n_read in range(1, n_shards + 1):
        shards = shards_in(tmp_path / "run", documents, tokenizer)
        stream = shards.stream()
        for _ in range(n_read):
            next(stream)
        stream.close()
        assert not shards.are_whole and shards.n_sequences == min(n_read * SHARD, len(whole.sequences.tokens))
        (tmp_path / "run" / "digests.partial").write_bytes(b"left by a kill")
    shards = shards_in(tmp_path / "run", documents, tokenizer)
    assert_same(joined(shards.stream(start)), Sequences(*(field[start:] for field in whole.sequences)))
    assert facts_in(tmp_path / "run") == facts_in(finished._directory.path)
    assert not list((tmp_path / "run").glob("*partial*"))


@pytest.mark.slow
def test_stopped_within_a_shard_it_goes_on_to_the_same_bits(documents, tokenizer, finished, whole, tmp_path):
    class Killed(BaseException):
        pass

    for n_cut in (3, SHARD + 2, 2 * SHARD - 1, 2 * SHARD):
        told = []

        def kill(n, told=told, n_cut=n_cut):
            told.append(n)
            if len(told) == n_cut:
                raise Killed

        with pytest.raises(Killed):
            list(shards_in(tmp_path / "run", documents, tokenizer, progress=kill).stream())
    assert 0 < shards_in(tmp_path / "run", documents, tokenizer).n_sequences < len(whole.sequences.tokens)
    assert_same(joined(shards_in(tmp_path / "run", documents, tokenizer).stream()), whole.sequences)
    assert facts_in(tmp_path / "run") == facts_in(finished._directory.path)


def test_what_is_expected_grows_into_what_is_there(documents, tokenizer, whole, tmp_path):
    n = len(whole.sequences.tokens)
    shards = shards_in(tmp_path / "run", documents, tokenizer, max_sequences=n)
    assert shards.expected_tokens(n) is None
    for i, _ in enumerate(shards.stream(), start=1):
        n_there = min(i * SHARD, n)
        assert shards.expected_tokens(n) == round(whole.sequences.length[:n_there].mean() * n)
        assert shards.expected_tokens(None) is None
    assert shards.expected_tokens(n) == shards.expected_tokens(None) == whole.sequences.length.sum()


def test_a_corpus_that_shrank_is_refused(documents, tokenizer, tmp_path):
    stream = shards_in(tmp_path / "run", documents, tokenizer).stream()
    for _ in range(4):
        next(stream)
    stream.close()
    with pytest.raises(UserError, match=f"the corpus ends before its sequence {4 * SHARD}, and had more"):
        list(shards_in(tmp_path / "run", documents[:3], tokenizer).stream())


def test_a_full_disk_keeps_the_shards_that_are_there(documents, tokenizer, whole, tmp_path, monkeypatch):
    real = Digests.__init__

    def small(self, path=None):
        real(self, path)
        self._database.execute("PRAGMA max_page_count = 3")

    monkeypatch.setattr(Digests, "__init__", small)
    rule = {"seq_len": SEQ_LEN, "shard_size": SHARD}
    many = [*documents, *random_documents(60, seed=9, max_words=200)]
    with pytest.raises(UserError, match=r"the disk of .* is full; free some space and run the same command"):
        list(shards_in(tmp_path / "run", many, tokenizer, **rule).stream())
    monkeypatch.undo()
    assert shards_in(tmp_path / "run", many, tokenizer, **rule).n_sequences > SHARD
    assert not list((tmp_path / "run").glob("*partial*"))


# --- digests


def test_digests_are_a_set(tmp_path):
    rng = np.random.default_rng(0)
    windows = [rng.integers(0, 3, rng.integers(1, 5)).astype(np.int32) for _ in range(400)]
    for path in (None, tmp_path / "digests"):
        known: set[tuple] = set()
        with Digests(path) as seen:
            for window in windows:
                assert seen.add(window) == (tuple(window) not in known)
                known.add(tuple(window))
        assert len(known) > 50
    assert not list(tmp_path.iterdir())


# --- ahead


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "ahead"]


def test_ahead_gives_the_pieces_in_order():
    with ahead(i for i in range(100)) as pieces:
        assert list(pieces) == list(range(100))
    assert not threads()


@pytest.mark.parametrize("n", [1, 2, 5])
def test_it_keeps_so_many_ahead_and_no_more(n):
    made = []

    def source():
        for i in range(20):
            made.append(i)
            yield i

    with ahead(source(), n) as pieces:
        for i, piece in enumerate(pieces):
            assert piece == i
            deadline = time.monotonic() + 5
            while len(made) < min(i + 1 + n, 20) and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(0.01)
            assert len(made) == min(i + 1 + n, 20)


@pytest.mark.parametrize("error", [UserError("the disk is full"), KeyError("x"), KeyboardInterrupt()])
def test_what_the_pieces_raise_is_raised_where_they_are_taken(error):
    def source():
        yield 1
        raise error

    taken = []
    with pytest.raises(type(error)) as raised, ahead(source()) as pieces:
        for piece in pieces:
            taken.append(piece)
    assert raised.value is error and taken == [1] and not threads()


@pytest.mark.parametrize("n_taken", [0, 1, 3])
def test_who_stops_early_ends_the_thread_and_closes_the_source(n_taken):
    closed = []

    def source():
        try:
            while True:
                yield 0
        finally:
            closed.append(threading.current_thread().name)

    with pytest.raises(RuntimeError, match="enough"), ahead(source()) as pieces:
        for _ in range(n_taken):
            next(pieces)
        time.sleep(0.02)
        raise RuntimeError("enough")
    assert not threads() and closed == ["ahead"]


def test_one_who_computes_and_one_who_reads_take_turns_in_the_same_run(documents, tokenizer, whole, tmp_path):
    shards = shards_in(tmp_path / "run", documents, tokenizer)
    with ahead(shards.stream(3)) as pieces:
        assert_same(joined(pieces), Sequences(*(field[3:] for field in whole.sequences)))
    assert shards.are_whole


@pytest.mark.slow
def test_no_more_than_a_few_shards_are_held(documents, tokenizer, tmp_path, monkeypatch):
    """Those ahead, the one in hand, and what the one in the making is made of."""
    alive: list[weakref.ref] = []
    most = 0

    def n_alive() -> int:
        gc.collect()
        return sum(ref() is not None for ref in alive)

    real = corpus_module._pad

    def watched(*args):
        found = real(*args)
        alive.append(weakref.ref(found.tokens))
        return found

    monkeypatch.setattr(corpus_module, "_pad", watched)
    shards = shards_in(tmp_path / "run", documents, tokenizer)
    gc.freeze()  # what other tests left need not be gone through every time
    try:
        with ahead(shards.stream()) as pieces:
            for _ in pieces:
                most = max(most, n_alive())
    finally:
        gc.unfreeze()
    assert len(alive) > 6 and 1 <= most <= 4
