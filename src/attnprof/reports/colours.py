"""Colours for a terminal that wants them: few, and none that says what the text does not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TextIO

_CODES = {"heading": "1", "faint": "2", "warning": "33", "compute": "32", "memory": "36", "launch": "35"}
_BOUNDS = ("compute", "memory", "launch")
_on: ContextVar[bool] = ContextVar("_on", default=False)


def wanted(stream: TextIO) -> bool:
    """Whether to colour what goes to this stream: on a terminal, unless the environment says otherwise.

    ``NO_COLOR`` forbids it (no-color.org); ``FORCE_COLOR`` and ``CLICOLOR_FORCE`` ask for it in a pipe too;
    ``CLICOLOR=0`` and ``TERM=dumb`` are a terminal without.
    """
    found = os.environ
    if found.get("NO_COLOR"):
        return False
    if any(found.get(name, "0") not in ("", "0") for name in ("FORCE_COLOR", "CLICOLOR_FORCE")):
        return True
    return stream.isatty() and found.get("TERM") != "dumb" and found.get("CLICOLOR") != "0"


@contextmanager
def coloured(on: bool) -> Iterator[None]:
    """Inside, text has colours, or none; outside it has none."""
    token = _on.set(on)
    try:
        yield
    finally:
        _on.reset(token)


def styled(text: str, style: str) -> str:
    """The text in a style, inside :func:`coloured`; as it is elsewhere, and where it is empty."""
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if text and _on.get() else text


def bound_of(cell: str) -> str:
    """The bound that a cell names, such as ``memory`` in ``memory 62%``; nothing for none."""
    word = (cell.split() or [""])[0]
    return word if word in _BOUNDS else ""
