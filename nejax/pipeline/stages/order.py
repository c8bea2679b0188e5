"""All stages of a run, in their order: those of `Run`, then those that stand on the features."""

from nejax.pipeline.stages.census import census_stage
from nejax.pipeline.stages.importance import importance
from nejax.pipeline.stages.run import Run
from nejax.pipeline.stages.similar import similar


def finish(run: Run) -> None:
    """Run every stage that is asked for and not done."""
    settings = run.settings
    run.passport()
    for _ in run.features():
        pass
    for stage, wanted, work in (
        ("similar", settings.similar > 0, similar),
        ("importance", settings.importance, importance),
        ("census", settings.census, census_stage),
    ):
        if wanted and not run.directory.is_done(stage):
            work(run)
