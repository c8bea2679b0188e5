"""The one kind of error that a user can cause, and how a script ends on it."""

import sys
from collections.abc import Callable

from absl import app


class UserError(ValueError):
    """Something a user can mend: one line that says what was wrong, what was expected, and how to mend it."""


def run_script(main: Callable[[list[str]], None]) -> None:
    """Run an absl `main`; a `UserError` becomes one line on standard error and exit status 2, without a traceback."""

    def guarded(argv: list[str]) -> None:
        try:
            main(argv)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)

    app.run(guarded)
