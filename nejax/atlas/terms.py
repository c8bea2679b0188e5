"""The searchable terms of a text: its words, the characters of scripts without spaces, and its signs."""

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

_UNSPACED = (
    "\u0e00-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf\u1b00-\u1b7f\u3005-\u3007\u3021-\u3029\u3031-\u303c"
    "\u3040-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\ua4cf\ua980-\ua9ff\uaa60-\uaadf\uf900-\ufaff"
    "\uff66-\uff9f\U0001aff0-\U0001b16f\U00020000-\U0003ffff"
)
"""Thai, Lao, Tibetan, Myanmar, Khmer, Tai, Javanese, Balinese, kana, Bopomofo, Han, Yi: written without spaces between
words. The pages have the same ranges, in `site/js/words.js`."""

_RUN = re.compile(rf"[{_UNSPACED}]|(?:(?![{_UNSPACED}])[^\W_])+")
_ONE = re.compile(f"[{_UNSPACED}]")
_SIGN = re.compile(r"\s{2,}|[^ ]")
_SHOWN = {"⏎": "\n", "␍": "\r", "⇥": "\t", "⍽": "\u00a0", "·": " ", "␡": "\x7f"}
_SHOWN |= {"⟨ZWSP⟩": "\u200b", "⟨BOM⟩": "\ufeff", "⟨LS⟩": "\u2028", "⟨PS⟩": "\u2029"}
_SHOWN |= {chr(0x2400 + code): chr(code) for code in range(0x20) if code not in (9, 10, 13)}
_SHOWN_SIGN = re.compile("|".join(map(re.escape, _SHOWN)) + "|⟨U\\+([0-9A-F]{4,6})⟩")


class Term(NamedTuple):
    """A word, a character of a script without spaces, or a sign, in a text."""

    text: str
    """As it is searched for: in lower case."""
    is_sign: bool
    at: int
    """Of a word or such a character: how many there are before it. Of a sign: how many characters."""
    start: int
    """Its first character in the text."""
    stop: int
    """The index after its last character in the text."""


def terms(text: str) -> Iterator[Term]:
    """The searchable terms of a text.

    Words are lower-cased runs of letters and digits: "It's naïve, 3.5%" has it, s, naïve, 3, 5. In scripts that are
    written without spaces each letter, digit or mark is one. Signs are all other characters, but for a single space
    between others.
    """
    count = end = 0
    for run in _RUN.finditer(text):
        start, stop = run.span()
        if _is_mere_sign(text[start:stop]):
            continue  # a sign of these scripts, which is read with what stands around it
        yield from _signs(text, end, start)
        for word in _folded_words(run[0]):
            yield Term(word, False, count, start, stop)
            count += 1
        end = stop
    yield from _signs(text, end, len(text))


def words(text: str) -> list[str]:
    """The words of a text and its characters of scripts without spaces, see `terms`."""
    return [term.text for term in terms(text) if not term.is_sign]


class Phrase(NamedTuple):
    """Terms to look for."""

    terms: list[str]
    offsets: list[int]
    """The offset of each from the first, in units of `Term.at`."""
    is_signs: bool
    is_prefix: bool
    """The last may be the beginning of a longer word."""


def readings(query: str) -> list[Phrase]:
    """The terms of a query: its words, whatever is between them; if it has none, its signs.

    A "*" at the end lets the last word be the beginning of a longer one. Signs that the explorer's pages show for
    invisible characters also match these: "⏎" is a line break, "·" a space.
    """
    asked = [_phrase(query.strip() or query, is_prefix=query.rstrip().endswith("*")), _phrase(hidden(query))]
    some = [phrase for phrase in asked if phrase.terms]
    return some[:1] if len(some) == 2 and (some[0].terms == some[1].terms or not some[1].is_signs) else some


def hidden(text: str) -> str:
    """A text with the signs for invisible characters replaced by these characters."""
    return _SHOWN_SIGN.sub(lambda sign: _SHOWN.get(sign[0]) or chr(min(int(sign[1], 16), 0x10FFFF)), text)


def _phrase(query: str, *, is_prefix: bool = False) -> Phrase:
    found = list(terms(query))
    some = [term for term in found if not term.is_sign] or found
    offsets = [term.at - some[0].at for term in some]
    is_signs = bool(some) and some[0].is_sign
    goes_on = is_prefix and bool(some) and not is_signs and not _ONE.match(some[-1].text)
    return Phrase([term.text for term in some], offsets, is_signs, goes_on)


def _signs(text: str, start: int, stop: int) -> Iterator[Term]:
    if stop - start == 1 and text[start] == " ":
        return
    for sign in _SIGN.finditer(text, start, stop):
        for at in range(*sign.span()):
            yield Term(text[at], True, at, at, at + 1)


def _is_mere_sign(run: str) -> bool:
    return len(run) == 1 and not run.isalnum() and unicodedata.category(run)[0] != "M"


def _folded_words(run: str) -> list[str]:
    """The words of a run: more than one where lower case takes a letter apart."""
    lower = run.lower()
    if lower.isascii():
        return [lower]
    # Letters that have two lower cases, such as the two sigmas, are one.
    return ["".join(map(_folded, word)) for word in _RUN.findall(lower) if not _is_mere_sign(word)]


def _folded(letter: str) -> str:
    other = letter.upper().lower()
    return letter if letter == "ı" or len(other.encode("utf-16-le")) != len(letter.encode("utf-16-le")) else other
