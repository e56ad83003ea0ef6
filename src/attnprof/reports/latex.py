"""Text and tables for LaTeX: what compiles with any engine, whatever a name has in it."""

from __future__ import annotations

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
#: The last letter of what every engine reads by itself: Latin with its accents, up to Latin Extended-A.
_LAST_LATIN = "\u017f"


def in_latex(text: str) -> str:
    """The text as LaTeX shows it; a character that not every engine has, as its escape: ``\\u4e2d``."""
    # two or three hyphens would become a dash
    return "".join(map(_escaped, printable(text))).replace("--", "-{}-").replace("--", "-{}-").replace("\0", "--")


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isascii() or (character.isalpha() and character <= _LAST_LATIN):
        return character
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
