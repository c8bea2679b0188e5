"""Documents from the rows of tables: of Parquet files, of datasets on the Hub, of JSON lines."""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

NAME_FIELDS = ("name", "id")
"""Fields that may hold a row's name."""


def row_document(row: Any, place: str, text_field: str, skipped: Counter[str]) -> Iterator[tuple[str, str]]:
    """The document that a row holds, if any, named by its `name` or `id`, else by its place."""
    text = row.get(text_field) if isinstance(row, Mapping) else None
    if not isinstance(text, str):
        skipped[f"no text in field {text_field!r}"] += 1
        return
    names = (row.get(key) for key in NAME_FIELDS if key != text_field)
    yield str(next((name for name in names if name not in (None, "")), place)), text


def columns_to_read(columns: list[str], text_field: str) -> list[str]:
    """The columns of a table that documents are made of; a name that two columns share is ignored."""
    return [name for name in (text_field, *dict.fromkeys(NAME_FIELDS)) if columns.count(name) == 1]


def table_documents(
    table: pa.Table | pa.RecordBatch, first: int, place: str, text_field: str, skipped: Counter[str]
) -> Iterator[tuple[str, str]]:
    """The documents of some rows of a table, of the columns that are to be read.

    Args:
        table: has the text and perhaps names; Arrow keeps bytes that are no UTF-8 as they come.
        first: number of the first row.
        place: the table's name, for rows without one.
        text_field: the column that holds the text.
        skipped: where a row whose text is none, or cannot be decoded, is counted.
    """
    has_text = text_field in table.schema.names
    texts = _values(table.column(text_field)) if has_text else [None] * table.num_rows
    fields = [name for name in table.schema.names if name in NAME_FIELDS and name != text_field]
    names = zip(*(_values(table.column(name)) for name in fields), strict=True) if fields else itertools.repeat(())
    for number, (text, named) in enumerate(zip(texts, names, strict=False), start=first):
        if text is _UNDECODABLE:
            skipped["undecodable"] += 1
        else:
            of_name = {name: value for name, value in zip(fields, named, strict=True) if value is not _UNDECODABLE}
            yield from row_document({text_field: text, **of_name}, f"{place}:{number}", text_field, skipped)


_UNDECODABLE = object()


def _values(column: pa.ChunkedArray | pa.Array) -> list[Any]:
    """As Python objects, also where Python has none for some: not UTF-8, or times out of its range."""
    try:
        return column.to_pylist()
    except (ValueError, OverflowError, pa.ArrowException):
        return [_value(scalar) for scalar in column]


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError, pa.ArrowException):
        return _UNDECODABLE
