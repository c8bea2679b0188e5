"""The families of language models that can be read: each is one file of this folder, and one line here."""

from nejax.models.family import Family
from nejax.models.gpt2 import FAMILY as GPT2
from nejax.models.llama import FAMILY as LLAMA

FAMILIES: tuple[Family, ...] = (GPT2, LLAMA)
