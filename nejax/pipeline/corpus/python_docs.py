"""The corpus that needs no network: the English documentation in the Python installation."""

import ast
import hashlib
import os
import platform
import sysconfig
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from nejax.errors import UserError
from nejax.models.formats.files import stamp_of

_MIN_CHARACTERS = 200  # below this a topic or a module's documentation is too short to teach anything
_SKIPPED_FOLDERS = {"test", "tests", "idle_test", "lib2to3", "site-packages", "dist-packages", "__pycache__"}


PYTHON = f"the documentation of Python {platform.python_version()}"
"""What this corpus is made of."""


def python_docs_stamp() -> str | None:
    """While it is the same, so are the documents; None if a file is too young to tell."""
    sources = _module_sources(Path(sysconfig.get_path("stdlib")))
    stamps = [(name, stamp_of(path)) for name, path in sorted(sources.items())]
    if any(stamp is None for _, stamp in stamps):
        return None
    return hashlib.blake2b(repr(stamps).encode(), digest_size=16).hexdigest()


def read_python_docs(skipped: Counter[str]) -> Iterator[tuple[str, str]]:
    """Yield `(name, text)` of each topic of `help()` and of each documented module of the standard library.

    A topic is named `topics/NAME`. A module is named `modules/DOTTED.NAME`; its text is its docstring, then
    that of every public function, class and method, in source order. The documents are ordered by a hash of their
    names: always the same, and mixed, so that the first ones are a fair sample of all. Modules whose source cannot be
    parsed are counted.

    Raises:
        UserError: the installation has neither topics nor the sources of its standard library.
    """
    topics = _topics()
    sources = _module_sources(Path(sysconfig.get_path("stdlib")))
    if not topics and not sources:
        raise UserError(
            "corpus 'python-docs': this Python installation has neither pydoc_data nor the sources of the "
            "standard library; name a text file, a folder or a dataset on the Hub instead"
        )
    for name in sorted([*topics, *sources], key=lambda name: hashlib.blake2b(name.encode()).digest()):
        text = topics[name] if name in topics else _module_docstrings(sources[name], skipped)
        if len(text) >= _MIN_CHARACTERS:
            yield name, text


def _topics() -> dict[str, str]:
    try:
        from pydoc_data.topics import topics
    except ImportError:  # some distributions ship it as a separate package
        return {}
    return {f"topics/{name}": text.strip() for name, text in topics.items()}


def _module_sources(stdlib: Path) -> dict[str, Path]:
    """Every importable module's .py file below `stdlib`, tests and installed packages left out."""
    sources = {}
    for folder, subfolders, files in os.walk(stdlib):
        subfolders[:] = [name for name in subfolders if name not in _SKIPPED_FOLDERS and name.isidentifier()]
        for file in files:
            path = Path(folder, file)
            if path.suffix == ".py" and path.stem.isidentifier():
                parts = path.relative_to(stdlib).with_suffix("").parts
                sources["modules/" + ".".join(parts).removesuffix(".__init__")] = path
    return sources


def _module_docstrings(path: Path, skipped: Counter[str]) -> str:
    try:
        module = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError, RecursionError):  # templates and deliberately broken sources
        skipped["module that cannot be parsed"] += 1
        return ""
    sections = [ast.get_docstring(module) or ""]
    sections += _object_docstrings(module)
    return "\n\n".join(section for section in sections if section.strip())


def _object_docstrings(parent: ast.Module | ast.ClassDef) -> Iterator[str]:
    """A line that names the object, then its docstring; a class is followed by its public methods."""
    for node in parent.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
            continue
        docstring = ast.get_docstring(node) or ""
        if isinstance(node, ast.ClassDef):
            members = list(_object_docstrings(node))
            if docstring or members:
                yield f"class {node.name}:\n{docstring}".rstrip()
            yield from members
        elif docstring:
            yield f"def {node.name}({ast.unparse(node.args)}):\n{docstring}"
