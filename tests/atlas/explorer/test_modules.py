"""Modules joined into one: in the order in which they need each other, under names that do not meet."""

from pathlib import Path

import pytest

from nejax.atlas.explorer.modules import joined_modules
from nejax.atlas.explorer.pages import SITE, pages


def joined(folder: Path, **modules: str) -> str:
    for name, text in modules.items():
        (folder / f"{name}.js").write_text(text)
    return joined_modules(folder, "entry.js")


def test_each_module_runs_once_after_those_it_imports(tmp_path):
    text = joined(
        tmp_path,
        entry='import {\n  one,\n  two as zwei,\n} from "./a.js";\nimport three from "./b.js";\ngo(one, zwei, three);',
        a='import three from "./b.js";\nexport const one = three;\nexport async function two() {}\n',
        b="export default function () {}",
    )
    b, a, entry = text.split("// ")[1:]
    assert b.startswith("b.js\nconst $m0 = ") and "const $default = function ()" in b and "{ default: $default }" in b
    assert a.startswith("a.js\nconst $m1 = ") and "const {default: three} = $m0;" in a and "return { one, two };" in a
    assert "export" not in text and "import" not in text
    assert "two: zwei" in entry and "} = $m1;" in entry and "return {  };" in entry


@pytest.mark.parametrize(
    "line",
    [
        'import * as a from "./a.js";',
        'export * from "./a.js";',
        'const a = await import("./a.js");',
        "const a = import.meta.url;",
        "export let a = 1;",
        'import "./a.js";',
    ],
)
def test_forms_that_are_not_understood_are_refused(tmp_path, line):
    with pytest.raises(ValueError, match=r"entry\.js has an import or export of another form"):
        joined(tmp_path, entry=f"const b = 2;\n{line}\n", a="export const a = 1;")


def test_modules_that_import_each_other_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"entry\.js > a\.js > entry\.js"):
        joined(tmp_path, entry='import { a } from "./a.js";', a='import { b } from "./entry.js";\nexport const a = 1;')


def test_all_that_the_pages_are_made_of_is_in_them():
    sheet, script = (next(text for name, text in pages().items() if name.endswith(end)) for end in (".css", "app.js"))
    modules = [str(file.relative_to(SITE)) for file in SITE.rglob("*.js")]
    assert len(modules) > 70 and [name for name in modules if f"// {name}\n".encode() not in script] == []
    assert [file.name for file in SITE.rglob("*.css") if file.read_bytes() not in sheet] == []
