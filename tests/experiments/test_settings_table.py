"""The table of settings in README.md is that of the code."""

import pytest
from scripts import module_of

from nejax.errors import UserError
from nejax.pipeline.run.settings import Settings

settings_table = module_of("settings_table")


def test_it_is_written_anew_after_a_change():
    readme = settings_table.DOCUMENT.read_text(encoding="utf-8")
    assert settings_table.document(readme) == readme, "run experiments/settings_table.py"


def test_every_setting_has_a_row_with_its_default():
    rows = settings_table.table().splitlines()[2:]
    cells = {row.split(" | ")[0].removeprefix("| `--").removesuffix("`"): row.split(" | ")[1] for row in rows}
    shown = {None: "", False: "no"}
    assert cells == {
        name: str(value) if value == 0 and value is not False else shown.get(value, str(value))
        for name, value in Settings().by_name().items()
    }
    assert all(row.count(" | ") == 2 for row in rows)


def test_a_document_without_a_place_for_it():
    with pytest.raises(UserError, match="there is no place for the table; expected the lines <!-- written by"):
        settings_table.document("# Another document\n")
