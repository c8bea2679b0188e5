"""A finished run takes on a stage that it lacks."""

import pytest

from nejax.errors import UserError
from nejax.pipeline.run.settings import Settings
from nejax.pipeline.stages.run import Run


def test_settings_of_a_stage_that_is_not_done_may_change(tmp_path):
    """What was made of all stages is rebuilt. Once the stage is done, its settings are settled."""
    settings = Settings()
    directory = Run(tmp_path, settings.but(similar=0), quiet=True).directory
    for stage in ("tokens", "atlas", "plots"):
        directory.mark(stage, {})
    del directory
    run = Run(tmp_path, settings, quiet=True)
    assert run.directory.manifest["settings"]["similar"] == settings.similar.n
    assert [*run.directory.manifest["stages"]] == ["tokens"]
    run.directory.mark("similar", {})
    with pytest.raises(UserError, match=f"similar is {settings.similar.n} there and 0 now"):
        Run(tmp_path, settings.but(similar=0), quiet=True)


def test_how_neurons_are_clustered_may_change_until_a_layer_is_done(tmp_path):
    directory = Run(tmp_path, Settings(), quiet=True).directory
    for stage in ("tokens", "collect", "inputs"):
        directory.mark(stage, {})
    del directory
    run = Run(tmp_path, Settings.of(clustering="kmeans", n_clusters=3), quiet=True)
    run.directory.mark("features-00", {})
    del run
    with pytest.raises(
        UserError, match='clustering is "kmeans" there and "average" now; n_clusters is 3 there and null'
    ):
        Run(tmp_path, Settings(), quiet=True)
