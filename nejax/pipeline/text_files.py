"""Documents from files, compressed or not, and from standard input: plain text, JSON lines and Parquet.

Every reader here yields `(name, text)` and adds to a counter, by reason, what it could not read.
"""

import codecs
import gzip
import io
import itertools
import json
import lzma
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from shutil import copyfileobj
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nejax.errors import UserError

_PLAIN = (".txt", ".md", ".rst")
_COMPRESSIONS = (".gz", ".xz", ".zst")
_SUFFIXES = tuple(kind + packed for kind in (*_PLAIN, ".jsonl", ".parquet") for packed in ("", *_COMPRESSIONS))
NAME_FIELDS = ("name", "id")  # where a row may say what it is called
SUFFIXES_IN_WORDS = f"{', '.join(_PLAIN)}, .jsonl or .parquet, each also with {', '.join(_COMPRESSIONS)}"


def read_folder(root: Path, text_field: str, skipped: Counter[str]) -> Iterator[tuple[str, str]]:
    """Every document below a folder, file after file in the order of their paths, without hidden files."""
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        name = path.relative_to(root).as_posix()
        if name.startswith(".") or "/." in name:
            skipped["hidden file"] += 1
        elif not has_known_suffix(name):
            skipped["unknown kind of file"] += 1
        else:
            yield from read_file(path, name, text_field, skipped)


def has_known_suffix(name: str) -> bool:
    """Whether a file of this name can be read."""
    return name.lower().endswith(_SUFFIXES)


def read_file(path: Path, name: str, text_field: str, skipped: Counter[str]) -> Iterator[tuple[str, str]]:
    """The documents of one file; those before the place where a file turns out to be damaged are kept.

    Raises:
        UserError: the operating system refuses to read it.
    """
    compression = next((suffix for suffix in _COMPRESSIONS if path.name.lower().endswith(suffix)), "")
    kind = path.name.lower().removesuffix(compression)
    try:
        with _open(path, compression) as file:
            if kind.endswith(".parquet"):
                yield from _parquet(file, bool(compression), name, text_field, skipped)
            elif kind.endswith(".jsonl"):
                yield from _json_lines(file, name, text_field, skipped)
            else:
                yield from _plain_text(file, name, skipped)
    except (EOFError, zlib.error, lzma.LZMAError, pa.ArrowException):
        skipped["damaged file"] += 1
    except OSError as error:
        if error.errno is not None:
            raise UserError(f"corpus file {str(path)!r} cannot be read: {error.strerror}") from None
        skipped["damaged file"] += 1  # what gzip and pyarrow raise on broken content carries no errno


def read_standard_input(text_field: str, skipped: Counter[str]) -> Iterator[tuple[str, str]]:
    """JSON lines if the first character that is not a space is `{`; else one document of plain text."""
    lines = iter(sys.stdin.buffer)
    start = []
    for line in lines:
        start.append(line)
        if line.strip():
            break
    is_json = bool(start) and start[-1].removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"{")
    lines = itertools.chain(start, lines)
    if is_json:
        yield from _json_lines(lines, "stdin", text_field, skipped)
    else:
        yield from _plain_text(lines, "stdin", skipped)


def row_document(row: Any, place: str, text_field: str, skipped: Counter[str]) -> Iterator[tuple[str, str]]:
    """The document that a row of a table holds, if any, named by its `name` or `id`, else by its place."""
    text = row.get(text_field) if isinstance(row, Mapping) else None
    if not isinstance(text, str):
        skipped[f"no text in field {text_field!r}"] += 1
        return
    names = (row.get(key) for key in NAME_FIELDS if key != text_field)
    yield str(next((name for name in names if name not in (None, "")), place)), text


def _open(path: Path, compression: str) -> io.BufferedIOBase:
    if compression == ".gz":
        return gzip.open(path, "rb")
    if compression == ".xz":
        return lzma.open(path, "rb")
    if compression == ".zst":  # by pyarrow: `zstandard` takes a file cut short for a whole one
        return io.BufferedReader(pa.input_stream(str(path), compression="zstd"))
    return open(path, "rb")


def _plain_text(file: Iterable[bytes], name: str, skipped: Counter[str]) -> Iterator[tuple[str, str]]:
    try:
        text = b"".join(file).decode("utf-8-sig")
    except UnicodeDecodeError:
        skipped["undecodable"] += 1
    else:
        yield name, text.replace("\r\n", "\n")


def _json_lines(lines: Iterable[bytes], name: str, text_field: str, skipped: Counter[str]) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8-sig"))
        except UnicodeDecodeError:
            skipped["undecodable"] += 1
        except (ValueError, RecursionError):
            skipped["broken JSON line"] += 1
        else:
            yield from row_document(row, f"{name}:{number}", text_field, skipped)


def _parquet(
    file: io.BufferedIOBase, is_compressed: bool, name: str, text_field: str, skipped: Counter[str]
) -> Iterator[tuple[str, str]]:
    with tempfile.TemporaryFile() as unpacked:
        if is_compressed:  # Parquet is read from its end, a compressed file only from its start
            copyfileobj(file, unpacked)
        parquet = pq.ParquetFile(unpacked if is_compressed else file)
        columns = parquet.schema_arrow.names
        if text_field not in columns:
            skipped[f"no column {text_field!r} among {', '.join(columns)}"] += 1
            return
        columns = [column for column in columns if column in (text_field, *NAME_FIELDS)]
        numbers = itertools.count()
        for batch in parquet.iter_batches(batch_size=256, columns=columns):
            for row in batch.to_pylist():
                yield from row_document(row, f"{name}:{next(numbers)}", text_field, skipped)
