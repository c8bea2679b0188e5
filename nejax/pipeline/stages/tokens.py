"""The stage `tokens`: documents cut into sequences, in stores `tokens-NNNN`."""

import dataclasses

from nejax.pipeline.corpus.sequences import STAGE, SequenceShards
from nejax.pipeline.run.processes import first_then_all, is_first
from nejax.pipeline.stages.run import Run
from nejax.pipeline.stages.stage import AnyStage


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TokensStage(AnyStage):
    """Unlike others, it may run while the next stage reads what it has so far."""

    def of(self, run: Run) -> SequenceShards:
        """All sequences. Of several processes, the first cuts them."""
        self.finish(run)
        return run.sequences

    def finish(self, run: Run) -> None:
        """Cut what is not there."""
        run.mending(lambda: run.is_done(STAGE) or first_then_all(lambda: _cut_all(run)))


def _cut_all(run: Run) -> None:
    if is_first():
        for _ in run.sequences.stream():
            pass
    else:
        run.directory.refresh()
        run.forget_sequences()


TOKENS = TokensStage(name=STAGE)
