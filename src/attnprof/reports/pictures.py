"""Pictures as files: PNG, SVG or PDF, the same bytes for the same figure."""

from __future__ import annotations

import importlib
import io
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnprof.core.errors import AttnprofError
from attnprof.reports.files import check_writable, write_bytes
from attnprof.reports.ours import PROGRAM

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: What a file of each kind says of itself: what made it, neither when nor by which version.
_METADATA: dict[str, dict[str, str | None]] = {
    ".png": {"Software": PROGRAM},
    ".svg": {"Date": None, "Creator": PROGRAM},
    ".pdf": {"CreationDate": None, "Creator": PROGRAM, "Producer": None},
}


def check_suffix(path: str | os.PathLike[str]) -> Path:
    """The path; raises :class:`AttnprofError` for a suffix other than .png, .svg and .pdf."""
    target = Path(path)
    if target.suffix.lower() not in _METADATA:
        given = f'not "{target.suffix}"' if target.suffix else f'and "{target}" ends in none of them'
        raise AttnprofError(f"a plot is a .png, .svg or .pdf file, {given}.")
    return target


def check(path: str | os.PathLike[str]) -> Path:
    """The path, once it is clear that a picture can be written there; asked before a long run.

    Raises :class:`AttnprofError` for another suffix, where nothing can be written, and where matplotlib is missing.
    """
    target = check_suffix(path)
    try:
        importlib.import_module("matplotlib.figure")
    except ModuleNotFoundError:
        raise AttnprofError("plots need matplotlib: pip install 'attnprof[plot]'.") from None
    except (ImportError, ValueError) as error:  # a broken installation; a backend in MPLBACKEND that is none
        reason = str(error).strip().partition("\n")[0]
        raise AttnprofError(f"matplotlib cannot be loaded: {reason}") from None
    return check_writable(target)


def save(draw: Callable[[], Figure], path: str | os.PathLike[str]) -> Path:
    """Draw a figure and write it to ``path``. Errors are those of :func:`check`."""
    target = check(path)
    return write_bytes(target, drawn(draw, target.suffix.lower()))


def drawn(draw: Callable[[], Figure], kind: str) -> bytes:
    """The figure as a file of a kind (``.svg``)."""
    with _defaults():
        content = io.BytesIO()
        draw().savefig(content, format=kind[1:], metadata=_METADATA[kind])
    return content.getvalue()


@contextmanager
def _defaults() -> Iterator[None]:
    """matplotlib as it comes, whatever the user's settings say; they are put back at the end."""
    import matplotlib

    settings: Any = {
        name: value for name, value in matplotlib.rcParamsDefault.items() if not name.startswith("backend")
    }
    # Text as paths looks alike everywhere; ids that are hashed with a fixed word are equal in every run.
    settings |= {"svg.fonttype": "path", "svg.hashsalt": "attnprof", "pdf.fonttype": 42}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        yield
