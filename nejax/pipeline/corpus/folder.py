"""The files of a corpus that is a folder, linked ones too, always in the same order."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from nejax.pipeline.corpus.text_files import has_known_suffix


def files_below(root: Path, skipped: Counter[str]) -> Iterator[tuple[Path, str]]:
    """Every file below a folder that can be read, and its path from there, in the order of these paths.

    A linked folder is read where it is linked, unless it holds, or is below, one that is read anyway: links may form a
        cycle. Everything else that is not read is counted: hidden files, those of unknown kind, broken links, links to
        folders
    that are read anyway, folders that the system does not let read, and what is neither file nor folder.
    """
    return _below(root, "", skipped, [Path(os.path.realpath(root))])


def _below(folder: Path, prefix: str, skipped: Counter[str], roots: list[Path]) -> Iterator[tuple[Path, str]]:
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError:
        skipped["folder that cannot be read"] += 1
        return
    for entry in found:
        path, name = folder / entry.name, prefix + entry.name
        if os.path.isdir(path):
            if entry.is_symlink():
                real = Path(os.path.realpath(path))
                if any(real.is_relative_to(root) or root.is_relative_to(real) for root in roots):
                    skipped["link to a folder that is read anyway"] += 1
                    continue
                roots.append(real)
            yield from _below(path, f"{name}/", skipped, roots)
        elif reason := _why_not_read(path, name):
            skipped[reason] += 1
        else:
            yield path, name


def _why_not_read(path: Path, name: str) -> str:
    """Why something that is no folder is not read; empty if it is."""
    if name.startswith(".") or "/." in name:
        return "hidden file"
    if path.is_symlink() and not os.path.exists(path):
        return "broken link"
    if not os.path.isfile(path):
        return "neither file nor folder"
    return "" if has_known_suffix(name) else "unknown kind of file"
