"""Documents of a dataset on the Hugging Face Hub, streamed: only what is read is fetched."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nejax.errors import UserError
from nejax.pipeline.text_files import NAME_FIELDS, row_document

_TROUBLE = {
    "missing": "is neither a local file or folder nor a dataset on the Hub",
    "unreachable": "is not a local file or folder, and the Hub cannot be reached",
    "instead": "name another, or take a local text file or folder, or 'python-docs', which need no network",
}


def open_hub_dataset(source: str, text_field: str, split: str) -> Callable[[Counter[str]], Iterator[tuple[str, str]]]:
    """Find `NAMESPACE/NAME` or `NAMESPACE/NAME:CONFIG` on the Hub; return what reads its `(name, text)`.

    A row's document is named by its field `name` or `id` if it has one, else `NAMESPACE/NAME:ROW`.
    Rows without text are counted in the function's argument.

    Raises:
        UserError: no such dataset, configuration, split or column, a dataset that may not be read, or the Hub
            is out of reach (here, or later while reading).
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+(:.+)?", source):
        raise UserError(
            f"corpus {source!r} is neither a local file or folder nor the name of a dataset; expected "
            "'python-docs', a path, or NAMESPACE/NAME or NAMESPACE/NAME:CONFIG on the Hub"
        )
    from datasets import IterableDataset, load_dataset  # here, since only this kind of corpus waits for it

    repository, _, config = source.partition(":")
    with hub_errors(f"corpus {source!r}", **_TROUBLE):
        dataset = load_dataset(repository, config or None, split=split, streaming=True)
    assert isinstance(dataset, IterableDataset)
    columns = dataset.column_names
    if columns is not None:
        if text_field not in columns:
            raise UserError(f"corpus {source!r} has no column {text_field!r}; its columns are {', '.join(columns)}")
        dataset = dataset.select_columns([name for name in columns if name in (text_field, *NAME_FIELDS)])

    def read(skipped: Counter[str]) -> Iterator[tuple[str, str]]:
        with hub_errors(f"corpus {source!r}", **_TROUBLE):
            for number, row in enumerate(dataset):
                yield from row_document(row, f"{repository}:{number}", text_field, skipped)

    return read


@contextmanager
def hub_errors(what: str, *, missing: str, unreachable: str, instead: str) -> Iterator[None]:
    """Tell what does not exist from what cannot be reached from what cannot be read, each in one line.

    Args:
        what: is read, as the line begins.
        missing, unreachable: how it goes on in the first two cases.
        instead: what to do, as it ends.

    Raises:
        UserError: for every error that `datasets` and the Hub's client are known to end in.
    """
    from datasets.exceptions import DatasetNotFoundError, DatasetsError

    try:
        yield
    except (DatasetsError, OSError, ValueError, RuntimeError) as error:
        if isinstance(error, DatasetNotFoundError):
            problem = missing
        elif isinstance(error, ConnectionError):
            problem = unreachable
        else:
            problem = "cannot be read from the Hub"
        reason = " ".join(str(error).split()).rstrip(".")
        raise UserError(f"{what} {problem} ({reason}); {instead}") from error
