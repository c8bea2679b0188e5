"""The first stages of a run, each a function from stores to a store: tokens, collect, passport, inputs, features.

Every stage can be run alone, run again, and resumed; what is done is read instead of computed. The stages that stand on
the features are in files of their own, see `nejax.pipeline.stages.order`.
"""

import contextlib
import dataclasses
import functools
import shutil
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nejax.errors import UserError
from nejax.models.families.two_sided import TwoSided
from nejax.models.loading import LoadedModel, load_model
from nejax.models.sae.latents import load_latents
from nejax.pipeline.corpus.digests import Digests
from nejax.pipeline.corpus.documents import Corpora, open_again, open_corpus
from nejax.pipeline.corpus.sequences import SequenceShards, ahead
from nejax.pipeline.corpus.windows import Account, Sequences, Shard, cut_documents
from nejax.pipeline.passes.collect import Collection, collect, from_store, peakable, to_store
from nejax.pipeline.passes.gather import random_positions, revisit
from nejax.pipeline.passes.histogram import activation_histograms, sample_sequences
from nejax.pipeline.passes.numerics import N_SEQUENCES, numerical_passport
from nejax.pipeline.passes.select import choose_examples
from nejax.pipeline.passes.split import LayerClusterer
from nejax.pipeline.passes.thresholds import heights, layer_minimums
from nejax.pipeline.run.constants import CHUNK_MIB, N_REFERENCE
from nejax.pipeline.run.devices import fetch, place
from nejax.pipeline.run.directory import RunDirectory, Store, stop_on_full_disk
from nejax.pipeline.run.processes import first_then_all, is_first
from nejax.pipeline.run.progress import progress_bar
from nejax.pipeline.run.settings import DECIDED_LATE, Settings
from nejax.pipeline.stages.same_model import keep_model, refuse_other_model

COLLECT_PARTIAL = "collect.partial"
"""The folder of an unfinished collection's checkpoints."""


