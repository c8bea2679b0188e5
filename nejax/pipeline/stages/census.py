"""The stage `census`: what every token of the corpus says of the features."""

import contextlib
from collections.abc import Iterator

import numpy as np

from nejax.pipeline.corpus.sequences import ahead
from nejax.pipeline.corpus.windows import Sequences
from nejax.pipeline.passes.census import Census, census
from nejax.pipeline.passes.thresholds import Checker, Reproduced
from nejax.pipeline.run.directory import digest_of, stop_on_full_disk
from nejax.pipeline.stages.collect import COLLECT
from nejax.pipeline.stages.features import FEATURES
from nejax.pipeline.stages.inputs import INPUTS, inputs_of_layer
from nejax.pipeline.stages.run import Run
from nejax.pipeline.stages.stage import Facts, Stage

PIECE = 1024
"""Sequences of a sample that are looked up at a time."""


def _census(run: Run) -> tuple[Census, Facts]:
    s, shards, model = run.settings, run.sequences, run.loaded.model
    minimum, n_features, directions, reproduced = _features_of_all(run)
    length = run.sizes[0]
    numbers = _sample(len(length), s.census.n_sequences, s.seed)
    length = length[numbers]
    counted = {
        "sequences": numbers,
        "minimum": minimum,
        "n_features": n_features,
        "directions": np.concatenate(directions),
    }
    with (
        run.bar("census", lambda: int(length.sum()), "tokens") as advance,
        run.products(),
        stop_on_full_disk(run.directory.path),
        contextlib.ExitStack() as reading,
    ):

        def pieces(start: int) -> Iterator[Sequences]:
            advance(int(length[:start].sum()))
            if s.census.n_sequences is None:
                return reading.enter_context(ahead(shards.stream(start)))
            return (shards.take(numbers[i : i + PIECE]) for i in range(start, len(numbers), PIECE))

        found = census(
            model,
            pieces,
            n_features=n_features,
            directions=directions,
            min_similarity=minimum,
            maximum=np.asarray(COLLECT.of(run).examples.activation[..., 0]),
            rule=run.peak_rule,
            batch_size=run.batch_size,
            mesh=run.mesh,
            progress=advance,
            checkpoints=run.checkpoints("census", digest_of(counted)),
        )
    facts = {
        "sequences": len(numbers),
        "tokens": int(found.n_tokens),
        "reproduced": round(reproduced.own / reproduced.examples, 4),
        "examples": reproduced._asdict(),
    }
    return found, facts


def _sample(n_sequences: int, n: int | None, seed: int) -> np.ndarray:
    """Numbers of the sequences to read, ascending: all, or some without replacement."""
    if n is None or n >= n_sequences:
        return np.arange(n_sequences)
    return np.sort(np.random.default_rng(seed).choice(n_sequences, size=n, replace=False))


def _features_of_all(run: Run) -> tuple[np.ndarray, np.ndarray, list[np.ndarray], Reproduced]:
    """Of all features the least similarity, [n_features]; of all neurons the number, [n_layers, d_mlp]; of each layer
    the directions; and what becomes of the examples."""
    of_all, features = INPUTS.of(run), FEATURES.of(run)
    known = [(found.label, found.directions, found.n_features, found.min_similarity) for found in features]
    _, directions, numbers, minimums = zip(*known, strict=True)
    check, counts = Checker(int(of_all.n_distinct.max()), max(map(len, directions)), run.mesh), []
    for layer, (label, *of_features) in enumerate(known):
        inputs, input_of = inputs_of_layer(run, layer), of_all.input_of[layer]
        counts.append(check(inputs, input_of, label, run.input_weights[layer], *of_features))
    reproduced = Reproduced(*np.sum(counts, axis=0).tolist())
    return np.concatenate(minimums), np.stack(numbers), list(directions), reproduced


CENSUS = Stage(
    name="census",
    needs=(FEATURES,),
    is_wanted=lambda settings: settings.census.wanted,
    result=Census,
    work=_census,
)
