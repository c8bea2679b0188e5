"""The one kind of error that a user can cause."""

import re
from collections.abc import Callable

_NAME = re.compile(r"\{\{|\}\}|\{(\w+)\}")


class UserError(ValueError):
    """An error that a user can fix: one line that says what was wrong, what was expected, and how to fix it.

    Args:
        message: what was wrong, and what was expected.
        mend: how to fix it. Settings that it names stand in braces, `"use {precision}=float32"`: whoever says it knows
            what they are called; a command line has dashes before them. (A brace that is meant is written twice.)

    Example:
        >>> nejax.silhouette(1 - np.eye(6), labels=[0, 0, 1])
        Traceback (most recent call last):
        nejax.errors.UserError: labels have shape (3,); expected [n] with n = 6, as in distances
    """

    def __init__(self, message: str, mend: str = ""):
        super().__init__(message, mend)
        self.template = "; ".join(filter(None, (literal(message), mend)))
        """The line, with the names of settings in braces."""

    def said(self, named: Callable[[str], str] = str) -> str:
        """The line.

        Args:
            named: from the name of a setting to what its reader calls it.
        """
        return _NAME.sub(lambda found: named(found[1]) if found[1] else found[0][0], self.template)

    def __str__(self) -> str:
        return self.said()


class SettingError(UserError):
    """A value that a setting, or an argument of a function, cannot have.

    Args:
        setting: its name.
        value: what it was given.
        expected: what it may be; other settings stand in braces, as in `mend`.
        mend: how to fix it, where that is not plain.

    Example:
        >>> nejax.Settings.of(seq_len=2)
        Traceback (most recent call last):
        nejax.errors.SettingError: seq_len=2: expected at least 3
    """

    def __init__(self, setting: str, value: object, expected: str, mend: str = ""):
        ValueError.__init__(self, setting, value, expected, mend)
        self.setting, self.value, self.expected, self.mend = setting, value, expected, mend
        shown = f"{value:g}" if isinstance(value, float) else _decodable(str(value))
        line = f"{{{setting}}}={literal(shown)}: expected {expected}"
        self.template = "; ".join(filter(None, (line, mend)))


def refuse_undecodable(what: str, value: object) -> None:
    """Refuse a name that is not UTF-8: it cannot be shown, nor do all libraries find such a file.

    Raises:
        UserError: it is one; `what` says of what it is the name.
    """
    if not is_decodable(str(value)):
        raise UserError(f"{what}{str(value)!a} is not UTF-8; rename it, or name a folder or a link that is")


def is_decodable(text: str) -> bool:
    """Whether a text, which may be the name of a file, can be written in UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _decodable(text: str) -> str:
    return text if is_decodable(text) else ascii(text)


def literal(text: str) -> str:
    """A text for `expected` or `mend`, whose braces are meant."""
    return text.replace("{", "{{").replace("}", "}}")
