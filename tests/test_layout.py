"""The floors and the rooms in them: a file imports from its own room and from those below it, never the other way."""

import ast
import importlib
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "nejax"
FLOORS = ["errors", "setting", "scripts", "neuron", "models", "pipeline", "training", "atlas"]
ROOMS = {
    "neuron": [
        *("precision", "defaults", "array_function", "_kernels", "embeddings", "clustering"),
        *("polysemanticity", "clusters", "assignment", "coordinates", "split", "importance", "streaming"),
    ],
    "models": ["choices", "reading", "families", "formats", "loading", "sae"],
    "pipeline": ["run", "corpus", "passes", "stages", "compare"],
}
"""The lowest first: folders, and files that are rooms of their own."""
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


def test_every_file_is_in_a_room():
    parts = [file.relative_to(PACKAGE).with_suffix("").parts for file in FILES]
    assert {floor for floor, *_ in parts} == {*FLOORS, "__init__"}
    for floor, rooms in ROOMS.items():
        assert {room for at, *names in parts if at == floor for room in names[:1]} == {*rooms, "__init__"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_go_one_way(file: Path):
    floor, *inside = file.relative_to(PACKAGE).with_suffix("").parts
    if floor not in FLOORS:
        return
    names = imported(file)
    for name in names:
        package, *above = name.split(".")
        if package != "nejax":
            continue
        assert above[0] in FLOORS[: FLOORS.index(floor) + 1], f"{name} is on a higher floor"
        if above[0] == floor and floor in ROOMS:
            rooms = ROOMS[floor]
            assert above[1] in rooms[: rooms.index(inside[0]) + 1], f"{name} is in a higher room"
    if floor in OUTSIDE:
        assert {name.split(".")[0] for name in names} - {"nejax"} <= OUTSIDE[floor]


def test_files_import_in_no_circle():
    """Within a room too."""
    edges = {
        ".".join(("nejax", *file.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): imported(file)
        for file in FILES
    }
    edges["nejax"] = set()  # it imports a name when it is asked for
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"{' -> '.join((*path, name))}"
        if name not in done and name in edges:
            for other in edges[name]:
                visit(other, (*path, name))
            done.add(name)

    for name in edges:
        visit(name, ())


@pytest.mark.parametrize(
    ("modules", "without"),
    [
        ([file for file in FILES if file.is_relative_to(PACKAGE / "neuron")], {"flax", "absl", "optax", "orbax"}),
        ([PACKAGE / "atlas" / "atlas.py", PACKAGE / "atlas" / "explorer" / "server.py"], {"jax", "flax", "absl"}),
    ],
    ids=["neuron", "an atlas and its explorer"],
)
def test_what_is_not_imported_on_the_way(modules: list[Path], without: set[str]):
    names = [".".join(("nejax", *file.relative_to(PACKAGE).with_suffix("").parts)) for file in modules]
    code = f"import sys, {', '.join(names)}; print(*{without!r} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


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


def test_type_checkers_see_the_names_that_are_public():
    nejax = importlib.import_module("nejax")
    seen = {
        (alias.name, node.module.removeprefix("nejax."))
        for node in ast.walk(ast.parse((PACKAGE / "__init__.py").read_text()))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("nejax.")
        for alias in node.names
    }
    assert seen == set(nejax._MODULES.items())
    assert set(nejax.__all__) <= set(dir(nejax))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = nejax.nonsense
