"""All stages of a run, in their order: those of `Run`, then those that stand on the features."""

from nejax.pipeline.census import census_stage
from nejax.pipeline.importance import importance
from nejax.pipeline.similar import similar
from nejax.pipeline.stages import Run


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
