import re
import subprocess
import sys
from pathlib import Path

import pytest
from examples_of_names import OTHERS, failures_of

import nejax


@pytest.mark.slow  # and what they print is what users see: compiled as they do
@pytest.mark.parametrize("name", OTHERS)
def test_the_example_of_each_public_name_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not "".join(failures_of(name))


def test_what_the_readme_calls_is_made_by_public_names_alone():
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    python = "".join(re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL))
    used = set(re.findall(r"\bnejax\.(\w+)", python))
    assert len(used) > 20 and used <= set(nejax.__all__)
    undefined = [sys.executable, "-m", "ruff", "check", "--isolated", "--select=F821", "-"]
    done = subprocess.run(undefined, input=python, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
