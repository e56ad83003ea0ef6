"""The phases of a report, and which of a trace's each of them has."""

from __future__ import annotations

from attnprof.core.errors import AttnprofError, closest

#: In order. The creation of optimizer state is part of ``optimizer`` here.
PHASES = ("forward", "backward", "recompute", "optimizer", "other")
_INIT = "optimizer_init"


def shown(phase: str) -> str:
    """The phase of a report that has this phase of a trace."""
    return "optimizer" if phase == _INIT else phase


def parts(phase: str) -> tuple[str, ...]:
    """The phases of a trace in one of a report; ``optimizer_init`` is itself.

    Raises :class:`AttnprofError` for a phase that there is not: its costs would be zero.
    """
    if phase == _INIT:
        return (_INIT,)
    check(phase)
    return ("optimizer", _INIT) if phase == "optimizer" else (phase,)


def check(phase: str | None) -> None:
    """Raise :class:`AttnprofError` unless ``phase`` is one of a report, or None for all."""
    if phase is not None and phase not in PHASES:
        raise AttnprofError(f'no phase "{phase}": use {", ".join(PHASES)}.{closest(phase, PHASES)}')
