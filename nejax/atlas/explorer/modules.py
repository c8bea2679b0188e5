"""JavaScript modules joined into one, so that a browser makes one request instead of one for each level of imports."""

import re
from pathlib import Path, PurePosixPath

_NAMES = r"\{([^}]*)\}"
_IMPORT = re.compile(rf'^import\s*(?:{_NAMES}|(\w+))\s*from\s*"(\.[^"]+)";?', re.MULTILINE)
_AS = re.compile(r"([\w$]+)\s+as\s+([\w$]+)")
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|const|class) (\w+))", re.MULTILINE)
_EXPORT_DEFAULT = re.compile(r"\bexport default (?=function\b)")
_EXPORT_LIST = re.compile(rf"(?<=[;}}])export\s*{_NAMES};?")
_UNKNOWN = re.compile(r"^(?:import|export)\b.*|[;}](?:import|export)\s*[{*].*|\bimport\s*[.(].*", re.MULTILINE)


def joined_modules(folder: Path, entry: str) -> str:
    """One module that does what `entry`, a name below `folder`, does with all that it imports.

    Each module becomes a function that runs once, before those that import it, and returns what it exports.

    Raises:
        ValueError: modules import each other, or one imports or exports in a form that is not understood here.
    """
    variables: dict[str, str] = {}
    parts: list[str] = []

    def add(name: str, importers: tuple[str, ...]) -> str:
        """The variable that holds what a module exports."""
        if name in importers:
            raise ValueError(f"modules import each other: {' > '.join([*importers, name])}")
        if name not in variables:
            text = (folder / name).read_text("utf-8")
            text = _IMPORT.sub(lambda found: _taken(found, add(_below(name, found[3]), (*importers, name))), text)
            text, exported = _without_exports(text)
            if unknown := _UNKNOWN.search(text):
                raise ValueError(f"{name} has an import or export of another form: {unknown[0]}")
            variables[name] = f"$m{len(variables)}"
            parts.append(f"// {name}\nconst {variables[name]} = (() => {{\n{text}\nreturn {{ {exported} }};\n}})();\n")
        return variables[name]

    add(entry, ())
    return "".join(parts)


def _below(importer: str, name: str) -> str:
    """The name of an imported module, as seen from the folder of all."""
    path: list[str] = []
    for part in (PurePosixPath(importer).parent / name).parts:
        if part == "..":
            path.pop()
        else:
            path.append(part)
    return "/".join(path)


def _taken(found: re.Match[str], variable: str) -> str:
    """An import as an assignment."""
    names, default = found[1], found[2]
    taken = f"default: {default}" if default else _AS.sub(r"\1: \2", names)
    return f"const {{{taken}}} = {variable};"


def _without_exports(text: str) -> tuple[str, str]:
    """A module's text, and the members of an object of all that it exports."""
    exported = _EXPORT.findall(text)
    for names in _EXPORT_LIST.findall(text):
        exported += [_AS.sub(r"\2: \1", name).strip() for name in names.split(",")]
    if _EXPORT_DEFAULT.search(text):
        exported.append("default: $default")
    text = _EXPORT_DEFAULT.sub("const $default = ", _EXPORT_LIST.sub("", _EXPORT.sub("", text)))
    return text, ", ".join(exported)
