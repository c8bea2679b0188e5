"""From a run to its atlas: the one place that runs the stages, writes, and marks the atlas as done."""

import sys
from pathlib import Path

from nejax.atlas.schema import FOLDER
from nejax.atlas.write import damage_of, write_atlas
from nejax.pipeline.run.processes import is_first
from nejax.pipeline.stages.order import finish, results_of
from nejax.pipeline.stages.run import Run


def atlas_of(run: Run) -> Path:
    """The atlas of a run; stages that are not done are run first.

    Args:
        run: its features are read layer by layer; no more than one layer's are held at once, nor more than one shard
            of its sequences. To find similar ones, the input of each feature's central example is held for a while.

    Returns:
        The atlas's folder, `atlas` in the run directory. If it is there already, only its digests are compared; where a
        file is damaged, that is said and all is written anew.

    Raises:
        UserError: of a stage; or the disk is full (what the run's stages have stored stays usable).
    """
    return run.mending(lambda: _atlas_of(run))


def _atlas_of(run: Run) -> Path:
    path = run.directory.path / FOLDER
    if run.is_done(FOLDER):
        damage = damage_of(path, run.directory.manifest["stages"][FOLDER])
        if not damage:
            return path
        print(str(run.directory.damaged(FOLDER, damage)).partition(";")[0] + ": rebuilding it", file=sys.stderr)
    if is_first():
        run.directory.mark(FOLDER, write_atlas(results_of(run), path))
    else:
        finish(run)
    return path
