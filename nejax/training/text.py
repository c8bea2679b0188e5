"""Text for training a language model: split, tokenised once, served in an order that depends on the step alone."""

import hashlib
import math
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from nejax.errors import SettingError
from nejax.models.formats.tokenizer_files import load_tokenizer
from nejax.models.formats.tokens import train_tokenizer
from nejax.pipeline.corpus.digests import Digests
from nejax.pipeline.corpus.documents import Corpora, open_again, open_corpus, read_back, refuse_changes
from nejax.pipeline.corpus.left_out import left_out, told
from nejax.pipeline.corpus.sequences import SequenceShards
from nejax.pipeline.corpus.windows import Account, Sequences, Shard, cut_documents, make_sequences
from nejax.pipeline.run.directory import RunDirectory
from nejax.pipeline.run.sources import Sources

_TEXTS = "text"
"""What is kept of the corpora that were read."""

_PIECE = 256
"""Sequences that are cut at a time where only the first of a corpus may be wanted."""


class TrainingText(NamedTuple):
    """A tokenizer, and the two sides of the text it was made for."""

    tokenizer: PreTrainedTokenizerFast
    train: Sequences
    held_out: Sequences


def split_documents(sources: Sequence[str], fraction: float, *, held_out: bool) -> Corpora:
    """The documents of several corpora on one side of a split.

    A document's side depends on its own text alone: it is held out if its 64-bit digest, as a number in [0, 1), is
    below the fraction. So the split does not depend on the order of the documents or on other documents, and copies of
    a document are on the same side.

    Args:
        sources: names for `open_corpus`.
        fraction: of the documents to hold out.
        held_out: which side.

    Raises:
        UserError: there is no such corpus.
    """

    def wanted(text: str) -> bool:
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        return (int.from_bytes(digest) < fraction * 2**64) == held_out

    return Corpora(map(open_corpus, sources), wanted)


def refuse_pipes(sources: Sequence[str]) -> None:
    """Refuse standard input where texts are read more than once."""
    if "-" in sources:
        raise SettingError("corpus", "-", "a file: standard input can be read only once, and here more is needed")


def prepare_text(
    folder: Path,
    sources: Sequence[str],
    *,
    vocab_size: int,
    seq_len: int,
    held_out: float,
    max_sequences: int | None,
    anew: bool = False,
    say: Callable[[str], object] = print,
) -> TrainingText:
    """Train a tokenizer on the training side and cut both sides into sequences, or load the results of an earlier call.

    Args:
        folder: keeps the results; a later call takes them from there, whatever its other arguments.
        sources: names for `open_corpus`.
        vocab_size: of the tokenizer.
        seq_len: tokens a sequence, BOS included.
        held_out: fraction of the documents to hold out.
        max_sequences: at most so many of each side.
        anew: ignore earlier results, since their sources may differ.
        say: called with a line when work begins.

    Raises:
        UserError: a source cannot be read, or is not what it was, or one side has no text.
    """
    refuse_pipes(sources)
    files, kept = {False: folder / "train.npz", True: folder / "held_out.npz"}, Sources(folder)
    if anew or not files[True].exists():
        say(f"training a tokenizer of {vocab_size} tokens")
        documents = split_documents(sources, held_out, held_out=False)
        texts = (document.text for document in documents)
        tokenizer = train_tokenizer(texts, vocab_size=vocab_size, n_positions=seq_len)
        tokenizer.save_pretrained(folder / "tokenizer")
        kept.keep(_TEXTS, documents.news())
        say("tokenising")
        n_read = []
        for side, file in files.items():
            documents = split_documents(sources, held_out, held_out=side)
            cut = make_sequences(documents, tokenizer, seq_len=seq_len, max_sequences=max_sequences)
            partial = file.with_suffix(".partial.npz")
            np.savez(partial, **cut.sequences._asdict())
            partial.rename(file)
            n_read.append(cut.counts["documents_read"])
        for line in told(left_out({"skipped": cut.skipped, "documents_read": sum(n_read)})):
            say(line)
    else:
        kept.keep(_TEXTS, refuse_changes(open_again(sources), read_back(kept.kept(_TEXTS))))
    return TrainingText(load_tokenizer(folder / "tokenizer"), *(Sequences(**np.load(file)) for file in files.values()))


