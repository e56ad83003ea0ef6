"""Text that is safe on a terminal and fits it."""

from __future__ import annotations

import re
import shutil
import textwrap

#: The width where no terminal says its own (a pipe, a file), and the least that a text is made for.
_WIDTH, _NARROWEST = 120, 40
#: The space between a number and its unit or prefix: ``8 k``, ``2.61 GB``, ``9.83 ms``.
_BEFORE_UNIT = re.compile(r"(?<=\d) (?=([kMGTPEZYRQ]i?)?(B|FLOP|MAC|Hz)\b|[kMGTPEZYRQ]\b|[mµn]?s\b)")
_FIRM = "\N{NO-BREAK SPACE}"


def width_of_terminal(wanted: int | None = None) -> int:
    """How many columns a text may have: so many as wanted, or as the terminal has."""
    return max(_NARROWEST, wanted or shutil.get_terminal_size((_WIDTH, 24)).columns)


def printable(text: str) -> str:
    """The text with control and invisible characters written out as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def in_markdown(text: str) -> str:
    """The text for a line or a cell of Markdown, shown as it is."""
    text = printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{c}" if c in "\\`*_[]|#~$" else c for c in text)


def shortened(text: str, width: int, *, tail: int = 0) -> str:
    """The text cut to ``width`` characters, an ellipsis where ``tail`` characters are left."""
    if len(text) <= width:
        return text
    return f"{text[: max(width - 1 - tail, 0)]}…{text[len(text) - tail :]}"


def wrapped(text: str, width: int, indent: str = "  ") -> list[str]:
    """Prose as lines of at most ``width`` characters, units beside their numbers, all lines but the first indented."""
    lines = textwrap.wrap(_BEFORE_UNIT.sub(_FIRM, text), width, subsequent_indent=indent, break_on_hyphens=False)
    return [line.replace(_FIRM, " ") for line in lines] or [""]
