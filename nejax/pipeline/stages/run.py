"""A run: its directory, its settings, and what its stages share. The stages themselves are `stages.order`'s."""

import contextlib
import functools
import shutil
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from nejax.errors import SettingError, UserError
from nejax.models.families.two_sided import TwoSided
from nejax.models.loading import LoadedModel, load_model
from nejax.models.sae.latents import load_latents
from nejax.pipeline.corpus.digests import Digests
from nejax.pipeline.corpus.documents import Corpora, open_again, open_corpus
from nejax.pipeline.corpus.sequences import SequenceShards
from nejax.pipeline.corpus.windows import Account, Shard, cut_documents
from nejax.pipeline.passes.peaks import PeakRule
from nejax.pipeline.run.checkpoints import Checkpoints
from nejax.pipeline.run.constants import CHUNK_MIB
from nejax.pipeline.run.directory import DamagedStore, RunDirectory
from nejax.pipeline.run.processes import first_then_all, is_first
from nejax.pipeline.run.progress import progress_bar
from nejax.pipeline.run.settings import Settings, check_seq_len, decided_late
from nejax.pipeline.stages.same_model import keep_model, refuse_other_model

T = TypeVar("T")


class Run:
    """One run: its directory, its settings and its model, which is loaded when first needed.

    Args:
        directory: of the run.
        settings: what decides the result.
        batch_size: sequences a pass; does not change the result beyond rounding.
        mesh: the devices, see `nejax.pipeline.run.devices.mesh_of`; all of them, if None. Does not change the result
            beyond rounding.
        chunk_mib: memory, in MiB, for the neurons that are clustered at a time; does not change the result.
        checkpoint_seconds: between checkpoints of an unfinished stage, at least; does not change the result.
        quiet: show no progress bars.
        is_finished: the run's results are only read: its corpus and model are not compared, and may be gone; a damaged
            store is not rebuilt.
    """

    def __init__(
        self,
        directory: Path | str,
        settings: Settings,
        *,
        batch_size: int = 16,
        mesh: Mesh | None = None,
        chunk_mib: int = CHUNK_MIB,
        checkpoint_seconds: float = 60.0,
        quiet: bool = False,
        is_finished: bool = False,
    ):
        for name, value in (("batch_size", batch_size), ("chunk_mib", chunk_mib)):
            if value < 1:
                raise SettingError(name, value, "at least 1")
        self.settings, self.batch_size, self.chunk_mib, self.quiet = settings, batch_size, chunk_mib, quiet
        self.mesh, self.checkpoint_seconds = mesh, checkpoint_seconds
        self.directory = RunDirectory(directory, settings.by_name(), decided_late())
        self._is_finished = self._are_compared = is_finished
        self._mended: set[str] = set()

    def is_done(self, stage: str) -> bool:
        """Whether a stage's store is there, whole. The first time, the run's sources are compared, see below."""
        self.refuse_other_sources()
        return self.directory.is_done(stage)

    def refuse_other_sources(self) -> None:
        """Compare the corpus and the model's files with what the run's earlier stages read; every stage does, once.

        Raises:
            UserError: something is gone, new or not what it was; each is named.
        """
        if not self._are_compared:
            self._are_compared = True
            first_then_all(self._compare_sources)

    def _compare_sources(self) -> None:
        if not is_first():
            return
        if not self.sequences.n_sequences:  # what was collected of sequences that are not there any more
            shutil.rmtree(self.partial("collect"), ignore_errors=True)
        if self.directory.manifest["stages"]:
            s, model = self.settings.corpus, self.settings.model
            refuse_other_model(self.directory, model.name, model.sae)
            corpora = open_again([s.source], text_field=s.text_field, split=s.split)
            self.sequences.refuse_other_texts(corpora)
        else:
            _ = self._documents  # a corpus that is not there is refused before a model is loaded

    @functools.cached_property
    def loaded(self) -> LoadedModel:
        """The model; refused if it is not the one that the run's earlier stages read."""
        s, loaded = self.settings.model, self.load(self.settings.model.precision)
        check_seq_len(self.settings.corpus.seq_len, loaded.model.config.n_positions, s.name)
        manifest = self.directory.manifest
        found = {"name": loaded.name, "fingerprint": loaded.fingerprint, "sides": loaded.model.sides}
        before = manifest.setdefault("model", found)
        if before["fingerprint"] != loaded.fingerprint:
            raise UserError(
                f"{self.directory.path} was made with another model: fingerprint {before['fingerprint']} there, "
                f"{loaded.fingerprint} now ({s.name}); use another directory"
            )
        if is_first():
            keep_model(self.directory, loaded.fingerprint, s.name, s.sae)
        return loaded

    def load(self, precision: str) -> LoadedModel:
        """The model as the settings ask for it, but with weights of a given precision."""
        s = self.settings.model
        loaded = load_model(s.name, dtype=jnp.dtype(precision), input_weights=s.input_weights)
        if s.sae:
            return load_latents(loaded, s.sae, input_weights=s.input_weights)
        if loaded.model.is_gated:
            return loaded._replace(model=TwoSided(loaded.model, s.embed_by))
        return loaded

    @functools.cached_property
    def input_weights(self) -> np.ndarray:
        """[n_layers, d_model, d_mlp] of the model, on the host."""
        return np.asarray(self.loaded.model.input_weights())

    @functools.cached_property
    def peak_rule(self) -> PeakRule:
        """Which tokens may be a peak."""
        special = np.array(sorted(self.loaded.tokenizer.all_special_ids), np.int32)
        return PeakRule.of(special, self.settings.examples.first_position)

    @functools.cached_property
    def sequences(self) -> SequenceShards:
        """The sequences; those that are not there yet are cut while the first stage reads those before."""
        return SequenceShards(self.directory, self.settings.corpus.seq_len, self._cut)

    @functools.cached_property
    def sizes(self) -> tuple[np.ndarray, np.ndarray]:
        """Of every sequence, [n_sequences] int32: how many tokens are real, and at how many a peak can be."""
        allowed = self.peak_rule.allowed_in
        pieces = ((piece.length, allowed(piece).sum(axis=1, dtype=np.int32)) for piece in self.sequences.stream())
        length, n_peakable = map(np.concatenate, zip(*pieces, strict=True))
        return length, n_peakable

    @functools.cached_property
    def _documents(self) -> Corpora:
        s = self.settings.corpus
        return Corpora([open_corpus(s.source, text_field=s.text_field, split=s.split)])

    def _cut(self, after: Account | None, seen: Digests) -> Generator[Shard, None, None]:
        n, seq_len = self.settings.corpus.max_sequences, self.settings.corpus.seq_len
        documents, tokenizer = self._documents, self.loaded.tokenizer
        if after:
            documents.expect(self.sequences.texts())
        with self.bar("tokens", lambda: n, "sequences") as advance:
            advance(after.counts["sequences"] if after else 0)
            yield from cut_documents(
                documents, tokenizer, seq_len=seq_len, max_sequences=n, seen=seen, after=after, progress=advance
            )

    def forget_sequences(self) -> None:
        """Look anew at which are there: another process has cut them, or some are damaged."""
        for read_before in ("sequences", "sizes", "_documents"):
            self.__dict__.pop(read_before, None)

    def mending(self, work: Callable[[], T]) -> T:
        """Do something; where a store proves to be damaged, say so and do it again, which makes the store anew.

        Raises:
            DamagedStore: of a finished run; or a store that was rebuilt is damaged again.
        """
        while True:
            try:
                return work()
            except DamagedStore as error:
                if self._is_finished or error.name in self._mended:
                    raise
                self._mended.add(error.name)
                self.forget_sequences()
                self._are_compared = False  # what is rebuilt must be made of the same
                if is_first():
                    print(f"{str(error).partition('; ')[0]}: rebuilding it.", file=sys.stderr)

    def partial(self, stage: str) -> Path:
        """The folder of what an unfinished stage has so far."""
        return self.directory.path / f"{stage}.partial"

    def checkpoints(self, stage: str, of: str = "") -> Checkpoints:
        """Where an unfinished stage saves itself; `of` tells apart what it works on: another starts from the start."""
        return Checkpoints(self.partial(stage) / of, self.checkpoint_seconds)

    @contextlib.contextmanager
    def bar(self, stage: str, total: Callable[[], int | None], unit: str) -> Iterator[Callable[[int], None]]:
        """A progress bar with a rate and the time left; the total is asked for at every step, and may change."""
        disable = self.quiet or not is_first()
        with progress_bar(total=total(), desc=f"{stage:>8}", unit=f" {unit}", unit_scale=True, disable=disable) as bar:

            def advance(n: int) -> None:
                bar.total = total()
                bar.update(n)

            yield advance

    def products(self) -> contextlib.AbstractContextManager[Any]:
        """In it, accelerators multiply as exactly as the run's precision: they round float32 unless told not to."""
        return jax.default_matmul_precision("highest" if self.settings.model.precision == "float32" else "default")