def shards_to_train_on(
    directory: RunDirectory,
    sources: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    *,
    held_out: float,
    **settings: Any,
) -> SequenceShards:
    """The sequences of the training side, cut as they are first read, and kept in a run, shard by shard.

    Args:
        directory: of the run.
        sources: names for `open_corpus`.
        tokenizer: of the model that reads them.
        held_out: fraction of the documents that are left out, see `split_documents`.
        settings: `seq_len`, `max_sequences`: of `nejax.pipeline.corpus.windows.cut_documents`.
    """

    def cut(after: Account | None, seen: Digests) -> Generator[Shard, None, None]:
        documents = split_documents(sources, held_out, held_out=False)
        documents.expect(shards.texts())
        return cut_documents(documents, tokenizer, seen=seen, after=after, **settings)

    refuse_pipes(sources)
    shards = SequenceShards(directory, settings["seq_len"], cut)
    shards.refuse_other_texts(open_again(sources))
    return shards


def sequences_to_evaluate_on(
    sources: Sequence[str], tokenizer: PreTrainedTokenizerBase, *, held_out: float, **settings: Any
) -> Iterator[Sequences]:
    """The sequences of the side that is held out, or of all documents if none is, in pieces, cut as they are read.

    The arguments are those of `shards_to_train_on`.
    """
    documents, counts = split_documents(sources, held_out, held_out=held_out > 0), {}
    try:
        with Digests() as seen:
            for shard in cut_documents(documents, tokenizer, seen=seen, shard_size=_PIECE, **settings):
                counts = shard.account.counts
                yield shard.sequences
    finally:
        for line in told(left_out({"skipped": documents.skipped} | counts)):
            print(line, file=sys.stderr)


def batch_at(sequences: Sequences, step: int, *, batch_size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The batch of one step: a function of seed and step alone, so that a resumed training sees the same.

    Every epoch goes through all sequences in an order of its own; a batch may straddle two epochs.

    Returns:
        Tokens [batch_size, seq_len] and lengths [batch_size].
    """
    n = len(sequences.tokens)
    places = np.arange(step * batch_size, (step + 1) * batch_size)
    first, last = places[0] // n, places[-1] // n
    orders = [np.random.default_rng((seed, epoch)).permutation(n) for epoch in range(first, last + 1)]
    chosen = np.concatenate(orders)[places - first * n]
    return sequences.tokens[chosen], sequences.length[chosen]


def bits_per_byte(
    losses_of: Callable[[tuple[np.ndarray, np.ndarray]], Any],
    sequences: Sequences,
    n_bytes_of: np.ndarray,
    *,
    batch_size: int,
) -> float:
    """Bits a model needs for each UTF-8 byte: `sum of losses / ln 2 / number of bytes`, over all tokens but BOS.

    The first token of a sequence is predicted from BOS alone, so shorter sequences make the figure worse.

    Args:
        losses_of: `(tokens, length) -> losses` in nats, 0 at padding, see `next_token_losses`; always called with
            `batch_size` rows.
        sequences: the text.
        n_bytes_of: [vocab_size], the bytes each token stands for.
        batch_size: rows a call.
    """
    nats, n_bytes = 0.0, 0
    for start in range(0, len(sequences.tokens), batch_size):
        tokens, length = (part[start : start + batch_size] for part in (sequences.tokens, sequences.length))
        missing = batch_size - len(tokens)
        batch = np.pad(tokens, ((0, missing), (0, 0))), np.pad(length, (0, missing))
        nats += float(np.asarray(losses_of(batch), np.float64).sum())
        real = np.arange(1, tokens.shape[1]) < length[:, None]
        n_bytes += int(n_bytes_of[tokens[:, 1:]][real].sum())
    return nats / math.log(2) / n_bytes
