"""Documents of a dataset on the Hugging Face Hub, streamed: only what is read is downloaded."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from huggingface_hub import HfApi

from nejax.errors import UserError
from nejax.models.formats.hub import one_line
from nejax.pipeline.corpus.rows import columns_to_read, table_documents

_TIMEOUT = 5.0  # seconds

_TROUBLE = {
    "missing": "is neither a local file or folder nor a dataset on the Hub",
    "unreachable": "is not a local file or folder, and the Hub cannot be reached",
    "instead": "name another, or take a local text file or folder, or 'python-docs', which need no network",
}


def open_hub_dataset(
    source: str, text_field: str, split: str, revision: str | None = None
) -> Callable[[Counter[str]], Iterator[tuple[str, str]]]:
    """Find `NAMESPACE/NAME` or `NAMESPACE/NAME:CONFIG` on the Hub; return what reads its `(name, text)`.

    A row's document is named by its field `name` or `id` if it has one, else `NAMESPACE/NAME:ROW`.
    Rows without text, or whose text cannot be decoded, are counted in the function's argument.

    Args:
        source: the name.
        text_field: the column that holds the text.
        split: of the dataset.
        revision: the commit to read; None: the newest.

    Raises:
        UserError: no such dataset, configuration, split or column, a dataset that may not be read, or the Hub
            is out of reach (here, or later while reading).
    """
    repository, config = _name(source)
    from datasets import IterableDataset, load_dataset  # here, since only this kind of corpus waits for it

    with hub_errors(f"corpus {source!r}", **_TROUBLE):
        dataset = load_dataset(repository, config, split=split, streaming=True, revision=revision)
    assert isinstance(dataset, IterableDataset)
    columns = dataset.column_names
    if columns is not None:
        if text_field not in columns:
            raise UserError(f"corpus {source!r} has no column {text_field!r}; its columns are {', '.join(columns)}")
        dataset = dataset.select_columns(columns_to_read(columns, text_field))
    tables = dataset.with_format("arrow")  # as Python objects, one text that is no UTF-8 would end the reading

    def read(skipped: Counter[str]) -> Iterator[tuple[str, str]]:
        with hub_errors(f"corpus {source!r}", **_TROUBLE):
            for number, row in enumerate(tables):  # a table of one row: no file is opened before it is needed
                yield from table_documents(row, number, repository, text_field, skipped)

    return read


def dataset_revision(source: str, *, needed: bool = True) -> str | None:
    """The newest commit of a dataset on the Hub.

    Args:
        source: `NAMESPACE/NAME` or `NAMESPACE/NAME:CONFIG`.
        needed: whether it is an error if the Hub does not say; else the answer is None.

    Raises:
        UserError: no such dataset, or the Hub is out of reach.
    """
    repository, _ = _name(source)
    try:
        return HfApi().dataset_info(repository, timeout=_TIMEOUT).sha
    except Exception as error:  # among others those of the HTTP library, which is not the same in hub 1 and 2
        if needed:
            raise UserError(f"corpus {source!r}: the Hub does not say its newest commit ({one_line(error)})") from error
        return None


def _name(source: str) -> tuple[str, str | None]:
    """The repository and the configuration."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+(:.+)?", source):
        raise UserError(
            f"corpus {source!r} is neither a local file or folder nor the name of a dataset; expected "
            "'python-docs', a path, or NAMESPACE/NAME or NAMESPACE/NAME:CONFIG on the Hub"
        )
    repository, _, config = source.partition(":")
    return repository, config or None


@contextmanager
def hub_errors(what: str, *, missing: str, unreachable: str, instead: str) -> Iterator[None]:
    """One line each for a dataset that does not exist, cannot be reached, or cannot be read.

    Args:
        what: is read; begins the line.
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
