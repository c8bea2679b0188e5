"""The run directory: a manifest that says what was asked and what is done, and one Orbax store per stage."""

import asyncio
import contextlib
import errno
import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from nejax.errors import UserError
from nejax.pipeline.run.folders import lock, make_folder
from nejax.pipeline.run.processes import first_then_all, is_first
from nejax.pipeline.run.sources import Sources

FORMAT = 2
"""Version of the layout of a run directory."""

LAST_STAGES = {"atlas", "plots"}
"""What is made of all other stages."""

Store = dict[str, Any]
"""What one stage leaves to the next: named NumPy arrays."""


class DamagedStore(UserError):
    """A store that is not what was written. Its stage counts as not done any more: run again, and it is rebuilt."""

    def __init__(self, name: str, message: str):
        super().__init__(message)
        self.name = name


class RunDirectory:
    """`runs/NAME/`: `manifest.json` and a folder per stage.

    A stage is published at once: Orbax writes under a temporary name and renames, and only then does the manifest
    call the stage done. A directory whose manifest does not say so is not read. While an object of this class is alive,
    no other process can open the directory. Of several processes that run as one, all read and the first writes.

    Args:
        path: made if it is not there.
        settings: everything that decides the result, as JSON values. A directory made with others is refused, unless
            no stage is done yet.
        decided_late: of some settings, the only stage that reads them. While it is not done they may change; what was
            made of all stages (the atlas, its plots) is then rebuilt.

    Raises:
        UserError: the directory holds something else, another process works on it, or it was made with other settings
            (each is named, with both values).
    """

    def __init__(self, path: Path | str, settings: Mapping[str, Any], decided_late: Mapping[str, str] | None = None):
        self.path = Path(path).absolute()
        self._decided_late = decided_late or {}
        self._wanted: dict[str, Any] = json.loads(json.dumps(settings))  # as they will be read back: tuples are lists
        self._writing = threading.Lock()
        self.sources = Sources(self.path)
        self.manifest: dict[str, Any] = {}
        first_then_all(self._open)

    def _open(self) -> None:
        found = self._read_manifest() if self._manifest_file.exists() else None
        if not found:
            self._refuse_foreign_files()
        try:
            with stop_on_full_disk(self.path):
                make_folder(self.path)
                if is_first():
                    self._lock = lock(self.path)
                if found and (found["stages"] or found.get("damaged")):
                    self.manifest = found
                    self._refuse_other_settings(self._wanted)
                    self._take_late_settings(self._wanted)
                else:
                    self.manifest = {
                        "format": FORMAT,
                        "settings": self._wanted,
                        "versions": _versions(),
                        "stages": {},
                    }
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

    def load(self, name: str) -> Store:
        """Read a stage's store.

        Raises:
            DamagedStore: it cannot be read, or is not what was written.
        """
        try:
            return read_store(self.path / name, self.manifest["stages"][name]["digest"])
        except ValueError as error:
            raise self.damaged(name, str(error)) from error

    def damaged(self, name: str, reason: str) -> DamagedStore:
        """Call a stage not done, since what it left is damaged; what was made of it stays until it is known to differ.

        Args:
            name: of the stage.
            reason: what is wrong.

        Returns:
            The error to raise.
        """
        stages = self.manifest["stages"]
        order = list(stages)
        later = order[order.index(name) + 1 :]
        whole = name.partition("-")[0]  # the stage that made this store among others
        for lost in {name, whole} & stages.keys():
            facts = stages.pop(lost)
            self.manifest.setdefault("damaged", {})[lost] = {"digest": facts.get("digest"), "later": later}
        self._write_manifest()
        return DamagedStore(
            name, f"{self.path / name} is damaged ({reason}); run the same command again: it is rebuilt"
        )

    def save(self, name: str, store: Store, facts: Mapping[str, Any]) -> None:
        """Write a stage's store, then mark the stage done."""

        def write() -> None:
            with stop_on_full_disk(self.path):
                write_store(self.path / name, store)

        first_then_all(write)
        with stop_on_full_disk(self.path):
            self.mark(name, {**facts, "digest": digest_of(store)})

    def refresh(self) -> None:
        """Read again what is done, after the first of several processes has done something alone."""
        self.manifest = self._read_manifest()

    def mark(self, name: str, facts: Mapping[str, Any]) -> None:
        """Note in the manifest that a stage is done.

        A stage that was damaged and comes out otherwise than before (with another version of a library, say) takes the
        stages after it along: they will be rebuilt.
        """
        with self._writing:
            before = self.manifest.get("damaged", {}).pop(name, None)
            if before and before["digest"] != facts.get("digest"):
                for later in before["later"]:
                    self.manifest["stages"].pop(later, None)
            if not self.manifest.get("damaged", True):
                del self.manifest["damaged"]
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
            if before.get(name) != settings.get(name) and not self._is_open(name)
        ]
        if changed:
            raise UserError(
                f"{self.path} was made with other settings: {'; '.join(changed)}. "
                "Use the same settings, or another directory"
            )

    def _is_open(self, setting: str) -> bool:
        """Whether the only stage that reads a setting has nothing done yet."""
        stage = self._decided_late.get(setting)
        return stage is not None and not any(name.partition("-")[0] == stage for name in self.manifest["stages"])

    def _take_late_settings(self, settings: dict[str, Any]) -> None:
        if self.manifest["settings"] == settings:
            return
        self.manifest["settings"] = settings
        for made_of_all in LAST_STAGES & self.manifest["stages"].keys():
            del self.manifest["stages"][made_of_all]
        self._write_manifest()

    def _refuse_foreign_files(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path} is a file; expected a directory, or a name that is free")
        if self.path.exists() and any(file != self._unfinished_manifest for file in self.path.iterdir()):
            raise UserError(f"{self.path} holds files but no manifest.json, so it is not a run; use another directory")

    def _write_manifest(self) -> None:
        if not is_first():
            return
        with self._unfinished_manifest.open("w") as file:
            json.dump(self.manifest, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        self._unfinished_manifest.rename(self._manifest_file)


def write_store(path: Path, store: Store) -> None:
    """Write named arrays, and their digest, to a folder that appears when it is whole. Only the first process does."""
    if is_first():
        empty = {name: [str(array.dtype), array.shape] for name, array in store.items() if not np.size(array)}
        marked = {name: array for name, array in store.items() if name not in empty}
        marked[_DIGEST] = np.frombuffer(bytes.fromhex(digest_of(store)), np.uint8)
        if empty:  # Orbax keeps none
            marked[_EMPTY] = pack_text(empty)
        with _orbax() as checkpointer:
            checkpointer.save(path, args=ocp.args.StandardSave(marked), force=True)


def read_store(path: Path, digest: str | None = None) -> Store:
    """Read the arrays of a store.

    Args:
        path: the folder.
        digest: that they must have, beside the one that stands in the store.

    Raises:
        ValueError: they cannot be read, or are not those that were written; one line that says why.
    """
    try:
        with _orbax() as checkpointer:
            store = checkpointer.restore(path)
        written = np.asarray(store.pop(_DIGEST)).tobytes().hex()
        if _EMPTY in store:
            store |= {name: np.empty(shape, of) for name, (of, shape) in unpack_text(store.pop(_EMPTY)).items()}
        if digest_of(store) != written or digest not in (None, written):  # Orbax does not look
            raise ValueError("its values are not those that were written")
    except Exception as error:  # Orbax passes on what each of its parts happens to raise
        raise ValueError(str(error).splitlines()[0][:200] if str(error) else type(error).__name__) from error
    return store


_DIGEST, _EMPTY = "digest_of_the_rest", "empty_arrays"

_LOCK = threading.Lock()


@contextlib.contextmanager
def _orbax() -> Iterator[ocp.Checkpointer]:
    """A checkpointer for one thread at a time, with no arrays still under way at the end.

    Two threads that use Orbax at once (one stores sequences, the other a checkpoint) make each other fail. And when one
    array cannot be read, Orbax closes the event loop in which the others still arrive, and each of those would print a
    traceback; so the loops that it makes wait for them before they close. What fails in its threads, on a full disk
    say, it logs with a traceback and then raises; the error raised is enough.
    """
    options = _alone()
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=options)
    log = logging.getLogger("absl")  # Orbax's
    with _LOCK:
        policy = asyncio.get_event_loop_policy()
        asyncio.set_event_loop_policy(_PatientLoops())
        log.addFilter(_has_no_traceback)
        try:
            with ocp.Checkpointer(handler, multiprocessing_options=options) as checkpointer:
                yield checkpointer
        finally:
            log.removeFilter(_has_no_traceback)
            asyncio.set_event_loop_policy(policy)


