"""Write the table of settings in README.md, from the fields that checks and flags follow from too.

    python experiments/settings_table.py            # after a change of a setting; a test compares

A second.
"""

import re
from pathlib import Path

from absl import flags

from nejax.scripts import flagged, read_flags, run_script

DOCUMENT = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- written by experiments/settings_table.py -->\n", "<!-- end of what it writes -->\n"

FLAGS = flags.FLAGS
flags.DEFINE_string("to", str(DOCUMENT), "The document, which has such a table.")

if __name__ == "__main__":
    read_flags()

from nejax.errors import UserError
from nejax.pipeline.run.settings import GROUPS, Settings
from nejax.setting import Setting, settings_in


def table() -> str:
    """In Markdown, in the order of the help of build_atlas.py."""
    rows = ["| setting | default | what it decides |", "|---|---|---|"]
    rows += [row(one) for group in (*GROUPS.values(), Settings) for one in settings_in(group)]
    return "\n".join(rows) + "\n"


def row(one: Setting) -> str:
    """A setting: its flag, its default, its choices and its help."""
    default = "" if one.default is None else "no" if one.default is False else str(one.default)
    choices = f"{', '.join(f'`{word}`' for word in one.choices)}. " if one.choices else ""
    with_code = re.sub(r"--\w+(=\w+)?", r"`\g<0>`", flagged(one.help))
    with_links = re.sub(r"docs/\w+[.]md", r"[\g<0>](\g<0>)", with_code)
    return f"| `--{one.name}` | {default} | {choices}{with_links} |"


def document(before: str) -> str:
    """The document with the table as it is now.

    Raises:
        UserError: it has no place for it.
    """
    start, end = before.find(BEGIN), before.find(END)
    if start < 0 or end < start:
        raise UserError(f"there is no place for the table; expected the lines {BEGIN.strip()} and {END.strip()}")
    return before[: start + len(BEGIN)] + table() + before[end:]


def main(argv: list[str]) -> None:
    """Write it."""
    path = Path(FLAGS.to)
    path.write_text(document(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    run_script(main)
