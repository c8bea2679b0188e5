"""The documents: links lead somewhere, paths are those of the tree, lines can be read."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted({*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "nejax").rglob("*.md")})
LINES = {"BUILD_NOTES.md": 250, "README.md": 300}
"""The most that a document may have."""
WITHOUT_LONG_ROWS = {"BUILD_NOTES.md", "CONTRIBUTING.md", "docs/measurements.md"}
"""Documents whose tables keep to 120 characters a line too."""
PATH = re.compile(r"(?:\.ci|docs|experiments|nejax|tests)/[\w./-]+")


def name_of(document: Path) -> str:
    return str(document.relative_to(ROOT))


def prose(document: Path) -> str:
    """A document without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(document: Path) -> set[str]:
    """What its headings are called in links."""
    heads = re.findall(r"^#+ (.+)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def paths_in(text: str) -> Iterator[str]:
    """What looks like a path of the tree: in backticks, or in a command. Names in capitals stand for others."""
    for path in PATH.findall(text):
        if not re.search(r"[A-Z]{3}", Path(path).stem):
            yield path.rstrip(".")


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(document: Path):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        to = document.parent / path if path else document
        assert to.exists(), f"{target}: there is no such file"
        assert not anchor or anchor in anchors(to), f"{target}: there is no such heading"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_paths_are_of_the_tree(document: Path):
    text = document.read_text(encoding="utf-8")
    code = "\n".join([*re.findall(r"`([^`\n]+)`", prose(document)), *re.findall(r"^```.*?^```$", text, re.M | re.S)])
    assert not [path for path in paths_in(code) if not (ROOT / path).exists()]


def test_paths_in_code_are_of_the_tree():
    files = [file for folder in ("experiments", "nejax") for file in (ROOT / folder).rglob("*.py")]
    paths = {(name_of(file), path) for file in files for path in paths_in(file.read_text(encoding="utf-8"))}
    assert not [(file, path) for file, path in paths if not (ROOT / path).exists()]


def test_names_in_the_recipes_are_of_the_code():
    files = [file for folder in ("experiments", "nejax", "tests") for file in (ROOT / folder).rglob("*.[pj][ys]")]
    words = {word for file in files for word in re.findall(r"\w+", file.read_text(encoding="utf-8"))}
    words |= set(re.findall(r"[\w-]+", "\n".join((ROOT / name).read_text() for name in ("pyproject.toml", "Makefile"))))
    names = re.findall(r"`([A-Za-z]\w*|_\w+)(?:\(\w*\))?`", prose(ROOT / "CONTRIBUTING.md"))
    assert len(names) > 50 and not [name for name in names if name not in words]


def test_modules_in_documents_and_docstrings_exist():
    """`nejax.room.module.name` in backticks: the module is there, and defines the name."""
    missing = []
    for file in [*DOCUMENTS, *(ROOT / "nejax").rglob("*.py"), *(ROOT / "experiments").rglob("*.py")]:
        for dotted in re.findall(r"`(nejax(?:\.\w+)+)[`(]", file.read_text(encoding="utf-8")):
            parts = dotted.split(".")
            depth = next((n for n in range(len(parts), 0, -1) if source_of(parts[:n])), 0)
            source, names = source_of(parts[:depth]), parts[depth:]
            if not source or (names and not re.search(rf"\b{names[0]}\b", source.read_text(encoding="utf-8"))):
                missing.append(f"{name_of(file)}: {dotted}")
    assert not missing


def source_of(parts: list[str]) -> Path | None:
    """The file of a module."""
    path = ROOT.joinpath(*parts)
    files = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in files if file.is_file()), None)


@pytest.mark.parametrize("name", LINES)
def test_documents_stay_short(name: str):
    assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= LINES[name]


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_lines_can_be_read(document: Path):
    lines = document.read_text(encoding="utf-8").splitlines()
    long = [number for number, line in enumerate(lines, start=1) if len(line) > 120]
    if name_of(document) not in WITHOUT_LONG_ROWS:
        long = [number for number in long if not lines[number - 1].startswith("|")]
    assert not long