def _has_no_traceback(record: logging.LogRecord) -> bool:
    return not record.exc_info


class _PatientLoop(asyncio.SelectorEventLoop):
    def close(self) -> None:
        if not self.is_closed() and (tasks := asyncio.all_tasks(self)):
            self.run_until_complete(asyncio.wait(tasks))
        super().close()


class _PatientLoops(asyncio.DefaultEventLoopPolicy):
    _loop_factory = _PatientLoop


def _alone() -> ocp.options.MultiprocessingOptions:
    """Orbax waits for no other process: what is stored, every process has."""
    me = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process-{me}"
    )


@contextlib.contextmanager
def stop_on_full_disk(path: Path, what_is_left: str = "finished stages are kept") -> Iterator[None]:
    """Turn "no space left" into a line that says where, and what is left of what was done so far."""
    try:
        yield
    except Exception as error:
        if not _is_full_disk(error):
            raise
        raise UserError(
            f"the disk of {path} is full; free some space and run the same command: {what_is_left}"
        ) from error


def _is_full_disk(error: Exception) -> bool:
    """The system, SQLite, and the libraries behind Orbax and the tokenizers each say it in their own way."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    return (isinstance(error, ValueError) or type(error) is Exception) and "No space left" in str(error)


def pack_text(value: Any) -> np.ndarray:
    """A JSON value as bytes, so that it can stand in a store."""
    return np.frombuffer(json.dumps(value).encode(), np.uint8)


def unpack_text(packed: np.ndarray) -> Any:
    """The inverse of `pack_text`."""
    return json.loads(np.asarray(packed).tobytes())


def digest_of(store: Store) -> str:
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
