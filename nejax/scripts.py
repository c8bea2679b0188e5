"""How a script reads its flags, shows its help, and ends."""

import io
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from absl import app, flags

from nejax.errors import UserError
from nejax.setting import Group, Setting, settings_in

_WIDTH = 100
_GROUPS: list[tuple[int, str]] = [(len(flags.FLAGS), "Flags")]
"""How many flags there were before those of a subject, and the subject. The first are of absl itself."""

_SETTINGS: dict[str, Setting] = {}
"""The settings that have a flag, by name."""

_arguments: list[str] = []
"""What was left of the command line, once it is read."""


def subject(title: str) -> None:
    """What the flags that are defined from here on are about; the help shows them together."""
    _GROUPS.append((len(flags.FLAGS), title))


def setting_flags(group: type[Group], *names: str, **defaults: Any) -> None:
    """Define the flags of a group of settings, under the group's subject; or of some, under what is the subject now.

    Args:
        group: what holds them.
        names: which of them, in this order; none: all.
        defaults: of some, where they are not the group's. A setting that has a default may be None all the same: 0 on
            the command line, see `setting_values`.
    """
    if not names:
        subject(group.SUBJECT)
    known = {one.name: one for one in settings_in(group)}
    for name in names or known:
        one = known[name]
        _SETTINGS[name] = one
        default, about = defaults.get(name, one.default), flagged(one.help)
        if one.choices:
            flags.DEFINE_enum(name, default, list(one.choices), about)
        else:
            _KINDS[one.kind](name, default, about)


_KINDS: dict[type, Callable[..., Any]] = {
    bool: flags.DEFINE_bool,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
}


def setting_values() -> dict[str, Any]:
    """The values of all settings that have a flag, by name; 0 stands for None where that is not the default."""
    return {name: _value_of(one) for name, one in _SETTINGS.items()}


def _value_of(one: Setting) -> Any:
    value = flags.FLAGS[one.name].value
    return None if value == 0 and one.is_optional and one.default is not None else value


def own_flags(script: str) -> dict[str, Any]:
    """The values of the flags that a script defines, those of settings among them, by name.

    Args:
        script: the name it was started by, `argv[0]`.
    """
    own = [flag for module in (script, __name__) for flag in flags.FLAGS.get_key_flags_for_module(module)]
    return {flag.name: flag.value for flag in own}


def flagged(text: UserError | str) -> str:
    """An error, or a text with names of settings in braces, as the user of a command line reads it."""
    error = text if isinstance(text, UserError) else UserError("", text)
    return error.said(lambda name: f"--{name}")


def read_flags(*expected: str) -> None:
    """Read the command line, before a script imports what takes seconds: help and mistakes end here.

    Args:
        expected: what must be given besides flags, each a name, or the words to choose from joined by `|`. `"..."`
            alone: anything.
    """
    _read(sys.argv, expected)


def run_script(main: Callable[[list[str]], None], *, what_is_left: str = "") -> None:
    """Run an absl `main`. Errors that a user can cause end in one line on standard error, without a traceback.

    The exit status is 2 after a `UserError` or a flag that cannot be read, and 130 after Ctrl-C.

    Args:
        main: what the script does.
        what_is_left: said after Ctrl-C. By default, that the same command resumes where this one stopped.
    """

    def guarded(arguments: list[str]) -> None:
        try:
            main(arguments)
        except UserError as error:
            _end(f"error: {flagged(error)}", 2)
        except KeyboardInterrupt:
            _end(f"interrupted; {what_is_left or 'the same command resumes where this one stopped'}", 130)

    app.run(guarded, flags_parser=lambda argv: _arguments if flags.FLAGS.is_parsed() else _read(argv, ("...",)))


def _read(argv: list[str], expected: tuple[str, ...]) -> list[str]:
    global _arguments
    for stream in (sys.stdout, sys.stderr):  # a terminal that cannot show a character shows its number
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    n_flags = len(flags.FLAGS)
    app.define_help_flags()
    if {"--help", "-help", "-h", "-?"} & set(argv[1 : argv.index("--") if "--" in argv else None]):
        print(_help(argv[0], expected, n_flags))
        sys.exit(0)
    try:
        _arguments = flags.FLAGS(argv)
        for one in _SETTINGS.values():
            one.check(_value_of(one))
    except flags.Error as error:
        _end(f"error: {error}; --help lists the flags", 2)
    except UserError as error:
        _end(f"error: {flagged(error)}", 2)
    given = _arguments[1:]
    if expected != ("...",) and not _fit(given, expected):
        command = " ".join([Path(argv[0]).name, *given])
        _end(f"error: {command}: expected {' '.join(expected) or 'flags alone'}; --help lists the flags", 2)
    return _arguments


def _fit(given: list[str], expected: tuple[str, ...]) -> bool:
    if len(given) != len(expected):
        return False
    return all("|" not in words or word in words.split("|") for word, words in zip(given, expected, strict=True))


def _help(script: str, expected: tuple[str, ...], n_flags: int) -> str:
    """The script's docstring, and its flags by subject."""
    names = list(flags.FLAGS)[:n_flags]
    ends = [*(start for start, _ in _GROUPS[1:]), n_flags]
    parts = [(sys.modules["__main__"].__doc__ or "").strip(), " ".join([f"{script} [flags]", *expected])]
    for (start, title), end in zip(_GROUPS, ends, strict=True):
        if end > start:
            parts.append("\n".join([f"{title}:", *(_entry(flags.FLAGS[name]) for name in names[start:end])]))
    return "\n\n".join(parts)


def _entry(flag: flags.Flag[Any]) -> str:
    name = f"--[no]{flag.name}" if flag.boolean else f"--{flag.name}"
    default = "" if flag.default is None else f" ({(flag.default_as_str or '').strip(chr(39)) or 'empty'})"
    text = textwrap.fill(" ".join((flag.help or "").split()), _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return f"  {name}{default}\n{text}"


def _end(line: str, status: int) -> NoReturn:
    print(" ".join(line.split()), file=sys.stderr)
    sys.exit(status)
