"""An atlas of any size without a model: what a model would find is drawn at random, all else is nejax's own work.

The text is real (Python's documentation and sources), its tokenizer is trained on it, sequences are cut, neurons
clustered and the atlas written as in any run.
"""

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import drawn
from benchmarks.python_text import python_installation
from benchmarks.sizes import GPT2_SMALL, Sizes
from nejax.atlas.schema import FOLDER
from nejax.atlas.write import write_atlas
from nejax.models.formats.tokens import train_tokenizer
from nejax.neuron.streaming.moments import Moments
from nejax.neuron.streaming.top_examples import TopExamples
from nejax.pipeline.corpus.documents import Document
from nejax.pipeline.corpus.windows import Sequences
from nejax.pipeline.passes.collect import Collection
from nejax.pipeline.passes.histogram import MOST_TOKENS
from nejax.pipeline.passes.select import Chosen
from nejax.pipeline.passes.similar import Similar
from nejax.pipeline.passes.split import LayerClusterer
from nejax.pipeline.run.constants import N_REFERENCE
from nejax.pipeline.run.settings import Settings
from nejax.pipeline.stages.features import Features, features_of_layer
from nejax.pipeline.stages.inputs import Inputs
from nejax.pipeline.stages.order import Results
from nejax.pipeline.stages.run import Run
from nejax.pipeline.stages.stage import Layers
from nejax.pipeline.stages.tokens import TOKENS


def synthetic_atlas(
    folder: Path,
    sizes: Sizes = GPT2_SMALL,
    documents: Sequence[Document] | None = None,
    own_tokens: Sequence[str] = (),
    quiet: bool = False,
) -> Path:
    """Write an atlas, unless it is there.

    Args:
        folder: of its run; the atlas is `folder / "atlas"`.
        sizes: of everything. A short text gives fewer examples, sequences and tokens.
        documents: the text. Default: from the Python installation.
        own_tokens: texts that are tokens of their own, however long.
        quiet: show no progress bars.

    Returns:
        The atlas's folder.
    """
    run = _Run(folder, sizes, documents, own_tokens, quiet)
    if not run.directory.is_done(FOLDER):
        run.directory.mark(FOLDER, write_atlas(_results(run, sizes), run.directory.path / FOLDER))
    return run.directory.path / FOLDER


class _Run(Run):
    """One without a model. Its tokens are on disk."""

    def __init__(
        self,
        directory: Path | str,
        sizes: Sizes,
        documents: Sequence[Document] | None,
        own_tokens: Sequence[str],
        quiet: bool,
    ):
        digest = hashlib.blake2b(repr((documents, own_tokens)).encode(), digest_size=8).hexdigest()
        settings = Settings.of(
            model=f"synthetic: {', '.join(f'{name} {size}' for name, size in sizes._asdict().items())}",
            corpus="the Python installation" if documents is None else f"given: {digest}",
            max_sequences=sizes.n_sequences,
            seq_len=sizes.seq_len,
            keep=sizes.n_examples,
            examples=sizes.n_examples,
        )
        super().__init__(directory, settings, quiet=quiet)
        self._are_compared, self._dimensions, self._given, self._own_tokens = True, sizes, documents, own_tokens

    @functools.cached_property
    def loaded(self) -> Any:
        """No model, but its tokenizer."""
        sizes = self._dimensions
        texts = (text for _, text in self._documents)
        tokenizer = train_tokenizer(texts, vocab_size=sizes.vocab_size, n_positions=sizes.seq_len)
        tokenizer.add_tokens(list(self._own_tokens))
        self.directory.manifest["model"] = {"name": self.settings.model.name, "fingerprint": "0" * 32}
        return SimpleNamespace(tokenizer=tokenizer)

    @functools.cached_property
    def _documents(self) -> Sequence[Document]:
        if self._given is not None:
            return self._given
        return python_installation(8 * self._dimensions.n_sequences * self._dimensions.seq_len)


