"""The families of language models that can be read; each is one file of this folder, and one line here."""

from nejax.models import gpt2, llama
from nejax.models.family import Family

FAMILIES: tuple[Family, ...] = (
    gpt2.FAMILY,
    llama.FAMILY,
)
