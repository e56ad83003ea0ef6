"""Checks of the sizes a mechanism is made of; each failure is one sentence."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from attnprof.core.errors import AttnprofError, closest


def positive(**sizes: Any) -> None:
    """Raise unless every size is an integer above zero."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise AttnprofError(f"{name} must be a whole number above zero, not {size!r}.")


def divides(**pair: int) -> None:
    """Raise unless the second of two sizes divides the first: ``divides(d=768, H=12)``."""
    (whole, size), (part, by) = pair.items()
    positive(**pair)
    if size % by:
        raise AttnprofError(f"{part} must divide {whole}: {whole}={size} is no multiple of {part}={by}.")


def at_most(**pair: int) -> None:
    """Raise unless the second of two sizes is at most the first: ``at_most(E=8, k=2)``."""
    (most, bound), (name, size) = pair.items()
    positive(**pair)
    if size > bound:
        raise AttnprofError(f"{name} can be at most {most}: {name}={size} is more than {most}={bound}.")


def one_of(known: Collection[str], **choice: str) -> None:
    """Raise unless a choice is one of those there are: ``one_of(("relu", "gelu"), activation="gelu")``."""
    ((name, chosen),) = choice.items()
    if not isinstance(chosen, str) or chosen not in known:
        raise AttnprofError(f"{name} must be one of {', '.join(known)}, not {chosen!r}.{closest(str(chosen), known)}")
