"""The roofline plot as a file: PNG, SVG or PDF, the same bytes for the same run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attnprof.analysis.report import Report
from attnprof.core.device import DeviceSpec
from attnprof.core.errors import AttnprofError
from attnprof.reports import pictures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from attnprof.analysis.roofline import Roofline

#: More panels are too small to read.
_MOST = 9


def check(path: str | os.PathLike[str], devices: Sequence[DeviceSpec]) -> Path:
    """The path, once it is clear that a plot of these devices can be written there; asked before a long run.

    Raises :class:`AttnprofError` for a suffix other than .png, .svg and .pdf, where nothing can be written,
    for no device, too many or one without a bandwidth, and where matplotlib is missing.
    """
    pictures.check_suffix(path)
    if not devices:
        raise AttnprofError("a roofline needs a device: name one, such as h100-sxm.")
    if len(devices) > _MOST:
        raise AttnprofError(f"a plot has room for {_MOST} devices, not for {len(devices)}: name fewer.")
    for device in devices:
        if not device.bandwidth_bytes_per_s:
            raise AttnprofError(
                f"{device.id} has no known bandwidth, so it has no roofline: --bandwidth RATE gives one."
            )
    return pictures.check(path)


def save(report: Report, rooflines: Sequence[Roofline], path: str | os.PathLike[str]) -> Path:
    """Draw the run below the roofs of its devices, one panel each, and write it to ``path``.

    The modules are the lowest rows of the table, equal layers folded: the area of each is its part of the
    time, its colour what bounds it. Errors are those of :func:`check`.
    """
    target = check(path, [roofline.device for roofline in rooflines])

    def figure() -> Figure:
        from attnprof.reports.plot_figure import draw
        from attnprof.reports.plot_panels import panels, title

        return draw(title(report), panels(report, rooflines))

    return pictures.save(figure, target)
