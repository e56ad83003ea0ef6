"""The roofline plot as a file: PNG, SVG or PDF, the same bytes for the same run."""

from __future__ import annotations

import importlib
import io
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnprof.analysis.report import Report
from attnprof.core.device import DeviceSpec
from attnprof.core.errors import AttnprofError
from attnprof.reports.files import check_writable, write_bytes
from attnprof.reports.ours import PROGRAM

if TYPE_CHECKING:
    from attnprof.analysis.roofline import Roofline

#: What a file of each kind says of itself: what made it, neither when nor by which version.
_METADATA: dict[str, dict[str, str | None]] = {
    ".png": {"Software": PROGRAM},
    ".svg": {"Date": None, "Creator": PROGRAM},
    ".pdf": {"CreationDate": None, "Creator": PROGRAM, "Producer": None},
}
#: More panels are too small to read.
_MOST = 9


def check(path: str | os.PathLike[str], devices: Sequence[DeviceSpec]) -> Path:
    """The path, once it is clear that a plot of these devices can be written there; asked before a long run.

    Raises :class:`AttnprofError` for a suffix other than .png, .svg and .pdf, where nothing can be written,
    for no device, too many or one without a bandwidth, and where matplotlib is missing.
    """
    target = Path(path)
    if target.suffix.lower() not in _METADATA:
        given = f'not "{target.suffix}"' if target.suffix else f'and "{target}" ends in none of them'
        raise AttnprofError(f"a plot is a .png, .svg or .pdf file, {given}.")
    if not devices:
        raise AttnprofError("a roofline needs a device: name one, such as h100-sxm.")
    if len(devices) > _MOST:
        raise AttnprofError(f"a plot has room for {_MOST} devices, not for {len(devices)}: name fewer.")
    for device in devices:
        if not device.bandwidth_bytes_per_s:
            raise AttnprofError(
                f"{device.id} has no known bandwidth, so it has no roofline: --bandwidth RATE gives one."
            )
    try:
        importlib.import_module("matplotlib.figure")
    except ModuleNotFoundError:
        raise AttnprofError("plots need matplotlib: pip install 'attnprof[plot]'.") from None
    except (ImportError, ValueError) as error:  # a broken installation; a backend in MPLBACKEND that is none
        reason = str(error).strip().partition("\n")[0]
        raise AttnprofError(f"matplotlib cannot be loaded: {reason}") from None
    return check_writable(target)


def save(report: Report, rooflines: Sequence[Roofline], path: str | os.PathLike[str]) -> Path:
    """Draw the run below the roofs of its devices, one panel each, and write it to ``path``.

    The modules are the lowest rows of the table, equal layers folded: the area of each is its part of the
    time, its colour what bounds it. Errors are those of :func:`check`.
    """
    target = check(path, [roofline.device for roofline in rooflines])
    with _defaults():
        from attnprof.reports.plot_figure import draw
        from attnprof.reports.plot_panels import panels, title

        figure = draw(title(report), panels(report, rooflines))
        content = io.BytesIO()
        kind = target.suffix.lower()
        figure.savefig(content, format=kind[1:], metadata=_METADATA[kind])
    return write_bytes(target, content.getvalue())


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
