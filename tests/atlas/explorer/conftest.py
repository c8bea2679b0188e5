"""The explorer's shards of the small run, and of one with all that an atlas may hold."""

import shutil

import pytest

from nejax.atlas.atlas import Atlas, open_atlas
from nejax.atlas.build import atlas_of
from nejax.atlas.explorer.shards import Shards
from nejax.atlas.files import AtlasFiles
from nejax.pipeline.stages.run import Run, Settings


@pytest.fixture(scope="session")
def shards(run: Run) -> Shards:
    """Of the small run's atlas."""
    return Shards(AtlasFiles(run.directory.path / "atlas"))


@pytest.fixture(scope="session")
def full_run(run: Run, settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The small run with token importance, of some examples and of fewer tokens than are shown, and a census."""
    with_all = settings.but(importance=True, importance_examples=2, importance_window=8, census=True)
    copy = shutil.copytree(run.directory.path, tmp_path_factory.mktemp("runs") / "full")  # what it found is reused
    full = Run(copy, with_all, quiet=True)
    atlas_of(full)
    return full


@pytest.fixture(scope="session")
def full_atlas(full_run: Run) -> Atlas:
    """Its atlas."""
    return open_atlas(full_run.directory.path)


@pytest.fixture(scope="session")
def full_shards(full_run: Run) -> Shards:
    """Its shards."""
    return Shards(AtlasFiles(full_run.directory.path / "atlas"))
