"""Text that is safe on a terminal and fits it."""

from __future__ import annotations

import re
import shutil
import textwrap
import unicodedata

#: The width where no terminal says its own (a pipe, a file), and the least that a text is made for.
_WIDTH, _NARROWEST = 120, 40
#: The space between a number and its unit or prefix: ``8 k``, ``2.61 GB``, ``9.83 ms``.
_BEFORE_UNIT = re.compile(r"(?<=\d) (?=([kMGTPEZYRQ]i?)?(B|FLOP|MAC|Hz)\b|[kMGTPEZYRQ]\b|[mµn]?s\b)")
_FIRM = "\N{NO-BREAK SPACE}"
#: A character that no printable text has.
_FILL = "\ue000"


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


def cells(text: str) -> int:
    """How many columns of a terminal the text takes: wide characters two, those that combine with others none."""
    return len(text) if text.isascii() else sum(map(_cells, text))


def _cells(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def padded(text: str, width: int) -> str:
    """The text with spaces after it, up to ``width`` columns."""
    return text + " " * (width - cells(text))


def shortened(text: str, width: int, *, tail: int = 0) -> str:
    """The text cut to ``width`` columns, an ellipsis where ``tail`` columns are left."""
    if cells(text) <= width:
        return text
    return f"{_beginning(text, max(width - 1 - tail, 0))}…{_beginning(text[::-1], tail)[::-1]}"


def _beginning(text: str, width: int) -> str:
    """As many characters as have room."""
    if text.isascii():
        return text[:width]
    used = 0
    for position, character in enumerate(text):
        used += _cells(character)
        if used > width:
            return text[:position]
    return text


def wrapped(text: str, width: int, indent: str = "  ") -> list[str]:
    """Prose as lines of at most ``width`` characters, units beside their numbers, all lines but the first indented."""
    # textwrap counts characters: what takes two columns is two while it wraps, and may be parted at a line's end.
    wide = sorted({c for c in text if _cells(c) == 2})
    text = _BEFORE_UNIT.sub(_FIRM, text).translate({ord(c): f"{_FILL}{c}" for c in wide})
    room = width - 1 if wide else width
    lines = textwrap.wrap(text, room, subsequent_indent=indent, break_on_hyphens=False)
    return [line.replace(_FIRM, " ").replace(_FILL, "") for line in lines] or [""]
