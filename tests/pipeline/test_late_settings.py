"""A finished run takes on a stage that it lacks."""

import dataclasses

import pytest

from nejax.errors import UserError
from nejax.pipeline.run.settings import DECIDED_LATE, Settings
from nejax.pipeline.stages.run import Run


def test_settings_of_a_stage_that_is_not_done_may_change(tmp_path):
    """What was made of all stages is rebuilt. Once the stage is done, its settings are settled."""
    settings = Settings()
    directory = Run(tmp_path, dataclasses.replace(settings, similar=0), quiet=True).directory
    for stage in ("tokens", "atlas", "plots"):
        directory.mark(stage, {})
    del directory
    run = Run(tmp_path, settings, quiet=True)
    assert run.directory.manifest["settings"]["similar"] == settings.similar
    assert [*run.directory.manifest["stages"]] == ["tokens"]
    run.directory.mark("similar", {})
    with pytest.raises(UserError, match=f"similar is {settings.similar} there and 0 now"):
        Run(tmp_path, dataclasses.replace(settings, similar=0), quiet=True)


def test_a_setting_that_other_stages_read_is_not_among_them():
    fields = {field.name for field in dataclasses.fields(Settings)}
    assert fields >= set(DECIDED_LATE)
    late = ("similar", "min_similarity", "importance", "census", "padding_token")
    assert all(name.startswith(late) for name in DECIDED_LATE)
