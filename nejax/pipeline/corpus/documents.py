"""Corpora as documents: from files, standard input, the Hub or the Python installation."""

import dataclasses
import itertools
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nejax.errors import UserError
from nejax.models.formats.files import stamp_of
from nejax.pipeline.corpus.folder import files_below
from nejax.pipeline.corpus.hub_datasets import dataset_revision, open_hub_dataset
from nejax.pipeline.corpus.python_docs import PYTHON, python_docs_stamp, read_python_docs
from nejax.pipeline.corpus.text_files import (
    SUFFIXES_IN_WORDS,
    can_be_read,
    has_known_suffix,
    read_file,
    read_standard_input,
)
from nejax.pipeline.run.sources import Kind, PartRead, Tally, change_of, encoded, not_compared, refusal, spelled

Read = Callable[[Counter[str]], Iterator[tuple[str, str]]]
"""Yields `(name, text)`, and counts by reason what it cannot read."""


class Document(NamedTuple):
    """One text of a corpus."""

    name: str  # where the text is from: a path, a path and a line, or the name that the corpus gives it
    text: str  # not blank, can be encoded in UTF-8, holds no NUL


class Part(NamedTuple):
    """A file of a corpus, or the whole corpus if it has no files."""

    name: str
    read: Read
    stamp: Callable[[], str | None] = lambda: None
    """While it is the same, so is the content; None: it cannot tell."""
    kind: Kind = "file"


class CorpusRead(NamedTuple):
    """What was read of a corpus. It can be stored as JSON."""

    name: str
    parts: list[PartRead]
    ended: bool  # whether it has no other parts


def merged(readings: Iterable[Sequence[CorpusRead]]) -> list[CorpusRead]:
    """The total of several readings, each of what was read of each corpus between one shard and the next.

    Args:
        readings: in their order. A part that one of them did not finish is in the next one again.
    """
    of_each: list[tuple[str, dict[str, PartRead], bool]] = []
    for reading in readings:
        of_each += [(name, {}, False) for name, _, _ in reading[len(of_each) :]]
        for number, read in enumerate(reading):
            name, parts, _ = of_each[number]
            parts.update((part.name, part) for part in read.parts)
            of_each[number] = name, parts, read.ended
    return [CorpusRead(name, list(parts.values()), ended) for name, parts, ended in of_each]


@dataclasses.dataclass
class Corpus:
    """A stream of documents; every iteration reads the source from its start (standard input only once).

    What cannot be used (not UTF-8, binary, blank, a broken line, a file of unknown kind) is left out and
    counted. When the source ends without one usable document, iterating raises a `UserError` that says what
    was left out.
    """

    name: str  # what the user asked for
    read: Read | None = None  # of a corpus of one part
    parts: Callable[[Counter[str]], Iterable[Part]] | None = None  # of a corpus of files; counts what is no part
    skipped: Counter[str] = dataclasses.field(default_factory=Counter)  # reason -> count, of the latest iteration
    before: CorpusRead | None = None  # what an earlier reading found; another text is refused where it is met

    def __post_init__(self) -> None:
        self._finished: list[PartRead] = []
        self._open: Tally | None = None
        self._ended, self._n_told = False, 0

    def __iter__(self) -> Iterator[Document]:
        self.skipped.clear()
        self._finished, self._open, self._ended, self._n_told = [], None, False, 0
        before = self.before.parts if self.before else []
        n_usable = 0
        for number, part in enumerate(self.all_parts()):
            expected = before[number] if number < len(before) else None
            if expected and expected.name != part.name:
                raise refusal(self.name, [f"{spelled(expected.name)} is gone, or {spelled(part.name)} is new"])
            tally = self._open = Tally(part.name, part.stamp())
            for document in usable(part, self.skipped):
                n_usable += 1
                tally.add(*document)
                if expected and not expected.whole and tally.documents == expected.documents:
                    self._refuse_change(tally.so_far(), expected)
                yield document
            self._finished.append(tally.so_far(whole=True))
            if expected and (expected.whole or tally.documents < expected.documents):
                self._refuse_change(self._finished[-1], expected)
        self._open, self._ended = None, True
        if lost := before[len(self._finished) :]:
            raise refusal(self.name, [f"{spelled(part.name)} is gone" for part in lost])
        if not n_usable:
            skipped = ", ".join(f"{count} {reason}" for reason, count in sorted(self.skipped.items()))
            raise UserError(
                f"corpus {self.name!r} holds no usable text (left out: {skipped or 'nothing, it is empty'}); "
                f"expected UTF-8 text in {SUFFIXES_IN_WORDS}"
            )

    def all_parts(self) -> Iterable[Part]:
        """Its files, or itself."""
        if self.parts:
            return self.parts(self.skipped)
        assert self.read
        return [Part(self.name, self.read)]

    def news(self) -> CorpusRead:
        """What the latest iteration has read since the last call, including the part that it is in, or ended with."""
        parts = [*self._finished[self._n_told :], *([self._open.so_far()] if self._open else [])]
        self._n_told = len(self._finished)
        return CorpusRead(self.name, parts or self._finished[-1:], self._ended)

    def changes_since(self, before: CorpusRead, *, but: Collection[Kind] = ()) -> tuple[list[str], CorpusRead]:
        """The differences from an earlier reading. Only parts whose stamps have changed or are unknown are read.

        Args:
            before: the earlier reading, which may have stopped before the corpus's end.
            but: kinds of parts that are not looked at.

        Returns:
            A line for each part that is missing, new or changed; and the reading with current stamps.
        """
        now = list(self.all_parts())
        if not before.ended:  # what comes later was not read
            places = {part.name: place for place, part in enumerate(now, start=1)}
            now = now[: places.get(before.parts[-1].name, len(before.parts)) if before.parts else 0]
        there = {part.name: part for part in now}
        changes, stamped = [], []
        for read in before.parts:
            part = there.pop(read.name, None)
            if part is None:
                changes.append(f"{spelled(read.name)} is gone")
            elif part.kind not in but:
                change, read = _compared(part, read)
                changes += filter(None, [change])
            stamped.append(read)
        changes += [f"{spelled(name)} is new" for name in there]
        return changes, before._replace(parts=stamped)

    def _refuse_change(self, now: PartRead, before: PartRead) -> None:
        if change := change_of(now, before):
            raise refusal(self.name, [change])


