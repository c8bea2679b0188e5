"""The results of stages and passes, NamedTuples of arrays, as the named arrays of a store, and back."""

from typing import Any, TypeVar

from nejax.pipeline.run.directory import Store

Result = TypeVar("Result", bound=tuple)
"""A NamedTuple: of arrays, and of others like it. All arrays in it have different names."""


def to_store(result: Any) -> Store:
    """Every array of a result under the name of its field."""
    store: Store = {}
    for name, value in result._asdict().items():
        if hasattr(value, "_fields"):
            store |= to_store(value)
        else:
            store[name] = value
    return store


def from_store(kind: type[Result], store: Store) -> Result:
    """The inverse of `to_store`."""
    fields = kind.__annotations__.items()
    return kind(*(from_store(of, store) if hasattr(of, "_fields") else store[name] for name, of in fields))
