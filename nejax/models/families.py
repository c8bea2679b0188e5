"""The families of language models that can be read: each is one file of this folder, and one line here."""

from importlib import import_module

from nejax.models.family import Family

_FILES = (
    "gpt2",
    "llama",
)

FAMILIES: tuple[Family, ...] = tuple(import_module(f"nejax.models.{file}").FAMILY for file in _FILES)