class Corpora:
    """The documents of several corpora, one corpus after the other.

    Args:
        corpora: each must have usable text.
        wanted: whether a document of this text is one of them.
    """

    def __init__(self, corpora: Iterable[Corpus], wanted: Callable[[str], bool] | None = None):
        self.corpora: Sequence[Corpus] = tuple(corpora)
        self._wanted = wanted

    def __iter__(self) -> Iterator[Document]:
        for corpus in self.corpora:
            yield from (document for document in corpus if self._wanted is None or self._wanted(document.text))

    @property
    def skipped(self) -> Counter[str]:
        """Counts of what all of them left out."""
        return sum((corpus.skipped for corpus in self.corpora), Counter())

    def news(self) -> list[CorpusRead]:
        """See `Corpus.news`."""
        return [corpus.news() for corpus in self.corpora]

    def expect(self, before: Sequence[CorpusRead]) -> None:
        """Refuse any text that differs from an earlier reading, as soon as it is read."""
        for corpus, read in zip(self.corpora, before, strict=False):
            corpus.before = read


def refuse_no_corpus(sources: Iterable[str]) -> None:
    """Refuse, before any work, local texts that are not there; datasets on the Hub are not looked for.

    Raises:
        UserError: see `open_corpus`.
    """
    for source in sources:
        open_corpus(source, eager=False)


