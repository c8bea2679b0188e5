"""What a setting is: a field of a frozen dataclass that says what it means, and which values it may have.

What is refused, the flags of scripts and the tables of documents follow from it. Nothing heavy is imported.
"""

import dataclasses
import functools
import types
from typing import Any, ClassVar, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from nejax.errors import SettingError, is_decodable


class Interval(NamedTuple):
    """Numbers from one to another; `ends` says whether these are among them, as mathematics writes it."""

    low: float
    high: float
    ends: str = "[]"
    of: str = "a number"

    def has(self, value: int | float) -> bool:
        """Whether a number is in it; NaN is in none."""
        inside = self.low < value < self.high
        return inside or (value == self.low and self.ends[0] == "[") or (value == self.high and self.ends[1] == "]")

    def __str__(self) -> str:
        return f"{self.of} in {self.ends[0]}{self.low:g}, {self.high:g}{self.ends[1]}"


class Setting(NamedTuple):
    """All that is known of a setting."""

    name: str
    """What it is called wherever it stands alone: in flags, errors, manifests. No two settings have one name."""
    field: str
    """What it is called in its group."""
    default: Any
    kind: type
    """bool, int, float or str."""
    is_optional: bool
    """Whether it may be None."""
    choices: tuple[str, ...]
    """The words that it may be; empty: any."""
    help: str
    """What it decides, in a line or two. Other settings stand in braces, see `nejax.errors.UserError`."""
    at_least: int | None
    within: Interval | None
    mend: str

    def check(self, value: Any) -> None:
        """Refuse a value that it cannot have.

        Raises:
            SettingError: the value is of another type, out of range, or none of the choices.
        """
        expected = None if value is None and self.is_optional else self._expected(value)
        if expected:
            raise SettingError(self.name, value, expected, self.mend)

    def _expected(self, value: Any) -> str | None:
        """What was expected, if the value is not."""
        if self.choices:
            return None if value in self.choices else f"one of {', '.join(self.choices)}"
        accepted = (int, float) if self.kind is float else self.kind
        if not isinstance(value, accepted) or (isinstance(value, bool) and self.kind is not bool):
            return _TYPES[self.kind]
        if isinstance(value, str):
            return None if is_decodable(value) else "a name in UTF-8; rename it, or name a folder or a link that is"
        if self.at_least is not None and value < self.at_least:
            return f"at least {self.at_least}"
        return None if self.within is None or self.within.has(value) else str(self.within)


_TYPES = {bool: "True or False", int: "an integer", float: "a number", str: "a text"}


def setting(
    default: Any,
    help: str,
    *,
    name: str | None = None,
    at_least: int | None = None,
    within: Interval | None = None,
    mend: str = "",
) -> Any:
    """A field that is a setting; its type says whether it may be None, and which words it may be.

    Args:
        default: its value where no other is given.
        help: what it decides.
        name: where the field's own name says too little without that of the group.
        at_least: the least value of an integer.
        within: all values of a number.
        mend: what to do about a value that is refused.
    """
    known = {"name": name, "help": help, "at_least": at_least, "within": within, "mend": mend}
    return dataclasses.field(default=default, metadata={"setting": known})


@dataclasses.dataclass(frozen=True)
class Group:
    """Settings that belong together. What there is of it is valid: wrong values are refused when it is made."""

    SUBJECT: ClassVar[str] = ""
    """What they are about."""
    READ_BY: ClassVar[str | None] = None
    """The name of the only stage that reads them. While it is not done they may still change."""

    def __post_init__(self) -> None:
        for one in settings_in(type(self)):
            one.check(getattr(self, one.field))


@functools.cache
def settings_in(group: type[Group]) -> tuple[Setting, ...]:
    """The settings of a group, in their order."""
    types_of = get_type_hints(group)
    return tuple(
        _described(field, types_of[field.name]) for field in dataclasses.fields(group) if "setting" in field.metadata
    )


def _described(field: "dataclasses.Field[Any]", of: Any) -> Setting:
    of, is_optional = _without_none(of)
    choices = get_args(of) if get_origin(of) is Literal else ()
    known = dict(field.metadata["setting"])
    name = known.pop("name") or field.name
    kind = str if choices else of
    return Setting(name, field.name, field.default, kind, is_optional, choices, **known)


def _without_none(of: Any) -> tuple[Any, bool]:
    if get_origin(of) not in (Union, types.UnionType):
        return of, False
    (rest,) = (part for part in get_args(of) if part is not types.NoneType)
    return rest, True
