"""What the stages of a run left, as the named arrays of their stores."""

from nejax.pipeline.run.directory import Store
from nejax.pipeline.run.results import to_store
from nejax.pipeline.stages.features import FEATURES
from nejax.pipeline.stages.run import Run
from nejax.pipeline.stages.stage import Stage


def store_of(run: Run, stage: Stage) -> Store:
    """Of one stage, which is run if it is not done."""
    return to_store(stage.of(run))


def layers_of(run: Run) -> list[Store]:
    """Of the features, layer by layer."""
    return [to_store(features) for features in FEATURES.of(run)]