def _results(run: Run, sizes: Sizes) -> Results:
    """Everything that a model would have found; a layer's features are made when they are asked for."""
    shards = TOKENS.of(run)
    sequences = shards.take(np.arange(shards.n_sequences))
    places = drawn.places_of_kinds(sequences.tokens, run.peak_rule.allowed_in(sequences))
    rows = np.stack([drawn.places_of_neurons(i, places, sizes.d_mlp, sizes.n_examples) for i in range(sizes.n_layers)])
    chosen, n_tokens = drawn.examples_at(places, rows), int(run.sizes[1].sum())
    inputs = _inputs(chosen, rows, sequences, len(places) * drawn.N_PLACES, n_tokens, sizes)
    layers = [_features(run, inputs, layer, len(places)) for layer in range(sizes.n_layers)]
    n_features = sum(len(features.min_similarity) for features in layers)
    run.directory.manifest["stages"]["inputs"] = {"examples": int((rows >= 0).sum())}
    return Results(
        manifest=run.directory.manifest,
        tokenizer=run.loaded.tokenizer,
        sequences=shards,
        collection=_collection(chosen, n_tokens),
        inputs=inputs,
        features=Layers(sizes.n_layers, layers.__getitem__),
        similar=Similar(**drawn.similar_features(n_features, run.settings.similar.n, sizes.n_examples)),
        importance=None,
        census=None,
    )


def _collection(chosen: Chosen, n_tokens: int) -> Collection:
    rng, shape = np.random.default_rng(1), chosen.sequence.shape[:2]
    variance = rng.uniform(0.01, 0.2, shape)
    powers = [n_tokens * variance**power * (1 + rng.random(shape)) for power in (1, 1.5, 2)]
    moments = np.full(shape, n_tokens), rng.normal(0, 0.05, shape), *powers
    examples = np.where(chosen.sequence >= 0, chosen.activation, -np.inf), chosen.sequence, chosen.position
    fields: tuple[Any, ...] = (
        TopExamples(*map(jnp.asarray, examples)),
        jnp.asarray(rng.integers(1, n_tokens + 1, shape, np.int32)),
        Moments(*(jnp.asarray(field, jnp.float32) for field in moments)),
    )
    return Collection(*jax.tree.map(np.asarray, fields))


def _inputs(chosen: Chosen, rows: np.ndarray, sequences: Sequences, n_inputs: int, n_tokens: int, of: Sizes) -> Inputs:
    some = np.linspace(0, n_inputs - 1, N_REFERENCE).astype(int)
    n_kinds = n_inputs // drawn.N_PLACES
    return Inputs(
        chosen=chosen,
        repeats_left_out=np.zeros(rows.shape[:2], np.int32),
        input_of=rows,
        n_distinct=np.full(of.n_layers, n_inputs),
        reference=np.stack([drawn.inputs_of_kinds(layer, n_kinds, of.d_model)[some] for layer in range(of.n_layers)]),
        window=drawn.windows_around(chosen, sequences),
        histogram=drawn.histograms(of.n_layers, of.d_mlp, min(MOST_TOKENS, n_tokens)),
        lowest_activation=np.full((of.n_layers, of.d_mlp), -0.17, np.float32),
    )


def _features(run: Run, inputs: Inputs, layer: int, n_kinds: int) -> Features:
    """A layer's neurons, clustered as in any run; their weights are drawn."""
    _, d_mlp, n_examples = inputs.input_of.shape
    n_layers, _, d_model = inputs.reference.shape
    w_in = np.random.default_rng(0).standard_normal((n_layers, d_model, d_mlp), np.float32)[layer]
    split = LayerClusterer(
        n_inputs=int(inputs.n_distinct.max()),
        n_examples=n_examples,
        d_model=d_model,
        clustering=run.settings.clustering,
        chunk_mib=run.chunk_mib,
    )
    reference = inputs.reference[layer]
    of_layer = drawn.inputs_of_kinds(layer, n_kinds, d_model)
    found = split(of_layer, inputs.input_of[layer], reference, w_in, layer)
    features, facts = features_of_layer(*found, reference, w_in, has_height=True)
    run.directory.manifest["stages"][f"features-{layer:02d}"] = facts
    return features
