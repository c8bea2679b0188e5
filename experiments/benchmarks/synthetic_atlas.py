"""An atlas of any size without a model: what a model would find is drawn at random, all else is nejax's own work.

The text is real (Python's documentation and sources), its tokenizer is trained on it, sequences are cut, neurons
clustered and the atlas written as in any run.
"""

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks import drawn
from benchmarks.python_text import python_installation
from benchmarks.sizes import GPT2_SMALL, Sizes
from nejax.models.formats.tokens import train_tokenizer
from nejax.neuron.streaming.moments import Moments
from nejax.pipeline.corpus.documents import Document
from nejax.pipeline.corpus.windows import Sequences
from nejax.pipeline.passes.histogram import MOST_TOKENS
from nejax.pipeline.passes.select import Chosen
from nejax.pipeline.run.constants import N_REFERENCE
from nejax.pipeline.run.directory import RunDirectory, Store
from nejax.pipeline.stages.run import Run, Settings


class SyntheticRun(Run):
    """A run for `write_atlas`. Its tokens are on disk, its other stores in memory, a layer's only while it is written.

    Args:
        directory: where the atlas is written.
        sizes: of everything. A short text gives fewer examples, sequences and tokens.
        documents: the text. Default: from the Python installation.
        own_tokens: texts that are tokens of their own, however long.
        quiet: show no progress bars.
    """

    def __init__(
        self,
        directory: Path | str,
        sizes: Sizes = GPT2_SMALL,
        documents: Sequence[Document] | None = None,
        own_tokens: Sequence[str] = (),
        quiet: bool = False,
    ):
        digest = hashlib.blake2b(repr((documents, own_tokens)).encode(), digest_size=8).hexdigest()
        settings = Settings(
            model=f"synthetic: {', '.join(f'{name} {size}' for name, size in sizes._asdict().items())}",
            corpus="the Python installation" if documents is None else f"given: {digest}",
            max_sequences=sizes.n_sequences,
            seq_len=sizes.seq_len,
            keep=sizes.n_examples,
            examples=sizes.n_examples,
        )
        super().__init__(directory, settings, quiet=quiet)
        self.directory = _InMemory(directory, self.directory.manifest["settings"], self._inputs_of, self._similar)
        self.dimensions, self.own_tokens = sizes, own_tokens
        self._given, self._are_compared = documents, True

    @functools.cached_property
    def loaded(self) -> Any:
        """No model, but its tokenizer."""
        sizes = self.dimensions
        texts = (text for _, text in self._documents)
        tokenizer = train_tokenizer(texts, vocab_size=sizes.vocab_size, n_positions=sizes.seq_len)
        tokenizer.add_tokens(list(self.own_tokens))
        self.directory.manifest["model"] = {"name": self.settings.model, "fingerprint": "0" * 32}
        return SimpleNamespace(tokenizer=tokenizer)

    def passport(self) -> dict[str, Any]:
        """None: no model's numbers are in it."""
        return {}

    def _similar(self) -> Store:
        """Any features of other neurons."""
        n_features = sum(facts.get("features", 0) for facts in self.directory.manifest["stages"].values())
        return drawn.similar_features(n_features, self.settings.similar, self.dimensions.n_examples)

    @functools.cached_property
    def _documents(self) -> Sequence[Document]:
        if self._given is not None:
            return self._given
        return python_installation(8 * self.dimensions.n_sequences * self.dimensions.seq_len)

    @functools.cached_property
    def _sequences(self) -> Sequences:
        """All of them, which here fit into memory."""
        shards = self.tokens()
        return shards.take(np.arange(shards.n_sequences))

    @functools.cached_property
    def input_weights(self) -> np.ndarray:
        """[n_layers, d_model, d_mlp], drawn."""
        n_layers, d_mlp, d_model, *_ = self.dimensions
        return np.random.default_rng(0).standard_normal((n_layers, d_model, d_mlp), np.float32)

    @functools.cached_property
    def _places(self) -> np.ndarray:
        return drawn.places_of_kinds(self._sequences.tokens, self.can_peak(self._sequences))

    @functools.cached_property
    def _rows(self) -> np.ndarray:
        """[n_layers, d_mlp, n_examples]: which of the places."""
        n_layers, d_mlp, _, n_examples = self.dimensions[:4]
        layers = [drawn.places_of_neurons(layer, self._places, d_mlp, n_examples) for layer in range(n_layers)]
        return np.stack(layers)

    @functools.cached_property
    def _chosen(self) -> Chosen:
        return drawn.examples_at(self._places, self._rows)

    def _inputs_of(self, layer: int) -> np.ndarray:
        return drawn.inputs_of_kinds(layer, len(self._places), self.dimensions.d_model)

    def _collect(self) -> tuple[Store, dict[str, Any]]:
        chosen, rng = self._chosen, np.random.default_rng(1)
        shape = self.dimensions[:2]
        n_tokens = int(self.sizes[1].sum())
        variance = rng.uniform(0.01, 0.2, shape)
        powers = [n_tokens * variance**power * (1 + rng.random(shape)) for power in (1, 1.5, 2)]
        moments = np.full(shape, n_tokens), rng.normal(0, 0.05, shape), *powers
        store = {
            "activation": np.where(chosen.sequence >= 0, chosen.activation, -np.inf),
            "sequence": chosen.sequence,
            "position": chosen.position,
            "n_fired": rng.integers(1, n_tokens + 1, shape, np.int32),
            **{name: field.astype(np.float32) for name, field in zip(Moments._fields, moments, strict=True)},
        }
        return store, {"peakable_tokens": n_tokens}

    def _inputs(self) -> tuple[Store, dict[str, Any]]:
        n_layers, d_mlp = self.dimensions[:2]
        n_inputs = len(self._places) * drawn.N_PLACES
        some = np.linspace(0, n_inputs - 1, N_REFERENCE).astype(int)
        n_sampled = min(MOST_TOKENS, self.directory.manifest["stages"]["collect"]["peakable_tokens"])
        store = {
            **self._chosen._asdict(),
            "repeats_left_out": np.zeros(self._chosen.sequence.shape[:2], np.int32),
            "input_of": self._rows,
            "reference": np.stack([self._inputs_of(layer)[some] for layer in range(n_layers)]),
            "window": drawn.windows_around(self._chosen, self._sequences),
            "histogram": drawn.histograms(n_layers, d_mlp, n_sampled),
            "lowest_activation": np.full((n_layers, d_mlp), -0.17, np.float32),
        }
        facts = {"most_distinct_inputs": n_inputs, "sampled_tokens": n_sampled}
        return store, {"examples": int((self._rows >= 0).sum()), **facts}


class _InMemory(RunDirectory):
    """Keeps the stores of all layers in memory; those of one layer are made anew, and the tokens are on disk."""

    def __init__(
        self,
        path: Path | str,
        settings: Mapping[str, Any],
        inputs_of: Callable[[int], np.ndarray],
        similar: Callable[[], Store],
    ):
        super().__init__(path, settings)
        self._kept: dict[str, Store] = {}
        self._inputs_of, self._similar = inputs_of, similar

    def is_done(self, name: str) -> bool:
        """Similar features are drawn, not looked for."""
        return name == "similar" or super().is_done(name)

    def stage(self, name: str, compute: Callable[[], tuple[Store, dict[str, Any]]]) -> Store:
        """The store of a stage. That it is done is noted on disk only with the atlas."""
        if name in self._kept:
            return self._kept[name]
        store, self.manifest["stages"][name] = compute()
        if name.isalpha():
            self._kept[name] = store
        return store

    def load(self, name: str) -> Store:
        """The inputs of a layer, some of the tokens, or similar features."""
        if name.startswith("tokens-"):
            return super().load(name)
        if name == "similar":
            return self._similar()
        return {"inputs": self._inputs_of(int(name.removeprefix("inputs-")))}
