"""The run directory: a manifest that says what was asked and what is done, and one Orbax store per stage."""

import contextlib
import errno
import hashlib
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from nejax.errors import UserError

FORMAT = 1
"""Version of the layout of a run directory."""

Store = dict[str, Any]
"""What one stage leaves to the next: named NumPy arrays."""


class RunDirectory:
    """`runs/NAME/`: `manifest.json` and a folder per stage.

    A stage is published at once: Orbax writes under a temporary name and renames, and only then does the manifest
    call the stage done. A directory whose manifest does not say so is not read.

    Args:
        path: made if it is not there.
        settings: everything that decides the result, as JSON values. A directory made with others is refused, unless
            no stage is done yet.

    Raises:
        UserError: the directory holds something else, or was made with other settings (each is named, with both
            values).
    """

    def __init__(self, path: Path | str, settings: Mapping[str, Any]):
        self.path = Path(path).absolute()
        wanted: dict[str, Any] = json.loads(json.dumps(settings))  # as they will be read back: tuples are lists
        found = self._read_manifest() if self._manifest_file.exists() else None
        if found and found["stages"]:
            self.manifest = found
            self._refuse_other_settings(wanted)
        else:
            if not found:
                self._refuse_foreign_files()
            self.manifest = {
                "format": FORMAT,
                "settings": wanted,
                "versions": _versions(),
                "stages": {},
            }
            try:
                with stop_on_full_disk(self.path):
                    self.path.mkdir(parents=True, exist_ok=True)
                    self._write_manifest()
            except OSError as error:
                raise UserError(f"{self.path} cannot be written ({error.strerror}); use another directory") from error

    @property
    def _manifest_file(self) -> Path:
        return self.path / "manifest.json"

    @property
    def _unfinished_manifest(self) -> Path:
        return self.path / "manifest.partial"

    def is_done(self, stage: str) -> bool:
        """Whether a stage's store is there, whole."""
        return stage in self.manifest["stages"]

    def stage(self, name: str, compute: Callable[[], tuple[Store, dict[str, Any]]]) -> Store:
        """The store of a stage: read if it is there, else computed and kept.

        Args:
            name: of the stage, and of its folder.
            compute: gives the store and facts about it for the manifest (counts, what was skipped and why).

        Returns:
            The store.
        """
        if self.is_done(name):
            return self.load(name)
        started = time.monotonic()
        store, facts = compute()
        self.save(name, store, facts | {"seconds": round(time.monotonic() - started, 2)})
        return store

    def load(self, name: str) -> Store:
        """Read a stage's store.

        Raises:
            UserError: it cannot be read, or is not what was written; says how to have it made again.
        """
        try:
            with ocp.StandardCheckpointer() as checkpointer:
                store = checkpointer.restore(self.path / name)
            if _digest(store) != self.manifest["stages"][name]["digest"]:  # Orbax does not look
                raise ValueError("its values are not those that were written")
        except Exception as error:
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise UserError(
                f"the store {self.path / name} is damaged ({reason}); delete the folder {self.path} and run again"
            ) from error
        return store

    def save(self, name: str, store: Store, facts: Mapping[str, Any]) -> None:
        """Write a stage's store, then mark the stage done."""
        with stop_on_full_disk(self.path):
            with ocp.StandardCheckpointer() as checkpointer:
                checkpointer.save(self.path / name, store, force=True)
            self.mark(name, {**facts, "digest": _digest(store)})

    def mark(self, name: str, facts: Mapping[str, Any]) -> None:
        """Note in the manifest that a stage is done."""
        self.manifest["stages"][name] = dict(facts)
        self._write_manifest()

    def _read_manifest(self) -> dict[str, Any]:
        try:
            manifest = json.loads(self._manifest_file.read_text())
            if manifest["format"] != FORMAT:
                raise UserError(
                    f"{self.path} has format {manifest['format']}, this version reads {FORMAT}; use another directory"
                )
            if not (isinstance(manifest["settings"], dict) and isinstance(manifest["stages"], dict)):
                raise TypeError("settings and stages are objects")
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{self._manifest_file} is not a manifest of a run; use another directory") from error
        return manifest

    def _refuse_other_settings(self, settings: dict[str, Any]) -> None:
        before = self.manifest["settings"]
        changed = [
            f"{name} is {json.dumps(before.get(name))} there and {json.dumps(settings.get(name))} now"
            for name in before | settings
            if before.get(name) != settings.get(name)
        ]
        if changed:
            raise UserError(
                f"{self.path} was made with other settings: {'; '.join(changed)}. "
                "Use the same settings, or another directory"
            )

    def _refuse_foreign_files(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path} is a file; expected a directory, or a name that is free")
        if self.path.exists() and any(file != self._unfinished_manifest for file in self.path.iterdir()):
            raise UserError(f"{self.path} holds files but no manifest.json, so it is not a run; use another directory")

    def _write_manifest(self) -> None:
        with self._unfinished_manifest.open("w") as file:
            json.dump(self.manifest, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        self._unfinished_manifest.rename(self._manifest_file)


@contextlib.contextmanager
def stop_on_full_disk(path: Path, what_is_left: str = "finished stages are kept") -> Iterator[None]:
    """Turn "no space left" into a line that says where, and what is left of what was done so far."""
    try:
        yield
    except (OSError, ValueError) as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if not full and "No space left" not in str(error):
            raise
        raise UserError(
            f"the disk of {path} is full; free some space and run the same command: {what_is_left}"
        ) from error


def pack_text(value: Any) -> np.ndarray:
    """A JSON value as bytes, so that it can stand in a store."""
    return np.frombuffer(json.dumps(value).encode(), np.uint8)


def unpack_text(packed: np.ndarray) -> Any:
    """The inverse of `pack_text`."""
    return json.loads(np.asarray(packed).tobytes())


def _digest(store: Store) -> str:
    """32 hexadecimal digits that stand for every bit of a store."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(store):
        array = np.ascontiguousarray(store[name])
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    packages = ("nejax", "jax", "jaxlib", "flax", "orbax-checkpoint", "transformers", "tokenizers", "numpy")
    found = {}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found | {"python": platform.python_version(), "backend": jax.default_backend()}
