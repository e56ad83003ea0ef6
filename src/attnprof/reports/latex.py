"""Text and tables for LaTeX: what compiles with any engine, whatever a name has in it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from attnprof.reports.text import printable

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\symbol{34}",  # babel makes letters of it
    "[": "{[}",  # at the start of a row they would belong to the end of the row before
    "*": "{*}",
    "–": "\0",  # which no printable text has
    "—": "\0-",
    "…": r"\dots{}",
    "·": r"\textperiodcentered{}",
    "×": r"$\times$",
    "\u2212": "$-$",
    "≈": r"$\approx$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "µ": r"$\mu$",
    **{c: f"\\{c}" for c in "&%$#_{}"},
}
#: The letters from U+03B1 on; the omicron is an o, and has no command.
_GREEK = (
    "alpha",
    "beta",
    "gamma",
    "delta",
    "epsilon",
    "zeta",
    "eta",
    "theta",
    "iota",
    "kappa",
    "lambda",
    "mu",
    "nu",
    "xi",
    "",
    "pi",
    "rho",
    "varsigma",
    "sigma",
    "tau",
    "upsilon",
    "phi",
    "chi",
    "psi",
    "omega",
)
_ESCAPES |= {chr(0x3B1 + i): f"$\\{name}$" if name else "o" for i, name in enumerate(_GREEK)}
_ESCAPES |= {"ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "ø": r"\o{}", "Ø": r"\O{}", "ł": r"\l{}", "Ł": r"\L{}"}
_ESCAPES |= {"œ": r"\oe{}", "Œ": r"\OE{}", "\u0131": r"\i{}"}
#: Accents that every encoding of fonts has, by the mark that Unicode takes a letter apart into.
_ACCENTS = {
    "\u0300": "`",
    "\u0301": "'",
    "\u0302": "^",
    "\u0303": "~",
    "\u0304": "=",
    "\u0306": "u",
    "\u0307": ".",
    "\u0308": '"',
    "\u030a": "r",
    "\u030b": "H",
    "\u030c": "v",
    "\u0327": "c",
}

#: What would become another character together with what follows: dashes, quotes, the marks of Spanish.
_LIGATURE = re.compile(r"-(?=-)|'(?=')|`(?=`)|,(?=,)|[?!](?=`)")


def in_latex(text: str) -> str:
    """The text as LaTeX shows it, in ASCII; a character that not every engine has, as its escape: ``\\u4e2d``."""
    return _LIGATURE.sub(r"\g<0>{}", "".join(map(_escaped, printable(text)))).replace("\0", "--")


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isascii():
        return character
    apart = unicodedata.normalize("NFD", character)
    if len(apart) == 2 and apart[0].isascii() and apart[0].isalpha() and apart[1] in _ACCENTS:
        return rf"\{_ACCENTS[apart[1]]}{{{apart[0]}}}"
    return _ESCAPES["\\"] + character.encode("unicode_escape").decode("ascii").removeprefix("\\")


def tabular(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A ``tabular`` with the rules of booktabs, of LaTeX as it is: the first column on the left, the others right."""
    columns = list(zip(headings, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    lines = [
        " & ".join([f"{row[0]:<{widths[0]}}", *(f"{c:>{w}}" for c, w in zip(row[1:], widths[1:], strict=True))])
        + r" \\"
        for row in (headings, *rows)
    ]
    begin = rf"\begin{{tabular}}{{l{'r' * (len(headings) - 1)}}}"
    return "\n".join([begin, r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule", r"\end{tabular}"])
