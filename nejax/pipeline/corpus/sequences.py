"""The sequences of a run, on disk shard by shard, so that no more than a few shards are ever in memory.

They are cut ahead of their first reader; after that they are read from disk, in order or by number.
"""

import contextlib
import hashlib
import queue
import sys
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, TypeVar

import numpy as np

from nejax.pipeline.corpus.digests import Digests
from nejax.pipeline.corpus.documents import Corpus, CorpusRead, merged, read_back, refuse_changes
from nejax.pipeline.corpus.left_out import left_out
from nejax.pipeline.corpus.windows import Account, Sequences, Shard
from nejax.pipeline.run.directory import RunDirectory, pack_text, stop_on_full_disk, unpack_text

STAGE = "tokens"
"""Done when all shards are there; each is a store of its own, `tokens-NNNN`."""

Cut = Callable[[Account | None, Digests], Generator[Shard, None, None]]

Piece = TypeVar("Piece")


class SequenceShards:
    """The sequences of a run, numbered from 0 in the order of the corpus.

    Not thread-safe, except that one thread may read while another cuts (see `ahead`).

    Args:
        directory: of the run, where the shards are, or will be.
        seq_len: tokens a sequence.
        cut: gives the shards after the one of an account (None: from the first on), see
            `nejax.pipeline.corpus.windows.cut_documents`; the digests know all sequences of the shards before.
    """

    def __init__(self, directory: RunDirectory, seq_len: int, cut: Cut):
        self._directory, self._seq_len, self._cut = directory, seq_len, cut
        self._accounts: list[Account] = []  # of the shards that are there
        while directory.is_done(name := shard_name(len(self._accounts))):
            self._accounts.append(Account(**directory.manifest["stages"][name]["account"]))
        self._latest: tuple[int, Sequences] | None = None  # the shard that was read last, and its number

    @property
    def are_whole(self) -> bool:
        """Whether all shards are on disk."""
        return self._directory.is_done(STAGE)

    @property
    def n_sequences(self) -> int:
        """In all shards that are there."""
        return self._accounts[-1].counts["sequences"] if self._accounts else 0

    @property
    def n_tokens(self) -> int:
        """Real tokens in all shards that are there, BOS among them."""
        return _n_tokens(self._accounts[-1]) if self._accounts else 0

    def texts(self) -> list[CorpusRead]:
        """What was read of each corpus for the shards that are there; nothing if that is not known of all of them."""
        readings = [self._reading(shard) for shard in range(len(self._accounts))]
        return merged(readings) if all(readings) else []

    def refuse_other_texts(self, corpora: Iterable[Corpus]) -> None:
        """Compare the corpora with what was read of them for the shards that are there.

        Raises:
            UserError: a part is missing, new or changed; each is named.
        """
        if not self._accounts:
            return
        later = () if self.are_whole else ("pipe",)  # while it is read
        found = refuse_changes(corpora, self.texts(), but=later)
        stamps = [{part.name: part.stamp for part in read.parts} for read in found]
        for shard in range(len(self._accounts)):
            reading = self._reading(shard)
            stamped = [
                read._replace(parts=[part._replace(stamp=of[part.name]) for part in read.parts])
                for read, of in zip(reading, stamps, strict=False)
            ]
            if stamped != reading:
                self._directory.sources.keep(shard_name(shard), stamped)

    def expected_tokens(self, max_sequences: int | None) -> int | None:
        """How many real tokens there will be: exact when all shards are there, before that an estimate, or None."""
        if self.are_whole:
            return self.n_tokens
        if not self.n_sequences or max_sequences is None:
            return None
        return round(self.n_tokens / self.n_sequences * max_sequences)

    def tokens_before(self, start: int) -> int:
        """Real tokens, BOS among them, in the sequences before number `start`, which are there."""
        shard = bisect_right(self._ends(), start)
        n = _n_tokens(self._accounts[shard - 1]) if shard else 0
        n_before = start - self._first(shard)
        return n + int(self._read(shard).length[:n_before].sum()) if n_before else n

    def documents(self) -> Iterator[list[str]]:
        """Names of the documents that gave a sequence, in the order of their numbers, a shard's at a time."""
        for shard in range(len(self._accounts)):
            yield unpack_text(self._directory.load(shard_name(shard))["documents"])

    def take(self, numbers: np.ndarray) -> Sequences:
        """Some sequences.

        Args:
            numbers: [n] int, in any order; each shard that holds one is read once, whatever the order.

        Returns:
            The sequences in the order of the numbers.
        """
        tokens = np.empty((len(numbers), self._seq_len), np.int32)
        found = Sequences(tokens, *(np.empty(len(numbers), np.int32) for _ in Sequences._fields[1:]))
        shards = np.searchsorted(self._ends(), numbers, side="right")
        for shard in np.unique(shards).tolist():
            rows = np.flatnonzero(shards == shard)
            for into, stored in zip(found, self._read(shard), strict=True):
                into[rows] = stored[numbers[rows] - self._first(shard)]
        return found

    def stream(self, start: int = 0) -> Generator[Sequences, None, None]:
        """All sequences from number `start` on, in pieces.

        Missing shards are cut and stored first, one by one; the stage is done with the last of them.

        Args:
            start: may lie within a shard.

        Raises:
            UserError: a shard is damaged, the disk is full, or what `nejax.pipeline.corpus.windows.cut_documents`
            raises.
        """
        pieces = self._stored(bisect_right(self._ends(), start)) if self.are_whole else self._stored_and_cut()
        for first, sequences in pieces:
            skip = max(start - first, 0)
            if skip < len(sequences.tokens):
                yield Sequences(*(field[skip:] for field in sequences)) if skip else sequences

    def _stored(self, shard: int) -> Iterator[tuple[int, Sequences]]:
        """The shards that are there from one on, each with the number of its first sequence."""
        for number in range(shard, len(self._accounts)):
            yield self._first(number), self._load(number)

    def _stored_and_cut(self) -> Iterator[tuple[int, Sequences]]:
        """All shards; missing ones are cut. The digests are rebuilt, so that a kill cannot have left them wrong."""
        fingerprint = hashlib.blake2b(digest_size=16)
        with Digests(self._directory.path / "digests.partial") as seen:
            for first, sequences in self._stored(0):
                fingerprint.update(sequences.tokens.tobytes())
                for row, length in zip(sequences.tokens, sequences.length, strict=True):
                    seen.add(row[1:length])
                yield first, sequences
            if not self._accounts or self._accounts[-1].place:
                for sequences in self._cut_and_store(seen):
                    fingerprint.update(sequences.tokens.tobytes())
                    yield self._first(len(self._accounts) - 1), sequences
        stages = self._directory.manifest["stages"]
        of_shards = [stages[shard_name(shard)] for shard in range(len(self._accounts))]
        facts = {
            **self._accounts[-1].counts,
            "skipped": self._accounts[-1].skipped,
            "fingerprint": fingerprint.hexdigest(),
            "shards": len(of_shards),
            "seconds": round(sum(facts["seconds"] for facts in of_shards), 2),
        }
        self._directory.mark(STAGE, facts)
        for line in left_out(facts).warnings:
            print(line, file=sys.stderr)

    def _cut_and_store(self, seen: Digests) -> Iterator[Sequences]:
        """Cut the shards that are not there yet, and store each."""
        started = time.monotonic()
        with contextlib.closing(self._cut(self._accounts[-1] if self._accounts else None, seen)) as shards:
            while True:
                with stop_on_full_disk(self._directory.path):
                    shard = next(shards, None)
                if shard is None:
                    return
                store = shard.sequences._asdict() | {"documents": pack_text(shard.documents)}
                facts = {"account": shard.account._asdict(), "seconds": round(time.monotonic() - started, 2)}
                name = shard_name(len(self._accounts))
                self._directory.sources.keep(name, shard.sources)
                self._directory.save(name, store, facts)
                self._accounts.append(shard.account)
                yield shard.sequences
                started = time.monotonic()

    def _reading(self, shard: int) -> list[CorpusRead]:
        """What was read of each corpus for a shard; nothing if that is not known."""
        return read_back(self._directory.sources.kept(shard_name(shard)))

    def _ends(self) -> list[int]:
        """The number after the last sequence of each shard."""
        return [account.counts["sequences"] for account in self._accounts]

    def _first(self, shard: int) -> int:
        return self._accounts[shard - 1].counts["sequences"] if shard else 0

    def _load(self, shard: int) -> Sequences:
        store = self._directory.load(shard_name(shard))
        return Sequences(*(store[field] for field in Sequences._fields))

    def _read(self, shard: int) -> Sequences:
        """A shard; cached until another is read, since requests are mostly for neighbouring sequences."""
        if self._latest is None or self._latest[0] != shard:
            self._latest = None  # so that there are not two
            self._latest = shard, self._load(shard)
        return self._latest[1]


