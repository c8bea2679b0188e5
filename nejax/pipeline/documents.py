"""Where text comes from: files, standard input, the Hub or the Python installation, as documents."""

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from nejax.errors import UserError
from nejax.pipeline.hub_datasets import open_hub_dataset
from nejax.pipeline.python_docs import read_python_docs
from nejax.pipeline.text_files import (
    SUFFIXES_IN_WORDS,
    has_known_suffix,
    read_file,
    read_folder,
    read_standard_input,
)


class Document(NamedTuple):
    """One text of a corpus."""

    name: str  # where the text is from: a path, a path and a line, or the name that the corpus gives it
    text: str  # not blank, can be encoded in UTF-8, holds no NUL


@dataclasses.dataclass
class Corpus:
    """A stream of documents; every iteration reads the source from its start (standard input only once).

    What cannot be used (not UTF-8, binary, blank, a broken line, a file of unknown kind) is left out and
    counted. When the source ends without one usable document, iterating raises a `UserError` that says what
    was left out.
    """

    name: str  # what the user asked for
    read: Callable[[Counter[str]], Iterator[tuple[str, str]]]  # yields (name, text), counts what it cannot read
    skipped: Counter[str] = dataclasses.field(default_factory=Counter)  # reason -> count, of the latest iteration

    def __iter__(self) -> Iterator[Document]:
        self.skipped.clear()
        n_usable = 0
        for name, text in self.read(self.skipped):
            reason = _why_unusable(text)
            if reason:
                self.skipped[reason] += 1
            else:
                n_usable += 1
                yield Document(name, text)
        if not n_usable:
            skipped = ", ".join(f"{count} {reason}" for reason, count in sorted(self.skipped.items()))
            raise UserError(
                f"corpus {self.name!r} holds no usable text (left out: {skipped or 'nothing, it is empty'}); "
                f"expected UTF-8 text in {SUFFIXES_IN_WORDS}"
            )


def open_corpus(source: str, *, text_field: str = "text", split: str = "train") -> Corpus:
    """Find a corpus by its name; its documents are read while it is iterated, never held all at once.

    Args:
        source: the first of these that fits:
            `"python-docs"`: the English documentation found in the Python installation (needs no network);
            `"-"`: standard input, JSON lines if its first character but spaces is `{`, else one document;
            a local file or folder (read recursively, in sorted order): a .txt, .md or .rst file is one
            document, a .jsonl or .parquet file one document a row; each may be compressed (.gz, .xz, .zst);
            a dataset on the Hub, `NAMESPACE/NAME` or `NAMESPACE/NAME:CONFIG`, which is streamed.
        text_field: the field or column that holds the text, where there are fields.
        split: the split of a Hub dataset.

    Raises:
        UserError: no such file or folder, a file of unknown kind, no such dataset, configuration, split or
            column on the Hub, or the Hub is out of reach.
    """
    path = Path(os.path.expanduser(source))
    if source == "python-docs":
        return Corpus(source, lambda skipped: read_python_docs())
    if source == "-":
        return Corpus(source, lambda skipped: read_standard_input(text_field, skipped))
    if source and os.path.isdir(path):
        return Corpus(source, lambda skipped: read_folder(path, text_field, skipped))
    if source and os.path.exists(path):
        if not has_known_suffix(source):
            raise UserError(f"corpus {source!r} is of unknown kind; expected {SUFFIXES_IN_WORDS}, or a folder")
        return Corpus(source, lambda skipped: read_file(path, path.name, text_field, skipped))
    if not source or source.startswith((".", "/", "~")) or has_known_suffix(source):
        raise UserError(f"corpus {source!r}: no such file or folder")
    return Corpus(source, open_hub_dataset(source, text_field, split))


def _why_unusable(text: str) -> str:
    """Why a text cannot be a document; empty if it can."""
    if "\0" in text:
        return "undecodable"
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate, which JSON can spell
        return "undecodable"
    return "" if text.strip() else "empty"
