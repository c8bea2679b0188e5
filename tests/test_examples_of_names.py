import pytest
from examples_of_names import OTHERS, failures_of


@pytest.mark.parametrize("name", OTHERS)
def test_the_example_of_each_public_name_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not "".join(failures_of(name))
