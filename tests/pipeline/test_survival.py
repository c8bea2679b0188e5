"""A second command on a whole run that another process works on."""

import fcntl
import os

import pytest
from whole_runs import Command

pytestmark = pytest.mark.slow


def test_a_second_command_on_a_run_at_work_is_refused(tmp_path):
    command = Command(tmp_path)
    base = command.folder / "base"
    base.mkdir()
    (base / "manifest.json").write_text('{"format": 2, "settings": {}, "stages": {}}')
    before = (base / "manifest.json").read_bytes()
    directory = os.open(base, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        status, said = command.end("base")
    finally:
        os.close(directory)
    assert status == 2 and said.splitlines()[-1].startswith(f"error: another process is working on {base}; wait")
    assert said.count("error: ") == 1 and "Traceback" not in said
    assert (base / "manifest.json").read_bytes() == before
