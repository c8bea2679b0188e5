"""The explorer as a static site: its pages and all shards as files, within a bound on their size."""

import contextlib
import gzip
import json
import math
import shutil
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nejax.atlas.explorer.pages import ASSETS, SITE, may_be_kept, pages
from nejax.atlas.explorer.search_index import search_shards
from nejax.atlas.explorer.shards import VERSION, Shards, to_json
from nejax.atlas.files import AtlasFiles
from nejax.errors import SettingError, UserError
from nejax.pipeline.run.directory import stop_on_full_disk
from nejax.pipeline.run.progress import progress_bar

LIMITS = (None, 32, 16, 8, 4, 2, 1)
"""How many of a feature's examples have their text; the first that fits is taken."""

N_SAMPLED = 200
"""How many neurons are written to predict the size of all."""

_MARGIN = 1.03  # sizes of neurons' shards differ by an eighth, so the mean of 200 is right within 1%; three times that
_N_THREADS, _IN_HAND = 2, 8  # files that wait to be compressed and written
_LEVEL = 6  # 9 takes longer and gains nothing worth it


class Exported(NamedTuple):
    """What a static site takes."""

    bytes: int
    """Of all its files together."""
    files: int
    examples_per_feature: int | None
    """So many of a feature's examples have their text: its central one and its strongest. None: all have."""


