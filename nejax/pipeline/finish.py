"""All stages of a run, in their order: those of `Run`, then those that stand on the features."""

from nejax.pipeline.similar import similar
from nejax.pipeline.stages import Run


def finish(run: Run) -> None:
    """Run every stage that is asked for and not done."""
    run.passport()
    for _ in run.features():
        pass
    if run.settings.similar and not run.directory.is_done("similar"):
        similar(run)
