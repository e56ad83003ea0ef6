"""Exceptions of the user's code, shown as the user's own."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from attnprof.core.errors import AttnprofError

#: Frames of files below this folder are ours and say nothing about the user's model.
_OURS = str(Path(__file__).resolve().parents[1])


class ExitedError(AttnprofError):
    """The user's code called ``sys.exit``."""


@contextmanager
def their_own(doing: str) -> Iterator[None]:
    """An exception of the user's code shows the user's frames, and the command ends with exit code 1."""
    try:
        yield
    except AttnprofError:
        raise
    except SystemExit as error:
        raise ExitedError(f"{doing} called sys.exit({error.code!r}).") from None
    except Exception as error:  # whatever a model may raise
        shown = traceback.TracebackException.from_exception(error)
        _hide_our_frames(shown, set())
        print("".join(shown.format()), end="", file=sys.stderr)
        raise typer.Exit(1) from None


def _hide_our_frames(shown: traceback.TracebackException, seen: set[int]) -> None:
    if id(shown) in seen:
        return
    seen.add(id(shown))
    kept = [f for f in shown.stack if not f.filename.startswith((_OURS, "<frozen importlib"))]
    shown.stack[:] = kept
    for other in (shown.__cause__, shown.__context__, *(getattr(shown, "exceptions", None) or ())):
        if other is not None:
            _hide_our_frames(other, seen)
