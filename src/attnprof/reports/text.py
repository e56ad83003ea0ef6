"""Text that is safe on a terminal and fits it."""

from __future__ import annotations

import textwrap


def printable(text: str) -> str:
    """The text with control and invisible characters written out as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def shortened(text: str, width: int, *, tail: int = 0) -> str:
    """The text cut to ``width`` characters, an ellipsis where ``tail`` characters are left."""
    if len(text) <= width:
        return text
    return f"{text[: max(width - 1 - tail, 0)]}…{text[len(text) - tail :]}"


def wrapped(text: str, width: int) -> list[str]:
    """Prose as lines of at most ``width`` characters, the second and later ones indented."""
    lines = textwrap.wrap(text, width, subsequent_indent="  ", break_on_hyphens=False)
    return lines or [""]
