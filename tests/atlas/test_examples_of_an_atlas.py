import pytest
from examples_of_names import OF_AN_ATLAS, failures_of


@pytest.mark.parametrize("name", OF_AN_ATLAS)
def test_the_example_of_each_public_name_of_an_atlas_runs(name, run, tmp_path, monkeypatch):
    """The small run stands where the demo's would."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "demo").symlink_to(run.directory.path)
    assert not "".join(failures_of(name))
