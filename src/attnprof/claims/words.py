"""The words of a claim: numbers, names, signs, raised digits. Text is taken apart here, and never run."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from attnprof.core.errors import AttnprofError, closest

Kind = Literal["number", "name", "function", "bound", "sign", "raised", "end"]

#: The longest text of a claim, and the most digits of a number in it.
LONGEST, DIGITS = 1000, 30
#: Functions by what people call them.
FUNCTIONS = {
    **{name: name for name in ("sqrt", "min", "max", "ceil", "floor", "log", "log2")},
    "ln": "log",
    "lg": "log2",
    "log₂": "log2",
    "ceiling": "ceil",
    "√": "sqrt",
}
#: Functions that people write without parentheses: ``N log N``.
BARE = ("log", "log2", "log₂", "sqrt", "ln")
#: Bounds by what people call them.
BOUNDS = {"O": "O", "Theta": "Θ", "Θ": "Θ", "Omega": "Ω", "Ω": "Ω", "\N{MATHEMATICAL SCRIPT CAPITAL O}": "O"}
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_SIGNS = {"·": "*", "×": "*", "⋅": "*", "∗": "*", "÷": "/", "−": "-", "–": "-", "^": "**"}  # noqa: RUF001
_WORD = re.compile(
    r"(?P<space>\s+)"
    r"|(?P<number>[0-9][0-9_]*(?:,[0-9]{3}(?![0-9]))*(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|\.[0-9]+)"
    r"|(?P<bound>[\N{MATHEMATICAL SCRIPT CAPITAL O}ΘΩ])"
    r"|(?P<name>log₂|√|[^\W\d⁰¹²³⁴⁵⁶⁷⁸⁹][^\W⁰¹²³⁴⁵⁶⁷⁸⁹]*)"
    r"|(?P<raised>[⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+)"
    r"|(?P<sign>\*\*|[-+*/^(),·×⋅∗÷−–⌈⌉⌊⌋])"  # noqa: RUF001
)


@dataclass(frozen=True, slots=True)
class Word:
    """One word and where it begins in the text."""

    kind: Kind
    text: str
    at: int


def split(text: str, symbols: Collection[str], also: Collection[str] = ()) -> list[Word]:
    """The words of a claim about these symbols, which ``also`` have other names; an ``end`` after the last.

    Letters without a sign between them are one symbol where there is one of that name, else the symbols they spell:
    ``Nd`` is N·d. Raises :class:`AttnprofError` for what is no word, no symbol, or too long.
    """
    if len(text) > LONGEST:
        raise AttnprofError(f"a claim has at most {LONGEST} characters; this one has {len(text):,}.")
    found: list[Word] = []
    at = 0
    while at < len(text):
        match = _WORD.match(text, at)
        if match is None:
            raise AttnprofError(f"claim '{text}' does not parse: {text[at]!r} at character {at + 1} has no meaning.")
        at = match.end()
        if match.lastgroup != "space":
            found += _words(str(match.lastgroup), match[0], match.start(), text, symbols, also)
    return [*found, Word("end", "the end", len(text))]


def _words(kind: str, word: str, at: int, text: str, symbols: Collection[str], also: Collection[str]) -> Iterator[Word]:
    known = {*symbols, *also}
    if kind == "number":
        if sum(c.isdigit() for c in word) > DIGITS or _power_of_ten(word) > DIGITS:
            raise AttnprofError(f"claim '{text}': a number has at most {DIGITS} digits.")
        yield Word("number", word.replace("_", "").replace(",", ""), at)
    elif kind == "raised":
        yield Word("raised", word.translate(_RAISED), at)
    elif kind == "sign":
        yield Word("sign", _SIGNS.get(word, word), at)
    elif kind == "bound" or (word in BOUNDS and word not in known and text[at + len(word) :].lstrip()[:1] == "("):
        yield Word("bound", BOUNDS[word], at)
    elif word in known:
        yield Word("name", word, at)
    elif word in FUNCTIONS:
        yield Word("function", FUNCTIONS[word], at)
    else:
        for name in _spelled(word, text, symbols, also):
            yield Word("name" if name in known else "function", FUNCTIONS.get(name, name), at)
            at += len(name)


def _power_of_ten(number: str) -> int:
    return abs(int(re.split("[eE]", number)[1])) if re.search("[eE]", number) else 0


def _spelled(word: str, text: str, symbols: Collection[str], also: Collection[str]) -> tuple[str, ...]:
    """The symbols, and functions, that letters spell: the one way to take them apart."""
    known = {*symbols, *also, *BARE}
    ways: list[list[tuple[str, ...]]] = [[()]]  # of the first letters, two at most: more say nothing new
    for end in range(1, len(word) + 1):
        here = [(*way, word[start:end]) for start in range(end) if word[start:end] in known for way in ways[start]]
        ways.append(here[:2])
    if not ways[-1]:
        raise AttnprofError(
            f"claim '{text}': there is no symbol {word!r}; there are {', '.join(symbols)}.{closest(word, symbols)}"
        )
    if len(ways[-1]) > 1:
        either, other = ("·".join(way) for way in ways[-1])
        raise AttnprofError(f"claim '{text}': {word!r} can be {either} or {other}: write the signs.")
    return ways[-1][0]
