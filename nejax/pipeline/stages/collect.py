"""The stage `collect`: every neuron's best K examples, its firing count and the moments of its activation."""

import contextlib
from collections.abc import Iterator

import jax

from nejax.pipeline.corpus.sequences import ahead
from nejax.pipeline.corpus.windows import Sequences
from nejax.pipeline.passes.collect import Collection, collect
from nejax.pipeline.run.directory import stop_on_full_disk
from nejax.pipeline.stages.run import Run
from nejax.pipeline.stages.stage import Facts, Stage
from nejax.pipeline.stages.tokens import TOKENS


def _collect(run: Run) -> tuple[Collection, Facts]:
    """Sequences that are not there yet are cut while the model reads those before."""
    if jax.process_count() > 1:
        TOKENS.finish(run)
    s, shards, model = run.settings, run.sequences, run.loaded.model
    with (
        run.bar("collect", lambda: shards.expected_tokens(s.corpus.max_sequences), "tokens") as advance,
        run.products(),
        stop_on_full_disk(run.directory.path),
        contextlib.ExitStack() as reading,
    ):

        def pieces(start: int) -> Iterator[Sequences]:
            advance(shards.tokens_before(start))
            return reading.enter_context(ahead(shards.stream(start)))

        found = collect(
            model,
            pieces,
            keep=s.examples.keep,
            rule=run.peak_rule,
            batch_size=run.batch_size,
            mesh=run.mesh,
            progress=advance,
            checkpoints=run.checkpoints("collect"),
        )
    return found, {"peakable_tokens": int(run.sizes[1].sum())}


COLLECT = Stage(name="collect", result=Collection, work=_collect)
