"""A small finished run, made once for all tests of the atlas."""

import json
import shutil
from pathlib import Path

import pytest
from base_runs import made_once
from small_run import make_corpus, make_model

from nejax.atlas.atlas import Atlas, open_atlas
from nejax.atlas.build import atlas_of
from nejax.pipeline.stages.run import Run, Settings


def make_sources(folder: Path) -> None:
    """A model and a corpus."""
    make_model(folder / "model")
    make_corpus(folder / "corpus")


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Of the small run, with its model and corpus."""
    folder = made_once(tmp_path_factory, "small-sources", make_sources)
    return Settings.of(model=str(folder / "model"), corpus=str(folder / "corpus"), seq_len=32, keep=16, examples=12)


def finished(factory: pytest.TempPathFactory, name: str, settings: Settings, base: Path | None = None) -> Run:
    """A run with its atlas, made once a session; of each process a copy.

    Args:
        base: a finished run, on which it goes on.
    """

    def make(folder: Path) -> None:
        if base:
            shutil.copytree(base, folder, dirs_exist_ok=True)
        atlas_of(Run(folder, settings, quiet=True))

    made = made_once(factory, name, make)
    run = Run(shutil.copytree(made, factory.mktemp("runs") / name), settings, quiet=True)
    atlas_of(run)
    return run


@pytest.fixture(scope="session")
def run(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The small run, with its atlas."""
    return finished(tmp_path_factory, "small", settings)


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
    asked = settings.but(importance=True, importance_examples=2, importance_window=6, census=True)
    return finished(tmp_path_factory, "full", asked, run.directory.path)


@pytest.fixture(scope="session")
def full_atlas(full_run: Run) -> Atlas:
    """Its atlas."""
    return open_atlas(full_run.directory.path)
