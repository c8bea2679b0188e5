"""The four floors: a file imports from its own floor and from the floors above it, never the other way."""

import ast
import importlib
from collections import Counter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "nejax"
FLOORS = ["neuron", "models", "pipeline", "atlas"]
OUTSIDE = {"neuron": {"jax", "jaxtyping", "numpy", "collections", "functools", "inspect", "operator", "typing"}}
FILES = sorted(PACKAGE.rglob("*.py"))


def imported(file: Path) -> set[str]:
    """The modules a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import"
            names.add(node.module or "")
    return names


def test_there_are_files_on_every_floor():
    assert {file.parent.name for file in FILES} >= {*FLOORS, "nejax"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_go_one_way(file: Path):
    floor = file.relative_to(PACKAGE).parts[0]
    if floor not in FLOORS:
        return
    allowed = {"errors", *FLOORS[: FLOORS.index(floor) + 1]}
    own = {name for name in imported(file) if name.split(".")[0] == "nejax"}
    assert {name.split(".")[1] for name in own} <= allowed
    if floor in OUTSIDE:
        assert {name.split(".")[0] for name in imported(file)} - {"nejax"} <= OUTSIDE[floor]


def test_files_stay_short():
    root = PACKAGE.parent
    long = {
        str(file.relative_to(root)): n
        for folder in ("nejax", "experiments", "tests")
        for file in (root / folder).rglob("*.py")
        if (n := len(file.read_text().splitlines())) > (200 if folder == "experiments" else 400)
    }
    assert not long


def test_no_two_test_files_have_one_name():
    """pytest collects only one of them."""
    names = Counter(file.name for file in (PACKAGE.parent / "tests").rglob("*.py") if file.name != "conftest.py")
    assert not [name for name, n in names.items() if n > 1]


def test_public_names_exist_and_are_documented():
    nejax = importlib.import_module("nejax")
    for name in nejax.__all__:
        assert getattr(nejax, name).__doc__, name


def test_no_other_names_are_public():
    nejax = importlib.import_module("nejax")
    assert set(nejax._MODULES) == set(nejax.__all__) <= set(dir(nejax))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = nejax.nonsense