def open_corpus(source: str, *, text_field: str = "text", split: str = "train", eager: bool = True) -> Corpus:
    """Find a corpus by its name; its documents are read while it is iterated, never held all at once.

    Args:
        source: the first of these that fits:
            `"python-docs"`: the English documentation found in the Python installation (needs no network);
            `"-"`: standard input, JSON lines if its first character but spaces is `{`, else one document;
            a local file or folder (read recursively, linked folders too, in sorted order): a .txt, .md or .rst file is
            one document, a .jsonl or .parquet file one document a row; each may be compressed (.gz, .xz, .zst);
            a dataset on the Hub, `NAMESPACE/NAME` or `NAMESPACE/NAME:CONFIG`, which is streamed.
        text_field: the field or column that holds the text, where there are fields.
        split: the split of a Hub dataset.
        eager: whether a dataset on the Hub is looked for now, or when it is first read.

    Raises:
        UserError: no such file or folder, a file of unknown kind, no such dataset, configuration, split or
            column on the Hub, or the Hub is out of reach.
    """
    path = Path(os.path.expanduser(source))

    def one(read: Read, stamp: Callable[[], str | None], kind: Kind, name: str = source) -> Corpus:
        return Corpus(source, parts=lambda skipped: [Part(name, read, stamp, kind)])

    def of_file(file: Path, name: str) -> Part:
        return Part(name, lambda skipped: read_file(file, name, text_field, skipped), lambda: stamp_of(file))

    if source == "python-docs":
        return one(read_python_docs, python_docs_stamp, "file", PYTHON)
    if source == "-":
        return one(lambda skipped: read_standard_input(text_field, skipped), lambda: None, "pipe", "standard input")
    if source and os.path.isdir(path):
        return Corpus(source, parts=lambda skipped: (of_file(*file) for file in files_below(path, skipped)))
    if source and os.path.exists(path):
        if not has_known_suffix(source):
            raise UserError(f"corpus {source!r} is of unknown kind; expected {SUFFIXES_IN_WORDS}, or a folder")
        return Corpus(source, parts=lambda skipped: [of_file(path, path.name)])
    if source and os.path.islink(path):
        raise UserError(f"corpus {source!r} is a link to {os.readlink(path)!r}, which does not exist")
    if not source or source.startswith((".", "/", "~")) or has_known_suffix(source):
        raise UserError(f"corpus {source!r}: no such file or folder")
    if eager:
        revision = dataset_revision(source, needed=False)
        return one(open_hub_dataset(source, text_field, split, revision), lambda: revision, "remote")
    return one(
        lambda skipped: open_hub_dataset(source, text_field, split)(skipped),
        lambda: dataset_revision(source),
        "remote",
    )


def open_again(sources: Iterable[str], **options: str) -> Iterator[Corpus]:
    """Corpora to compare with an earlier reading: what is on the Hub is not looked for unless it must be read."""
    return (open_corpus(source, eager=False, **options) for source in sources)


def refuse_changes(
    corpora: Iterable[Corpus], before: Sequence[CorpusRead], *, but: Collection[Kind] = ()
) -> list[CorpusRead]:
    """Compare corpora with an earlier reading; parts with unchanged stamps are not read again.

    Args:
        corpora: in the order in which they were read.
        before: what was read of each; nothing if that is not known.
        but: kinds of parts that are not looked at.

    Returns:
        The readings with the stamps of now.

    Raises:
        UserError: a part is missing, new or changed; each is named.
    """
    if not before:
        not_compared("it is not known which texts that was")
    found = []
    for corpus, read in zip(corpora, before, strict=bool(before)):
        changes, now = corpus.changes_since(read, but=but)
        if changes:
            raise refusal(corpus.name, changes)
        found.append(now)
    return found


def read_back(kept: Any) -> list[CorpusRead]:
    """Readings from their JSON; none from None."""
    return [CorpusRead(name, [PartRead(*part) for part in parts], ended) for name, parts, ended in kept or []]


def usable(part: Part, skipped: Counter[str]) -> Iterator[Document]:
    """The documents of a part that can be used; the others are counted."""
    for name, text in part.read(skipped):
        if reason := _why_unusable(text):
            skipped[reason] += 1
        else:
            yield Document(encoded(name), text)


def _compared(part: Part, before: PartRead) -> tuple[str, PartRead]:
    """How a part differs from an earlier reading, if it does; and the reading with its current stamp."""
    if part.kind == "pipe" and not can_be_read():
        not_compared("standard input is a terminal, or was read already")
        return "", before
    try:
        stamp = part.stamp()
        same = stamp is not None and stamp == before.stamp
        return "" if same else change_of(_read_again(part, before), before), before._replace(stamp=stamp)
    except UserError as error:
        if part.kind != "remote":
            raise
        not_compared(error)
        return "", before


def _read_again(part: Part, before: PartRead) -> PartRead:
    """As far as it was read then."""
    documents = usable(part, Counter())
    tally = Tally(part.name, None)
    for document in documents if before.whole else itertools.islice(documents, before.documents):
        tally.add(*document)
    return tally.so_far(whole=before.whole)


def _why_unusable(text: str) -> str:
    """Why a text cannot be a document; empty if it can."""
    if "\0" in text:
        return "undecodable"
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate, which JSON can spell
        return "undecodable"
    return "" if text.strip() else "empty"
