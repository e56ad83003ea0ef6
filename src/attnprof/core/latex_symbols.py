"""Names of symbols in LaTeX's mathematics: whatever a program calls its sizes, it compiles."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

#: From capital alpha to small omega.
_GREEK = range(0x391, 0x3CA)
#: Greek letters that look like Latin ones, which LaTeX has no command for.
_LATIN = {"ALPHA", "BETA", "EPSILON", "ZETA", "ETA", "IOTA", "KAPPA", "MU", "NU", "OMICRON", "RHO", "TAU", "CHI"}


def symbol_in_latex(name: str) -> str:
    r"""A name of one letter in italics, of several upright, as one: ``T``, ``\mathrm{d\_model}``.

    Greek letters are Greek; other characters, which not every engine has, are escapes: ``\backslash u957f``.
    """
    whole = "".join(map(_character, name))
    return whole if is_letter(name) else rf"\mathrm{{{whole}}}"


def is_letter(name: str) -> bool:
    """Whether a product with this name needs no space beside it: it is one letter, and not an escape."""
    return len(name) == 1 and (name.isascii() or bool(_greek(name)))


def between_factors(names: Iterable[str]) -> str | None:
    """What parts the factors of a product: a thin space beside names of several letters; None, sympy's own."""
    return None if all(map(is_letter, names)) else r"\,"


def _character(character: str) -> str:
    if character == "_":
        return r"\_"
    if character.isascii():
        return character
    command = _greek(character)
    if command:
        return rf"{{\{command}}}"
    return rf"\backslash{{}}{character.encode('unicode_escape').decode('ascii').removeprefix(chr(92))}"


def _greek(character: str) -> str:
    """``gamma`` or ``Gamma``; empty for what is no letter that has a command."""
    words = unicodedata.name(character, "").replace("LAMDA", "LAMBDA").split()
    if ord(character) not in _GREEK or len(words) != 4:  # a fifth word is an accent
        return ""
    if character.islower():
        return "" if words[-1] == "OMICRON" else words[-1].lower()
    return "" if words[-1] in _LATIN else words[-1].capitalize()
