"""The families of language models that can be read: each is one file of this folder, and one line here."""

from nejax.models.families.family import Family
from nejax.models.families.gpt2 import FAMILY as GPT2
from nejax.models.families.llama import FAMILY as LLAMA

FAMILIES: tuple[Family, ...] = (GPT2, LLAMA)
