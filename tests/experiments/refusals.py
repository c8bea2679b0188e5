"""What a script says to many wrong command lines, in one process: most of a process's time is spent on imports.

    python refusals.py SCRIPT '[["--flag=1", "--other=2"], ["--flag=3"]]'

Prints one line of JSON: the message for each, or null where the script would have gone on to the end. That a script
shows a message as one line with status 2 is for tests of whole processes.
"""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def refusals(script: str, command_lines: list[list[str]], cwd: Path | None = None) -> list[str | None]:
    """The messages of a script in `experiments/`, run in a folder: each is one line."""
    result = subprocess.run(
        [sys.executable, __file__, script, json.dumps(command_lines)],
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'experiments'}", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=cwd,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    said = json.loads(result.stdout.splitlines()[-1])
    assert not any("\n" in message for message in said if message)
    return said


def main(script: str, command_lines: list[list[str]]) -> None:
    """Give the script one command line after the other."""
    from absl import flags
    from absl.testing import flagsaver

    from nejax.errors import UserError

    module, said = importlib.import_module(script), []
    for arguments in command_lines:
        with flagsaver.flagsaver():
            try:
                module.main(flags.FLAGS([script, *arguments]))
            except (UserError, flags.Error) as error:
                said.append(str(error))
            else:
                said.append(None)
    print(json.dumps(said))


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
