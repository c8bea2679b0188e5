"""The header of a GGUF file: its fields, and where each tensor is.

The format is that of ggml (version 2 and 3, little-endian): counts, key-value pairs, one record a tensor, and then the
tensors' bytes. Only this header is read, and every length in it is checked against the file's.
"""

import math
import mmap
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nejax.errors import UserError

_NUMBERS = dict(enumerate(("<u1", "<i1", "<u2", "<i2", "<u4", "<i4", "<f4", "?"))) | {10: "<u8", 11: "<i8", 12: "<f8"}
_FLOAT32, _STRING, _ARRAY = 6, 8, 9
_VERSIONS = (2, 3)
_MAX_DIMENSIONS = 4


class TensorRecord(NamedTuple):
    """Where a tensor is."""

    name: str
    shape: tuple[int, ...]
    """Of its values, the last axis contiguous: the reverse of the order in the file."""
    type: int
    """Number of its type in ggml."""
    offset: int
    """Of its first byte in the file."""


class GGUFHeader(NamedTuple):
    """The fields and tensors that a header lists."""

    fields: dict[str, Any]
    """Key -> value: Python numbers, text, truth values, and lists of these. A float32 is given as the shortest decimal
    number that rounds to it: 1e-05, not 9.999999747378752e-06."""
    tensors: list[TensorRecord]
    n_bytes: int
    """Length of the file."""


def read_gguf_header(file: Path) -> GGUFHeader:
    """The header of a GGUF file.

    Raises:
        UserError: it cannot be read, is no GGUF, of a version that is not read, or damaged or truncated in its header.
    """
    try:
        with file.open("rb") as opened:
            if opened.read(4) != b"GGUF":
                raise UserError(f"{file} is not a GGUF file; expected one that begins with the letters GGUF")
            with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _read_header(_Cursor(data))
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}); expected a GGUF file") from error
    except ValueError as error:
        raise UserError(f"{file} is damaged or truncated ({error}); get the file again") from error


class _Cursor:
    """A place in a file's bytes, which moves on with everything that is read. Raises ValueError at the file's end."""

    def __init__(self, data: mmap.mmap):
        self.data, self.place = data, 4

    def take(self, n_bytes: int) -> bytes:
        start, self.place = self.place, self.place + n_bytes
        if self.place > len(self.data):
            raise ValueError(f"its header goes beyond its end at byte {len(self.data):,}")
        return self.data[start : self.place]

    def numbers(self, kind: str, count: int) -> list[Any]:
        return np.frombuffer(self.take(count * np.dtype(kind).itemsize), kind).tolist()

    def count(self) -> int:
        return int.from_bytes(self.take(8), "little")

    def text(self) -> str:
        return self.take(self.count()).decode("utf-8")

    def kind(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def value(self) -> Any:
        kind = self.kind()
        if kind == _ARRAY:
            kind, count = self.kind(), self.count()
            if kind == _STRING:
                return [self.text() for _ in range(count)]
            return self.numbers(_number_type(kind), count)
        if kind == _STRING:
            return self.text()
        value = self.numbers(_number_type(kind), 1)[0]
        return float(str(np.float32(value))) if kind == _FLOAT32 else value


def _number_type(kind: int) -> str:
    if kind not in _NUMBERS:
        raise ValueError(f"a value of the unknown type {kind}")
    return _NUMBERS[kind]


def _read_header(cursor: _Cursor) -> GGUFHeader:
    version = cursor.kind()
    if version not in _VERSIONS:
        kind = "big-endian" if version and version % 65536 == 0 else f"of version {version}"
        raise ValueError(f"it is {kind}, only little-endian files of version 2 and 3 are read")
    n_tensors, n_fields = cursor.count(), cursor.count()
    fields: dict[str, Any] = {}
    for _ in range(n_fields):
        key = cursor.text()
        if key in fields:
            raise ValueError(f"its key {key} is there twice")
        fields[key] = cursor.value()
    records: dict[str, TensorRecord] = {}
    for _ in range(n_tensors):
        record = _read_record(cursor)
        if records.setdefault(record.name, record) is not record:
            raise ValueError(f"its tensor {record.name} is there twice")
    alignment = fields.get("general.alignment", 32)
    if type(alignment) is not int or alignment < 1:
        raise ValueError(f"its alignment is {alignment!r}")
    data = math.ceil(cursor.place / alignment) * alignment
    tensors = [record._replace(offset=data + record.offset) for record in records.values()]
    return GGUFHeader(fields, tensors, len(cursor.data))


def _read_record(cursor: _Cursor) -> TensorRecord:
    name, n_dimensions = cursor.text(), cursor.kind()
    if n_dimensions > _MAX_DIMENSIONS:
        raise ValueError(f"its tensor {name} has {n_dimensions} dimensions")
    shape = tuple(reversed(cursor.numbers("<u8", n_dimensions)))
    return TensorRecord(name, shape, cursor.kind(), cursor.count())
