"""The errors attnprof raises on purpose: each message is one sentence a person can act on."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AttnprofError(Exception):
    """Something the user can correct; the message says what was wrong and what would be right."""


class TraceFormatError(AttnprofError):
    """A saved trace that cannot be read: missing, truncated, not ours, or of a newer schema."""


class UnpricedError(AttnprofError):
    """``strict`` was asked for and some op has no formula."""


class ConservationError(AttnprofError):
    """The tree's costs do not add up to the total: a defect in attnprof, never in the user's code."""


def closest(word: str, known: Iterable[str], count: int = 3) -> str:
    """`` Did you mean a, b?``, or nothing when no known word is close."""
    words = list(known)
    matches = difflib.get_close_matches(word, words, n=count, cutoff=0.6)
    matches = matches or difflib.get_close_matches(word.lower(), words, n=count, cutoff=0.6)
    return f" Did you mean {', '.join(matches)}?" if matches else ""
