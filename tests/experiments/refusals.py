"""What a script says to many wrong command lines, in one process: most of a process's time is spent on imports.

    python refusals.py SCRIPT '[["--flag=1", "--other=2"], ["--flag=3"]]'

Prints one line of JSON: the message for each, or null where the script would have gone on to the end.
"""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def refusals(script: str, command_lines: list[list[str]]) -> list[str | None]:
    """The messages of a script in `experiments/`."""
    result = subprocess.run(
        [sys.executable, __file__, script, json.dumps(command_lines)],
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'experiments'}", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])


def main(script: str, command_lines: list[list[str]]) -> None:
    """Give the script one command line after the other."""
    from absl import flags
    from absl.testing import flagsaver

    from nejax.errors import UserError

    module, said = importlib.import_module(script), []
    for arguments in command_lines:
        with flagsaver.flagsaver():
            flags.FLAGS([script, *arguments])
            try:
                module.main([script])
            except UserError as error:
                said.append(str(error))
            else:
                said.append(None)
    print(json.dumps(said))


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