def export_site(files: AtlasFiles, folder: Path | str, *, max_mb: float | int = 1000, quiet: bool = False) -> Exported:
    """Write the explorer of an atlas as a site that any file server can serve, under any address.

    It is written under another name and renamed when it is complete; the same atlas gives the same bytes. Shards are
    compressed, and made one at a time: memory does not grow with the number of neurons.

    Args:
        files: of the atlas, which are only read.
        folder: made, with its parents; may be empty, or an earlier export, which is replaced.
        max_mb: bound on the size of all files, in 10^6 bytes. If it is too little for all text, then only 32, 16, 8, 4,
            2 or 1 of the examples of each feature have their text: the most that fit.
        quiet: show no progress bars.

    Returns:
        What was written.

    Raises:
        UserError: the folder holds something else or cannot be written, the disk is full, the bound is too low even
            for one text a feature, or the atlas is damaged. Nothing is left behind then.
    """
    if not max_mb > 0:
        raise SettingError("max_mb", max_mb, "a size above 0, in millions of bytes")
    target = Path(folder).expanduser().resolve()
    with _refuse_unwritable(target):
        _refuse_foreign(target)
    partial = target.with_name(f"{target.name}.partial")
    try:
        with _refuse_unwritable(target), stop_on_full_disk(target, "nothing of the export is left"):
            shutil.rmtree(partial, ignore_errors=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            exported = _Site(files, partial, quiet).write(max_mb * 1e6)
            _publish(partial, target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return exported


class _Site:
    """A site that is being written."""

    def __init__(self, files: AtlasFiles, folder: Path, quiet: bool):
        self.files, self.shards = files, Shards(files)
        self.folder, self.data = folder, folder / "data" / f"v{VERSION}"
        self.n_neurons = self.shards.n_layers * self.shards.d_mlp
        self.quiet = quiet

    def write(self, most: float) -> Exported:
        """Write everything but the neurons: their size is known then, and decides how much text there can be."""
        least = self._predicted(LIMITS[-1])
        if least > most * _MARGIN**2:
            size = f"{math.ceil(least / 1e5) / 10:g} MB"
            raise SettingError(
                "max_mb",
                most / 1e6,
                f"more: with the text of one example a feature, the neurons alone take about {size}",
                "allow several times as much",
            )
        for name, page in pages().items():
            self._write_page(name, page)
        shards = self.shards
        names = [column.name for column in shards.columns]
        self._store("measures", len(names), ((f"columns/{name}", shards.column(name)) for name in names))
        blocks = ((f"sequences/{block}", shards.sequences(block)) for block in range(shards.n_blocks))
        self._store("sequences", shards.n_blocks, blocks)
        self._store("search", None, search_shards(self.files))
        needed = math.inf
        for limit in LIMITS:
            description = shards.atlas(search="index", compressed=True, examples_per_feature=limit)
            (self.data / "atlas.json").write_bytes(to_json(description))
            rest, _ = _size_of(self.folder)
            needed = rest + self._predicted(limit)
            if needed <= most:
                if self._write_neurons(limit, most - rest):
                    return Exported(*_size_of(self.folder), limit)
                needed = most * _MARGIN  # at least: the prediction was too low
        size = f"{math.ceil(needed / 1e5) / 10:g} MB"
        raise SettingError(
            "max_mb",
            most / 1e6,
            f"more: with the text of one example a feature, the site takes about {size}",
            "allow so much",
        )

    def _write_page(self, name: str, page: bytes) -> None:
        """A file of the pages; beside a large one its compressed form, which file servers may be told to send."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(page)
        if may_be_kept(name):
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(page, mtime=0))

    def _predicted(self, limit: int | None) -> float:
        """The size of all neurons' shards, from that of some."""
        some = np.unique(np.linspace(0, self.n_neurons - 1, N_SAMPLED).astype(int)).tolist()
        mean = sum(len(_packed(shard)) for _, shard in self._neurons(some, limit)) / len(some)
        return self.n_neurons * mean * (1 if len(some) == self.n_neurons else _MARGIN)

    def _write_neurons(self, limit: int | None, most: float) -> bool:
        """Whether all of them fit; if they do not, none are left."""
        fits = self._store("neurons", self.n_neurons, self._neurons(range(self.n_neurons), limit), most) <= most
        if not fits:
            shutil.rmtree(self.data / "neurons")
        return fits

    def _neurons(self, ids: Iterable[int], limit: int | None) -> Iterator[tuple[str, Any]]:
        for layer, neuron in (divmod(id_, self.shards.d_mlp) for id_ in ids):
            yield f"neurons/{layer}/{neuron}", self.shards.neuron(layer, neuron, examples_per_feature=limit)

    def _store(self, what: str, total: int | None, shards: Iterable[tuple[str, Any]], most: float = math.inf) -> int:
        """Write shards, compressed in threads beside the one that makes them.

        Returns:
            The size of those written. Ends soon after it is above `most`.
        """
        size = 0
        with ThreadPoolExecutor(_N_THREADS) as pool:
            in_hand: deque[Future[int]] = deque()
            with progress_bar(shards, f"{what:>9}", total, unit=" files", unit_scale=True, disable=self.quiet) as bar:
                for name, shard in bar:
                    in_hand.append(pool.submit(self._store_one, name, shard))
                    if len(in_hand) > _IN_HAND:
                        size += in_hand.popleft().result()
                    if size > most:
                        break
            return size + sum(future.result() for future in in_hand)

    def _store_one(self, name: str, shard: Any) -> int:
        path = self.data / f"{name}.json.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.write_bytes(_packed(shard))


def _packed(shard: Any) -> bytes:
    return gzip.compress(to_json(shard), _LEVEL, mtime=0)


def _size_of(folder: Path) -> tuple[int, int]:
    """Bytes and number of the files below a folder."""
    sizes = [file.stat().st_size for file in folder.rglob("*") if file.is_file()]
    return sum(sizes), len(sizes)


def _refuse_foreign(target: Path) -> None:
    """Only an earlier export is replaced, and only if nothing was added to it."""
    if target.exists() and not target.is_dir():
        raise UserError(f"{target} is a file; expected a folder, or a name that is free")
    there = sorted(path.name for path in target.iterdir()) if target.exists() else []
    known = {"data", ASSETS, *(page.name for page in SITE.iterdir())} if _is_export(target) else set()
    foreign = [name for name in there if name not in known]
    if foreign:
        raise UserError(
            f"{target} holds {foreign[0]!r}, which is of no earlier export; use another folder, or empty it"
        )


def _is_export(folder: Path) -> bool:
    try:
        description = json.loads((folder / "data" / f"v{VERSION}" / "atlas.json").read_bytes())
        return description["compressed"] is True and bool(description["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _publish(partial: Path, target: Path) -> None:
    """Put the new site in the place of what is there."""
    former = target.with_name(f"{target.name}.former")
    shutil.rmtree(former, ignore_errors=True)
    if target.exists():
        target.rename(former)
    partial.rename(target)
    shutil.rmtree(former, ignore_errors=True)


@contextlib.contextmanager
def _refuse_unwritable(target: Path) -> Iterator[None]:
    """One line for a folder that cannot be made or written."""
    try:
        yield
    except OSError as error:
        why = f"{error.strerror}: {error.filename}" if error.filename else str(error)
        raise UserError(f"{target} cannot be written ({why}); use another folder") from error
