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
import weakref
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from shutil import copyfileobj
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from nejax.errors import UserError
from nejax.models.formats.files import listed
from nejax.pipeline.corpus.rows import columns_to_read, row_document, table_documents
from nejax.pipeline.corpus.zstd_files import ZstdFile

_WAS_READ: weakref.WeakSet[Any] = weakref.WeakSet()
"""Standard input, once it has been read."""

_PLAIN = (".txt", ".md", ".rst")
_COMPRESSIONS = (".gz", ".xz", ".zst")
_SUFFIXES = tuple(kind + packed for kind in (*_PLAIN, ".jsonl", ".parquet") for packed in ("", *_COMPRESSIONS))
SUFFIXES_IN_WORDS = f"{', '.join(_PLAIN)}, .jsonl or .parquet, each also with {', '.join(_COMPRESSIONS)}"


def has_known_suffix(name: str) -> bool:
    """Whether a file of this name can be read."""
    return name.lower().endswith(_SUFFIXES)


def read_file(path: Path, name: str, text_field: str, skipped: Counter[str]) -> Iterator[tuple[str, str]]:
    """The documents of one file; those before a damaged place are kept.

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
    except (EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError, pa.ArrowException, UnicodeDecodeError):
        skipped["damaged file"] += 1  # the last of them: the name of a column
    except OSError as error:
        if error.errno is not None:
            raise UserError(f"corpus file {str(path)!r} cannot be read: {error.strerror}") from None
        skipped["damaged file"] += 1  # what gzip and pyarrow raise on broken content carries no errno


def read_standard_input(text_field: str, skipped: Counter[str]) -> Iterator[tuple[str, str]]:
    """JSON lines if the first character that is not a space is `{`; else one document of plain text.

    Raises:
        UserError: it was read before.
    """
    if sys.stdin in _WAS_READ:
        raise UserError("standard input was read already, and can be read only once; give the same command again")
    _WAS_READ.add(sys.stdin)
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


def can_be_read() -> bool:
    """Whether standard input holds something that was not read yet: not if it is a terminal."""
    return sys.stdin not in _WAS_READ and not sys.stdin.isatty()


def _open(path: Path, compression: str) -> io.BufferedIOBase:
    if compression == ".gz":
        return gzip.open(path, "rb")
    if compression == ".xz":
        return lzma.open(path, "rb")
    if compression == ".zst":
        return io.BufferedReader(ZstdFile(open(path, "rb")))
    return open(path, "rb")


def _plain_text(file: Iterable[bytes], name: str, skipped: Counter[str]) -> Iterator[tuple[str, str]]:
    try:
        text = b"".join(file).decode("utf-8-sig")
    except UnicodeDecodeError:
        skipped["undecodable"] += 1
    else:
        yield name, text.replace("\r\n", "\n")


def _json_lines(lines: Iterable[bytes], name: str, text_field: str, skipped: Counter[str]) -> Iterator[tuple[str, str]]:
    key = json.dumps(text_field, ensure_ascii=False).encode(errors="replace")
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
            if line.count(key) > 1 and _n_fields(line, text_field) > 1:
                skipped[f"more than one field {text_field!r}"] += 1
            else:
                yield from row_document(row, f"{name}:{number}", text_field, skipped)


def _n_fields(line: bytes, name: str) -> int:
    """How many fields of that name an object has, of which `json.loads` takes the last."""
    n = 0

    def count(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal n
        n = sum(key == name for key, _ in pairs)  # of the outermost object when all is read: it is made last
        return dict(pairs)

    json.loads(line.decode("utf-8-sig"), object_pairs_hook=count)
    return n


def _parquet(
    file: io.BufferedIOBase, is_compressed: bool, name: str, text_field: str, skipped: Counter[str]
) -> Iterator[tuple[str, str]]:
    with tempfile.TemporaryFile() as unpacked:
        if is_compressed:  # Parquet is read from its end, a compressed file only from its start
            copyfileobj(file, unpacked)
        parquet = pq.ParquetFile(unpacked if is_compressed else file)
        columns = parquet.schema_arrow.names
        if text_field not in columns:
            skipped[f"no column {text_field!r} among {listed(columns)}"] += 1
            return
        wanted = columns_to_read(columns, text_field)
        if text_field not in wanted:
            skipped[f"{columns.count(text_field)} columns {text_field!r}"] += 1
            return
        first = 0
        for batch in parquet.iter_batches(batch_size=256, columns=wanted):
            yield from table_documents(batch, first, name, text_field, skipped)
            first += len(batch)
