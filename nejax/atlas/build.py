"""From settings to an atlas: the one place that runs the stages, writes, and marks the atlas as done."""

import sys
from pathlib import Path

from jax.sharding import Mesh

from nejax.atlas.atlas import Atlas, open_atlas
from nejax.atlas.schema import FOLDER
from nejax.atlas.write import damage_of, write_atlas
from nejax.pipeline.run.processes import is_first
from nejax.pipeline.run.settings import Settings
from nejax.pipeline.stages.order import finish, results_of
from nejax.pipeline.stages.run import Run


def build_atlas(
    directory: Path | str,
    settings: Settings | None = None,
    *,
    batch_size: int = 16,
    mesh: Mesh | None = None,
    quiet: bool = False,
) -> Atlas:
    """Split every neuron of a model into its features: the whole way from text to an atlas.

    It runs on all devices that JAX has, or on those of a mesh. On CPU JAX has one, unless more are asked for before it
    is first used (`jax.config.update("jax_num_cpu_devices", n)`); how many does not change the result.

    Args:
        directory: of the run, made if it is not there. What is done there is reused: a call that was interrupted goes
            on where it stopped, and one with settings of another last stage adds to what is there.
        settings: everything that decides the result. Default: `Settings()`, the bundled gpt2-tiny on Python's
            documentation.
        batch_size: sequences a pass of the model, on all devices together; does not change the result beyond rounding.
        mesh: the devices, see `nejax.pipeline.run.devices.mesh_of`; all of them, if None.
        quiet: show no progress bars.

    Returns:
        The atlas in `directory`, opened.

    Raises:
        UserError: the model or the corpus cannot be read; the directory holds something else, was made with other
            settings or of another model or other texts, or is in use; or the disk is full.

    Example:
        The demo's atlas is there, so that nothing is left to do:

        >>> settings = nejax.Settings.of(**nejax.open_atlas("runs/demo").manifest["settings"])
        >>> atlas = nejax.build_atlas("runs/demo", settings, quiet=True)
        >>> atlas.neuron(0, 3).features[0].examples[0].activation > 0
        True
    """
    return open_atlas(atlas_of(Run(directory, settings or Settings(), batch_size=batch_size, mesh=mesh, quiet=quiet)))


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
