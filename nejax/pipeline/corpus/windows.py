"""Documents to sequences: fixed windows of tokens, each beginning with BOS, without exact duplicates."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeGuard

import numpy as np
from transformers import PreTrainedTokenizerBase

from nejax.errors import UserError
from nejax.models.formats.tokens import token_bytes
from nejax.pipeline.corpus.digests import Digests
from nejax.pipeline.corpus.documents import Corpora, Corpus, CorpusRead, Document
from nejax.pipeline.corpus.tokenize import CHARACTERS_AT_ONCE, tokenize

SHARD = 8192
"""Sequences that are cut, stored and read at a time."""


class Sequences(NamedTuple):
    """Windows of tokens, and where each was cut."""

    tokens: np.ndarray  # [n_sequences, seq_len] int32: BOS, the window's tokens, then padding, which is BOS too
    length: np.ndarray  # [n_sequences] int32: how many tokens are real, BOS among them; the rest is padding
    document: np.ndarray  # [n_sequences] int32: index into the names of the documents used
    offset: np.ndarray  # [n_sequences] int32: index, among its document's tokens, of the first one after BOS


class Account(NamedTuple):
    """What was read of a corpus up to the end of a shard, and where to continue. It can be stored as JSON."""

    counts: dict[str, int]  # documents_read, sequences, tokens (real, without BOS), and what was dropped:
    # duplicate_sequences and short_windows
    skipped: dict[str, int]  # why a `Corpus` left something out -> how often; up to a batch ahead of what was used
    place: list[int] | None  # documents before the next window, its offset, how many documents gave a sequence so far,
    # and how many documents stand before the latest that did; None: this was the last shard


class Shard(NamedTuple):
    """Some of a corpus's sequences."""

    sequences: Sequences
    documents: list[str]  # names of the documents whose first sequence is here, in the order they were read
    account: Account
    sources: Sequence[CorpusRead] = ()  # what was read of each corpus since the shard before


class TokenizedCorpus(NamedTuple):
    """The sequences made of a corpus, and an account of what was read."""

    sequences: Sequences
    documents: list[str]  # names of the documents that gave at least one sequence, in the order they were read
    counts: dict[str, int]  # see `Account`
    skipped: dict[str, int]  # see `Account`


def cut_documents(
    documents: Iterable[Document],
    tokenizer: PreTrainedTokenizerBase,
    *,
    seq_len: int,
    seen: Digests,
    max_sequences: int | None = None,
    min_tokens: int = 2,
    batch_size: int = 64,
    shard_size: int = SHARD,
    after: Account | None = None,
    progress: Callable[[int], object] | None = None,
) -> Generator[Shard, None, None]:
    """Cut documents into sequences of `seq_len` tokens, a shard at a time.

    With `s = seq_len - 1`, a document's tokens `t` become the windows `t[0:s]`, `t[s:2s]`, ..., each put
    behind a BOS token; a short last window is padded. Where a window would end within a character, the tokens of that
    character's beginning (at most 3) go to the next one. Nothing is lost but windows of fewer than `min_tokens`
    tokens and windows that equal an earlier one, token for token. Text that spells a special token
    ("<|endoftext|>") is read as the plain text it is.

    Args:
        documents: `Corpora`, a `Corpus`, or any documents; read lazily, at most a batch further than needed.
        tokenizer: of transformers, with a BOS token, or else an EOS token that takes its place.
        seq_len: tokens in a sequence, BOS included; above `min_tokens`.
        seen: the windows of all earlier shards; those of the new ones are added.
        max_sequences: stop when there are so many, those of earlier shards among them. None: read all documents.
        min_tokens: fewest tokens after BOS that make a sequence.
        batch_size: documents tokenized at once. Does not change the sequences.
        shard_size: sequences a shard; the last has fewer. Does not change the sequences.
        after: the account of the shard after which to continue; not of the last. The same documents, from the first on,
            and the same settings as then are asked for; documents before the place are read, not tokenized.
        progress: called with 1 after every sequence (the `update` of a tqdm bar, say).

    Yields:
        Shards, each as soon as it is known whether it is the last. All but the last have `shard_size` sequences.

    Raises:
        UserError: no BOS token, a length or count out of range, documents too short to make one sequence, or (with
            `after`) fewer of them than there were.
    """
    if min_tokens < 1 or seq_len <= min_tokens:
        raise UserError(
            f"seq_len {seq_len} and min_tokens {min_tokens} do not fit; expected min_tokens of at least 1 "
            "and seq_len above it, since BOS takes one place"
        )
    if batch_size < 1 or (max_sequences is not None and max_sequences < 1):
        raise UserError(f"batch_size {batch_size} and max_sequences {max_sequences}: expected at least 1 of each")
    bos = _bos_token(tokenizer)
    counts = dict(documents_read=0, sequences=0, tokens=0, duplicate_sequences=0, short_windows=0)
    start, n_used, latest = (0, 0), 0, -1  # how many documents gave a sequence, and the number of the latest that did
    if after and after.place:
        counts, (*start, n_used, latest) = dict(after.counts), after.place
    windows: list[np.ndarray] = []
    places: list[tuple[int, int]] = []  # (document, offset) of each window
    names: list[str] = []

    corpora = documents if isinstance(documents, Corpora) else Corpora(filter(_is_corpus, [documents]))

    def shard(place: list[int] | None) -> Shard:
        account = Account(dict(counts), dict(corpora.skipped), place)
        return Shard(_pad(windows, places, seq_len, bos), names, account, corpora.news())

    rule = _Rule(seq_len - 1, min_tokens, _go_on(tokenizer))
    for number, name, offset, window in _windows(documents, tokenizer, rule, batch_size, *start):
        counts["documents_read"] = number + 1
        if len(window) < min_tokens:
            counts["short_windows"] += 1
            continue
        if not seen.add(window):
            counts["duplicate_sequences"] += 1
            continue
        if len(windows) == shard_size:
            yield shard([number, offset, n_used, latest])
            windows, places, names = [], [], []
        if number != latest:
            n_used, latest = n_used + 1, number
            names.append(name)
        windows.append(window)
        places.append((n_used - 1, offset))
        counts["sequences"] += 1
        counts["tokens"] += len(window)
        if progress is not None:
            progress(1)
        if counts["sequences"] == max_sequences:
            break
    if not windows and after:
        raise UserError(
            f"the corpus ends before its sequence {counts['sequences']}, and had more when this work began; "
            "use the same texts, or begin anew"
        )
    if not windows:
        raise UserError(
            f"the corpus makes no sequence: its longest document has fewer than {min_tokens} tokens "
            f"(documents read: {counts['documents_read']}); expected longer texts"
        )
    yield shard(None)


