"""Write docs/models.md: how every key of the files of models is treated, from the lists that the readers use.

    python experiments/key_tables.py                # after a change of the lists; a test compares

A second.
"""

import json
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from absl import flags

from nejax.scripts import read_flags, run_script

DOCUMENT = Path(__file__).parent.parent / "docs" / "models.md"

FLAGS = flags.FLAGS
flags.DEFINE_string("to", str(DOCUMENT), "The file.")

if __name__ == "__main__":
    read_flags()

from nejax.models.families.activations import ACTIVATIONS
from nejax.models.families.config_keys import HARMLESS, NEUTRAL
from nejax.models.families.every import FAMILIES
from nejax.models.families.family import Family
from nejax.models.families.rotary import KINDS
from nejax.models.formats.gguf_keys import HARMLESS as GGUF_HARMLESS
from nejax.models.formats.gguf_keys import NEUTRAL as GGUF_NEUTRAL
from nejax.models.formats.gguf_keys import gguf_read_keys
from nejax.models.sae.keys import MODEL_HARMLESS, ONE_VALUE_ONLY, SAE_LENS_HARMLESS, SPARSIFY_HARMLESS

_BEGIN = (
    "# Keys of model files\n\n"
    "A key of a configuration is *read*; or it is *neutral*: it changes the function, and is accepted only at a value "
    "without effect; or it is *harmless*: training, generation, notes. Other values of neutral keys are refused by "
    "name. A key on no list is named in a warning on standard error and ignored: check whether the model needs it. "
    "Keys that mean the same thing have to agree. Every key of `config.json` may be absent. This file is written by "
    "`experiments/key_tables.py`.\n"
)


def document() -> str:
    """The whole text."""
    parts = [_BEGIN, f"Activations, under the names of transformers: {listed(ACTIVATIONS)}.\n"]
    parts += map(of_family, FAMILIES)
    parts.append(f"Rotary positions may be scaled as {listed(KINDS)}; other keys of these objects are refused.\n")
    parts.append(f"## Of every family\n\nNeutral: {values(NEUTRAL)}.\n\nHarmless: {listed(HARMLESS)}.\n")
    parts += [of_gguf(family) for family in FAMILIES if family.gguf]
    parts.append(
        "## Sparse autoencoders\n\n"
        "Read of SAELens: see `nejax.models.sae.config`. Refused wherever they have a value: "
        f"{listed(ONE_VALUE_ONLY)}. Harmless: {listed(SAE_LENS_HARMLESS)}; of `model_from_pretrained_kwargs` "
        f"{listed(MODEL_HARMLESS)}. Of sparsify, harmless: {listed(SPARSIFY_HARMLESS)}.\n"
    )
    return "\n".join(map(_wrapped, "\n".join(parts).split("\n")))


def _wrapped(line: str) -> str:
    indent = "  " if line.startswith("- ") else ""
    return textwrap.fill(line, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def of_family(family: Family) -> str:
    """How the keys of its `config.json` are treated."""
    also = {key: [alias for alias, of in family.aliases.items() if of == key] for key in family.config_keys.values()}
    read = [f"`{key}`" + "".join(f" or `{alias}`" for alias in also[key]) for key in also]
    read += [f"`{key}`" for key in family.also_read]
    rows = [("read", ", ".join(read)), ("neutral", values(family.neutral)), ("harmless", listed(family.harmless))]
    return f"## `config.json` of `{family.model_type}`\n\n{items(rows)}"


def of_gguf(family: Family) -> str:
    """How an architecture's keys in GGUF files are treated."""
    layout = family.gguf
    assert layout is not None
    read = listed(gguf_read_keys(layout))
    rows = [("read", read), ("neutral", values(GGUF_NEUTRAL)), ("harmless", listed(GGUF_HARMLESS))]
    title = f"## GGUF files of `{layout.architecture}`\n\nKeys after `{layout.architecture}.`; no others are read."
    return f"{title}\n\n{items(rows)}"


def items(rows: Iterable[tuple[str, str]]) -> str:
    """A list in Markdown."""
    return "".join(f"- **{name}**: {keys}\n" for name, keys in rows)


def listed(keys: Iterable[str]) -> str:
    """In alphabetical order."""
    return ", ".join(f"`{key}`" for key in sorted(keys))


def values(neutral: Mapping[str, tuple[Any, ...]]) -> str:
    """Keys with their neutral values, those of equal values together."""
    together: dict[str, list[str]] = {}
    for key, accepted in neutral.items():
        words = " or ".join(json.dumps(value) for value in accepted if value != {})
        together.setdefault(words, []).append(key)
    return "; ".join(f"{words}: {listed(keys)}" for words, keys in together.items())


def main(argv: list[str]) -> None:
    """Write it."""
    Path(FLAGS.to).write_text(document(), encoding="utf-8")


if __name__ == "__main__":
    run_script(main)