class Run:
    """One run: its directory, its settings and its model, which is loaded when first needed.

    Args:
        directory: of the run.
        settings: checked before anything is written.
        batch_size: sequences a pass; does not change the result beyond rounding.
        chunk_mib: memory, in MiB, for the neurons that are clustered at a time; does not change the result.
        checkpoint_seconds: between checkpoints of an unfinished collection, at least; does not change the result.
        quiet: show no progress bars.
        is_finished: the run's results are only read: its corpus and model are not compared, and may be gone.
    """

    def __init__(
        self,
        directory: Path | str,
        settings: Settings,
        *,
        batch_size: int = 16,
        chunk_mib: int = CHUNK_MIB,
        checkpoint_seconds: float = 60.0,
        quiet: bool = False,
        is_finished: bool = False,
    ):
        settings.check()
        for name, value in (("batch_size", batch_size), ("chunk_mib", chunk_mib)):
            if value < 1:
                raise UserError(f"--{name}={value}: expected at least 1")
        self.settings, self.batch_size, self.chunk_mib, self.quiet = settings, batch_size, chunk_mib, quiet
        self.checkpoint_seconds = checkpoint_seconds
        self.directory = RunDirectory(directory, dataclasses.asdict(settings), DECIDED_LATE)
        self._are_compared = is_finished

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
        if not self._shards.n_sequences:  # what was collected of sequences that are not there any more
            shutil.rmtree(self.directory.path / COLLECT_PARTIAL, ignore_errors=True)
        s = self.settings
        if self.directory.manifest["stages"]:
            refuse_other_model(self.directory, s.model, s.sae)
            corpora = open_again([s.corpus], text_field=s.text_field, split=s.split)
            self._shards.refuse_other_texts(corpora)
        else:
            _ = self._documents  # a corpus that is not there is refused before a model is loaded

    @functools.cached_property
    def loaded(self) -> LoadedModel:
        """The model; refused if it is not the one that the run's earlier stages read."""
        s, loaded = self.settings, self._load(self.settings.precision)
        n_positions = loaded.model.config.n_positions
        if s.seq_len > n_positions:
            raise UserError(f"--seq_len={s.seq_len}: model {s.model} has {n_positions} positions")
        manifest = self.directory.manifest
        found = {"name": loaded.name, "fingerprint": loaded.fingerprint, "sides": loaded.model.sides}
        before = manifest.setdefault("model", found)
        if before["fingerprint"] != loaded.fingerprint:
            raise UserError(
                f"{self.directory.path} was made with another model: fingerprint {before['fingerprint']} there, "
                f"{loaded.fingerprint} now ({s.model}); use another directory"
            )
        if is_first():
            keep_model(self.directory, loaded.fingerprint, s.model, s.sae)
        return loaded

    def _load(self, precision: str) -> LoadedModel:
        s = self.settings
        loaded = load_model(s.model, dtype=jnp.dtype(precision), input_weights=s.input_weights)
        if s.sae:
            return load_latents(loaded, s.sae, input_weights=s.input_weights)
        if loaded.model.is_gated:
            return loaded._replace(model=TwoSided(loaded.model, s.embed_by))
        return loaded

    def tokens(self) -> SequenceShards:
        """Documents cut into sequences, all of them, in stores `tokens-NNNN`. Of several processes, the first cuts."""
        self.refuse_other_sources()
        if not self._shards.are_whole:
            first_then_all(self._cut_all)
        return self._shards

    def collect(self) -> Store:
        """Every neuron's best K examples, firing count and moments of its activation.

        Sequences that are not there yet are cut while the model reads those before.
        """
        self.refuse_other_sources()
        if jax.process_count() > 1:
            self.tokens()
        store = self.directory.stage("collect", self._collect)
        if is_first():  # only now is the result safe
            shutil.rmtree(self.directory.path / COLLECT_PARTIAL, ignore_errors=True)
        return store

    def passport(self) -> dict[str, Any]:
        """How far this run's MLP inputs and activations are from float32's, layer by layer; in the manifest alone."""
        self.refuse_other_sources()
        if not self.directory.is_done("passport"):
            self.collect()
            s, model = self.settings, self.loaded.model
            numbers = sample_sequences(self.sizes[1], s.seq_len, s.seed)[:N_SEQUENCES]
            reference = model
            if s.precision != "float32":
                reference = self._load("float32").model
            layers = numerical_passport(
                model,
                reference,
                self._shards.take(numbers),
                batch_size=self.batch_size,
                precision=lambda: products_of(s.precision),
            )
            rounded = [{name: float(f"{value:.3g}") for name, value in layer._asdict().items()} for layer in layers]
            self.directory.mark("passport", {"sequences": numbers.tolist(), "layers": rounded})
        return self.directory.manifest["stages"]["passport"]

    def inputs(self) -> Store:
        """The chosen examples, which of its layer's distinct inputs each has, and the activations around its peak.

        And a histogram of every neuron's activation over a sample of the corpus.

        The distinct inputs themselves are in one store a layer, `inputs-LL`.
        """
        self.refuse_other_sources()
        if not self.directory.is_done("inputs"):
            self.collect()  # before the clock of this stage starts
        return self.directory.stage("inputs", self._inputs)

    def features(self) -> Iterator[Store]:
        """Every layer's features, one store a layer, `features-LL`."""
        shared = self.inputs()
        names = [store_of_layer("features", layer) for layer in range(len(shared["sequence"]))]
        all_done = all(map(self.directory.is_done, names))
        with self.bar("features", lambda: len(names), "layers", hidden=all_done) as advance:
            for layer, name in enumerate(names):
                yield self.directory.stage(name, lambda: self._features(shared, layer))  # noqa: B023
                advance(1)

    def _cut_all(self) -> None:
        if is_first():
            for _ in self._shards.stream():
                pass
        else:
            self.directory.refresh()
            del self._shards

    @functools.cached_property
    def _shards(self) -> SequenceShards:
        return SequenceShards(self.directory, self.settings.seq_len, self._cut)

    @functools.cached_property
    def _documents(self) -> Corpora:
        s = self.settings
        return Corpora([open_corpus(s.corpus, text_field=s.text_field, split=s.split)])

    def _cut(self, after: Account | None, seen: Digests) -> Generator[Shard, None, None]:
        n, rule = self.settings.max_sequences, {"seq_len": self.settings.seq_len, "seen": seen, "after": after}
        documents, tokenizer = self._documents, self.loaded.tokenizer
        if after:
            documents.expect(self._shards.texts())
        with self.bar("tokens", lambda: n, "sequences") as advance:
            advance(after.counts["sequences"] if after else 0)
            yield from cut_documents(documents, tokenizer, max_sequences=n, progress=advance, **rule)

    def _collect(self) -> tuple[Store, dict[str, Any]]:
        s, shards, model = self.settings, self._shards, self.loaded.model
        with (
            self.bar("collect", lambda: shards.expected_tokens(s.max_sequences), "tokens") as advance,
            products_of(s.precision),
            stop_on_full_disk(self.directory.path),
            contextlib.ExitStack() as reading,
        ):

            def pieces(start: int) -> Iterator[Sequences]:
                advance(shards.tokens_before(start))
                return reading.enter_context(ahead(shards.stream(start)))

            found = collect(
                model,
                pieces,
                keep=s.keep,
                special=self.special_tokens(),
                first_position=s.first_position,
                batch_size=self.batch_size,
                progress=advance,
                checkpoints=self.directory.path / COLLECT_PARTIAL,
                checkpoint_seconds=self.checkpoint_seconds,
            )
        return to_store(found), {"peakable_tokens": int(self.sizes[1].sum())}

    def _inputs(self) -> tuple[Store, dict[str, Any]]:
        s, shards, best = self.settings, self.tokens(), self.collection().examples
        chosen, repeats, counts = choose_examples(
            best,
            shards.stream(),
            selection=s.selection,
            n_examples=s.examples,
            min_fraction=s.min_fraction,
            max_repeats=s.max_repeats,
        )
        if not counts["examples"]:
            raise UserError("no neuron fires anywhere in this corpus; nothing to cluster. Check the model's weights")
        length, n_peakable = self.sizes
        reference = random_positions(n_peakable, lambda n: self.can_peak(shards.take(n)), N_REFERENCE, s.seed)
        needed = np.union1d(chosen.sequence[chosen.sequence >= 0], reference[:, 0])
        sample = shards.take(sample_sequences(n_peakable, s.seq_len, s.seed))
        n_tokens = int(length[needed].sum()) + 2 * int(sample.length.sum())
        with self.bar("inputs", lambda: n_tokens, "tokens") as advance, products_of(s.precision):
            model, settings = self.loaded.model, {"batch_size": self.batch_size, "progress": advance}
            found = revisit(model, shards.take, chosen, reference, seq_len=s.seq_len, **settings)
            highest = np.asarray(best.activation[..., 0])
            histograms = activation_histograms(model, sample, self.can_peak(sample), highest, **settings)
        for layer, inputs in enumerate(found.inputs):
            facts = {"distinct_inputs": len(inputs)}
            self.directory.save(store_of_layer("inputs", layer), {"inputs": inputs}, facts)
        store = {
            **chosen._asdict(),
            "repeats_left_out": repeats,
            "input_of": found.input_of,
            "reference": found.reference,
            "window": found.window,
            "histogram": histograms.counts,
            "lowest_activation": histograms.lowest,
        }
        facts = {"most_distinct_inputs": max(map(len, found.inputs)), "sampled_tokens": histograms.n_tokens}
        return store, counts | facts

    def _features(self, shared: Store, layer: int) -> tuple[Store, dict[str, Any]]:
        found, directions = self._clusterer(
            self.directory.load(store_of_layer("inputs", layer))["inputs"],
            shared["input_of"][layer],
            shared["reference"][layer],
            self.input_weights[layer],
            layer,
        )
        if not len(directions):  # a layer of dead neurons: Orbax keeps no empty arrays
            directions = np.zeros((1, directions.shape[1]), np.float32)
        store = {
            "merges": found.linkage.merges,
            "n_merges": found.linkage.n_merges,
            "height": found.height,
            "label": found.label,
            "cohesion": found.cohesion,
            "central": found.central,
            "silhouette": found.silhouette,
            "coordinates": found.coordinates.astype(np.float16),
            "coordinates_share": found.coordinates_share,
            "directions": directions.astype(np.float16),
            **found.measures._asdict(),
        }
        alive = found.measures.n_examples > 0
        facts: dict[str, Any] = {"features": int(found.measures.n_clusters.clip(0).sum())}
        if self.settings.how_to_cluster().has_height:
            facts["median_height"] = round(float(np.median(found.height[alive])), 6) if alive.any() else None
        return store, facts

    def least_similarities(self, layer: int, found: Store) -> np.ndarray:
        """[features of the layer] the cosine with its direction from which on an input is the feature's."""
        height = found["height"]
        if not self.settings.how_to_cluster().has_height:
            height = fetch(heights(*place((self.inputs()["reference"][layer], self.input_weights[layer]))))
        return layer_minimums(found, height)

    @functools.cached_property
    def _clusterer(self) -> LayerClusterer:
        shared = self.inputs()
        return LayerClusterer(
            n_inputs=self.directory.manifest["stages"]["inputs"]["most_distinct_inputs"],
            n_examples=shared["sequence"].shape[2],
            d_model=shared["reference"].shape[2],
            clustering=self.settings.how_to_cluster(),
            seed=self.settings.seed,
            chunk_mib=self.chunk_mib,
        )

    @functools.cached_property
    def input_weights(self) -> np.ndarray:
        """[n_layers, d_model, d_mlp] of the model, on the host."""
        return np.asarray(self.loaded.model.input_weights())

    def collection(self) -> Collection:
        """What the collect stage found."""
        return from_store(self.collect())

    def special_tokens(self) -> np.ndarray:
        """Ids of the tokens that are never a peak."""
        return np.array(sorted(self.loaded.tokenizer.all_special_ids), np.int32)

    def can_peak(self, sequences: Sequences) -> np.ndarray:
        """Which positions of these sequences may hold a peak, see `peakable`."""
        tokens, length = jnp.asarray(sequences.tokens), jnp.asarray(sequences.length)
        special = jnp.asarray(self.special_tokens())
        return np.asarray(peakable(tokens, length, special, self.settings.first_position))

    @functools.cached_property
    def sizes(self) -> tuple[np.ndarray, np.ndarray]:
        """Of every sequence, [n_sequences] int32: how many tokens are real, and at how many a peak can be."""
        pieces = ((piece.length, self.can_peak(piece).sum(axis=1, dtype=np.int32)) for piece in self.tokens().stream())
        length, n_peakable = map(np.concatenate, zip(*pieces, strict=True))
        return length, n_peakable

    @contextlib.contextmanager
    def bar(
        self, stage: str, total: Callable[[], int | None], unit: str, *, hidden: bool = False
    ) -> Iterator[Callable[[int], None]]:
        """A progress bar with a rate and the time left; the total is asked for at every step, and may change."""
        disable = self.quiet or hidden or not is_first()
        with progress_bar(total=total(), desc=f"{stage:>8}", unit=f" {unit}", unit_scale=True, disable=disable) as bar:

            def advance(n: int) -> None:
                bar.total = total()
                bar.update(n)

            yield advance


def store_of_layer(stage: str, layer: int) -> str:
    """The name of a layer's own store of a stage."""
    return f"{stage}-{layer:02d}"


def products_of(precision: str) -> contextlib.AbstractContextManager[Any]:
    """Accelerators round float32 products to fewer bits unless told not to."""
    return jax.default_matmul_precision("highest" if precision == "float32" else "default")