def shard_name(shard: int) -> str:
    """The name of a shard's store."""
    return f"{STAGE}-{shard:04d}"


def rows_by_piece(
    pieces: Iterable[Sequences], numbers: np.ndarray
) -> Iterator[tuple[Sequences, np.ndarray, np.ndarray]]:
    """Where in which piece some sequences are.

    Args:
        pieces: of all sequences, in order.
        numbers: [...] numbers of sequences; negative ones are in no piece.

    Yields:
        Each piece; which entries of the flattened numbers lie in it, [n]; and their rows in it, [n].
    """
    flat = numbers.ravel()
    order = np.argsort(flat, kind="stable")
    ascending, first = flat[order], 0
    for piece in pieces:
        last = first + len(piece.tokens)
        entries = order[slice(*np.searchsorted(ascending, [first, last]))]
        yield piece, entries, flat[entries] - first
        first = last


@contextlib.contextmanager
def ahead(pieces: Generator[Piece, None, None], n: int = 2) -> Iterator[Iterator[Piece]]:
    """Prefetch the pieces in a thread, up to `n` of them.

    While the consumer computes, the next ones are read or tokenised. Exceptions are raised in the consumer. When the
    context ends, for whatever reason, the thread ends after its current piece.

    Args:
        pieces: used by the thread alone from now on.
        n: pieces that are ready or in the making; the one taken last is not counted.
    """
    ready: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
    free, stopped = threading.Semaphore(n), threading.Event()

    def make() -> None:
        error: BaseException | None = None
        try:
            with contextlib.closing(pieces):
                while free.acquire() and not stopped.is_set():
                    ready.put((next(pieces), None))
        except BaseException as raised:
            error = raised
        ready.put((None, error or StopIteration()))

    def take() -> Iterator[Any]:
        while True:
            piece, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            free.release()
            yield piece
            del piece

    thread = threading.Thread(target=make, name="ahead", daemon=True)  # Ctrl-C twice ends even what hangs
    thread.start()
    try:
        yield take()
    finally:
        stopped.set()
        free.release()
        thread.join()


def _n_tokens(account: Account) -> int:
    return account.counts["tokens"] + account.counts["sequences"]