def make_sequences(
    documents: Iterable[Document], tokenizer: PreTrainedTokenizerBase, **settings: Any
) -> TokenizedCorpus:
    """All sequences at once, for texts that fit into memory. The arguments are those of `cut_documents`."""
    with Digests() as seen:
        shards = list(cut_documents(documents, tokenizer, seen=seen, **settings))
    sequences = Sequences(*map(np.concatenate, zip(*(shard.sequences for shard in shards), strict=True)))
    names = [name for shard in shards for name in shard.documents]
    return TokenizedCorpus(sequences, names, *shards[-1].account[:2])


def _is_corpus(documents: Iterable[Document]) -> TypeGuard[Corpus]:
    return isinstance(documents, Corpus)


def _bos_token(tokenizer: PreTrainedTokenizerBase) -> int:
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if isinstance(token, int):
            return token
    raise UserError("the tokenizer has neither a BOS nor an EOS token, which every sequence begins with; set bos_token")


class _Rule(NamedTuple):
    """Where windows end."""

    size: int
    """Most tokens of a window."""
    min_tokens: int
    """A window is not made shorter than that."""
    goes_on: np.ndarray
    """[n_tokens] whether a token begins within a character."""

    def cut(self, tokens: np.ndarray, first: int) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the offset and the tokens of each window from `first` on; without tokens, one empty window."""
        start = first
        while start < max(len(tokens), 1):
            stop = min(start + self.size, len(tokens))
            if stop < len(tokens):
                # A character has at most 4 bytes, so one of the last 4 places is at its beginning.
                ends = range(stop, max(stop - 4, start + self.min_tokens - 1), -1)
                stop = next((end for end in ends if not self.goes_on[tokens[end]]), stop)
            yield start, tokens[start:stop]
            start = max(stop, start + 1)


def _go_on(tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """[n_tokens] whether a token begins within a character: with a continuation byte of UTF-8."""
    return np.array([0x80 <= own[0] < 0xC0 if own else False for own in token_bytes(tokenizer)])


def _windows(
    documents: Iterable[Document],
    tokenizer: PreTrainedTokenizerBase,
    rule: _Rule,
    batch_size: int,
    first: int = 0,
    offset: int = 0,
) -> Iterator[tuple[int, str, int, np.ndarray]]:
    """Yield (document's number, its name, offset, tokens); a document without tokens has one empty window.

    Begins with the window at `offset` of document `first`, for which no earlier document is tokenized.
    """
    number = 0
    for batch in _batches(documents, batch_size):
        wanted = batch[max(first - number, 0) :]
        number += len(batch) - len(wanted)
        texts = [text for _, text in wanted]
        for document, tokens in zip(wanted, tokenize(tokenizer, texts) if texts else [], strict=True):
            for start, window in rule.cut(tokens, offset if number == first else 0):
                yield number, document.name, start, window
            number += 1


def _batches(documents: Iterable[Document], batch_size: int) -> Iterator[list[Document]]:
    """Up to `batch_size` documents at once, fewer if they are long."""
    batch: list[Document] = []
    for document in documents:
        batch.append(document)
        if len(batch) == batch_size or sum(len(text) for _, text in batch) >= CHARACTERS_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def _pad(windows: list[np.ndarray], places: list[tuple[int, int]], seq_len: int, bos: int) -> Sequences:
    tokens = np.full((len(windows), seq_len), bos, np.int32)
    for row, window in zip(tokens, windows, strict=True):
        row[1 : 1 + len(window)] = window
    length = np.array([1 + len(window) for window in windows], np.int32)
    document, offset = np.ascontiguousarray(np.array(places, np.int32).T)
    return Sequences(tokens, length, document, offset)
