"""The stage `passport`: how far this run's MLP inputs and activations are from float32's; in the manifest alone."""

import dataclasses
from typing import Any

from nejax.pipeline.passes.histogram import sample_sequences
from nejax.pipeline.passes.numerics import N_SEQUENCES, numerical_passport
from nejax.pipeline.stages.collect import COLLECT
from nejax.pipeline.stages.run import Run
from nejax.pipeline.stages.stage import AnyStage


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class NumericsStage(AnyStage):
    """Unlike others, it leaves no arrays."""

    def of(self, run: Run) -> dict[str, Any]:
        """The `sequences` that were compared, and of all `layers` the fields of `LayerPassport`."""
        self.finish(run)
        return run.directory.manifest["stages"][self.name]

    def finish(self, run: Run) -> None:
        """Compare, if that is not done."""
        run.mending(lambda: run.is_done(self.name) or self._compare(run))

    def _compare(self, run: Run) -> None:
        self._begin(run)
        s, model = run.settings, run.loaded.model
        numbers = sample_sequences(run.sizes[1], s.corpus.seq_len, s.seed)[:N_SEQUENCES]
        reference = model if s.model.precision == "float32" else run.load("float32").model
        sample = run.sequences.take(numbers)
        how = {"batch_size": run.batch_size, "precision": run.products, "mesh": run.mesh}
        layers = numerical_passport(model, reference, sample, **how)
        rounded = [{name: float(f"{value:.3g}") for name, value in layer._asdict().items()} for layer in layers]
        run.directory.mark(self.name, {"sequences": numbers.tolist(), "layers": rounded})


NUMERICS = NumericsStage(name="passport", needs=(COLLECT,))
