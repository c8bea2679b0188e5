"""The explorer's shards of the small run."""

import pytest

from nejax.atlas.explorer.shards import Shards
from nejax.atlas.files import AtlasFiles
from nejax.pipeline.stages import Run


@pytest.fixture(scope="session")
def shards(run: Run) -> Shards:
    """Of the small run's atlas."""
    return Shards(AtlasFiles(run.directory.path / "atlas"))
