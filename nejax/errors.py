"""The one kind of error that a user can cause, and how a script ends on it."""

import io
import sys
from collections.abc import Callable
from typing import NoReturn

from absl import app, flags


class UserError(ValueError):
    """Something a user can mend: one line that says what was wrong, what was expected, and how to mend it."""


def refuse_undecodable(what: str, value: object) -> None:
    """Refuse a name that is not UTF-8: it cannot be shown, nor do all libraries find such a file.

    Raises:
        UserError: it is one; `what` says of what it is the name.
    """
    try:
        str(value).encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{what}{str(value)!a} is not UTF-8; rename it, or name a folder or a link that is") from error


def run_script(main: Callable[[list[str]], None], *, what_is_left: str = "") -> None:
    """Run an absl `main`. What a user can cause ends in one line on standard error, without a traceback.

    The exit status is 2 after a `UserError` or a flag that cannot be read, and 130 after Ctrl-C.

    Args:
        main: what the script does.
        what_is_left: said after Ctrl-C. By default, that the same command goes on where this one stopped.
    """

    def parse(arguments: list[str]) -> list[str]:
        try:
            return flags.FLAGS(arguments)
        except flags.Error as error:
            _end(f"error: {error}; --help lists the flags", 2)

    def guarded(arguments: list[str]) -> None:
        try:
            main(arguments)
        except UserError as error:
            _end(f"error: {error}", 2)
        except KeyboardInterrupt:
            _end(f"interrupted; {what_is_left or 'the same command goes on where this one stopped'}", 130)

    for stream in (sys.stdout, sys.stderr):  # a terminal that cannot show a character shows its number
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    app.run(guarded, flags_parser=parse)


def _end(line: str, status: int) -> NoReturn:
    print(" ".join(line.split()), file=sys.stderr)
    sys.exit(status)
