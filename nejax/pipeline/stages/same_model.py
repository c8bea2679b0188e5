"""Refuse to go on with a run, or to show it, if it was made with another model."""

from pathlib import Path

from nejax.errors import UserError
from nejax.models.formats.files import listed, stamp_of
from nejax.models.formats.hub import NotOnHub
from nejax.models.loading import model_files
from nejax.models.sae.files import sae_files
from nejax.pipeline.run.directory import RunDirectory
from nejax.pipeline.run.sources import changed_files, describe_files, not_compared

_MODEL = "model"


def keep_model(directory: RunDirectory, fingerprint: str, model: str, sae: str | None = None) -> None:
    """Note which model, and which SAE on it, a run is made with.

    Args:
        directory: of the run.
        fingerprint: of what was loaded.
        model, sae: their names.
    """
    is_local = all(Path(name).expanduser().exists() for name in (model, sae) if name)
    files = describe_files(_files(model, sae))
    directory.sources.keep(_MODEL, {"fingerprint": fingerprint, "is_local": is_local, "files": files})


def refuse_other_model(directory: RunDirectory, model: str, sae: str | None = None) -> None:
    """Compare a model's files, and those of an SAE on it, with those that a run was made with.

    Raises:
        UserError: a file is gone, new or not what it was; each is named.
    """
    before = directory.sources.kept(_MODEL)
    if before is None:
        return not_compared("it is not known which model that was")
    try:
        files = _files(model, sae)
    except NotOnHub as error:
        if before["is_local"]:
            raise
        return not_compared(error)
    if changes := changed_files(files, before["files"]):
        raise UserError(
            f"{directory.path} was made with another model: fingerprint {before['fingerprint']} there, and of "
            f"{model if sae is None else f'{model} with {sae}'} now {listed(changes)}; use another directory"
        )
    stamps = {name: {**described, "stamp": stamp_of(files[name])} for name, described in before["files"].items()}
    if stamps != before["files"]:
        directory.sources.keep(_MODEL, before | {"files": stamps})


def _files(model: str, sae: str | None) -> dict[str, Path]:
    of_sae = {f"{Path(sae).name}/{name}": file for name, file in sae_files(sae).items()} if sae else {}
    return model_files(model) | of_sae
