"""A small finished run, made once for all tests of the atlas."""

import json
import shutil

import pytest
from small_run import make_corpus, make_model

from nejax.atlas.atlas import Atlas, open_atlas
from nejax.atlas.build import atlas_of
from nejax.pipeline.stages.run import Run, Settings


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Of the small run, with its model and corpus."""
    folder = tmp_path_factory.mktemp("sources")
    model, corpus = make_model(folder / "model"), make_corpus(folder / "corpus")
    return Settings.of(model=str(model), corpus=str(corpus), seq_len=32, keep=16, examples=12)


@pytest.fixture(scope="session")
def run(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The small run, with its atlas."""
    run = Run(tmp_path_factory.mktemp("runs") / "small", settings, quiet=True)
    atlas_of(run)
    return run


@pytest.fixture(scope="session")
def atlas(run: Run) -> Atlas:
    """The atlas of the small run."""
    return open_atlas(run.directory.path)


@pytest.fixture(scope="session")
def two_sided_run(settings: Settings, run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The small run as if its 64 units a layer were the sides of 32 neurons: units are units."""
    folder = tmp_path_factory.mktemp("runs") / "two-sided"
    shutil.copytree(run.directory.path, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["model"]["sides"] = 2
    del manifest["stages"]["atlas"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    two_sided = Run(folder, settings, quiet=True)
    atlas_of(two_sided)
    return two_sided


@pytest.fixture(scope="session")
def two_sided_atlas(two_sided_run: Run) -> Atlas:
    """Its atlas."""
    return open_atlas(two_sided_run.directory.path)


@pytest.fixture(scope="session")
def full_run(settings: Settings, run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The small run with everything that can be asked for: it takes on what the other one lacks."""
    folder = tmp_path_factory.mktemp("runs") / "full"
    shutil.copytree(run.directory.path, folder)
    asked = settings.but(importance=True, importance_examples=2, importance_window=6, census=True)
    full = Run(folder, asked, quiet=True)
    atlas_of(full)
    return full


@pytest.fixture(scope="session")
def full_atlas(full_run: Run) -> Atlas:
    """Its atlas."""
    return open_atlas(full_run.directory.path)
