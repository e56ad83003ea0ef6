"""A report with the forms that people read it in, and how it is kept in a file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from attnprof.analysis.report import Report as _Report
from attnprof.core import trace_json
from attnprof.core.device import DeviceSpec
from attnprof.core.errors import TraceFormatError
from attnprof.costs.pricing import with_user_prices
from attnprof.hardware.catalog import device
from attnprof.reports.files import write_text

#: A device by name, several with commas between, one as a value, or a list of either.
Devices = str | DeviceSpec | Sequence[str | DeviceSpec] | None


def specs(devices: Devices) -> tuple[DeviceSpec, ...]:
    """The devices that are named; raises :class:`AttnprofError` for one that is not known."""
    if devices is None:
        return ()
    if isinstance(devices, str):
        devices = [name.strip() for name in devices.split(",")]
    several = devices if isinstance(devices, Iterable) else [devices]
    return tuple(one if isinstance(one, DeviceSpec) else device(one) for one in several)


class Report(_Report):
    """What a run cost, with the forms people read it in. ``print(report)`` shows the table."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save the trace, with the prices of your own formulas, as JSON; :func:`load` reads it again."""
        write_text(Path(path), self.dumps())

    def dumps(self) -> str:
        """The text that :meth:`save` writes."""
        trace = replace(self.trace, signatures=[with_user_prices(op) for op in self.trace.signatures])
        return trace_json.dumps(trace) + "\n"

    def to_table(self, **options: Any) -> str:
        """The table as text; options as :func:`attnprof.reports.table.render`."""
        from attnprof.reports.table import render

        return render(self, **options)

    def to_tree(self, *, width: int | None = None, **options: Any) -> str:
        """The modules as ``print(model)`` shows them, with numbers; options as those of :meth:`to_table`."""
        from attnprof.reports.tree import to_tree
        from attnprof.reports.view import View

        return to_tree(self, View.of(**options), width)

    def to_markdown(self, **options: Any) -> str:
        """The layer table as Markdown; options as those of :meth:`to_table`."""
        from attnprof.reports.formats import to_markdown
        from attnprof.reports.view import View

        return to_markdown(self, View.of(**options))

    def to_latex(self, **options: Any) -> str:
        """The layer table as a LaTeX ``tabular`` with booktabs; options as those of :meth:`to_table`."""
        from attnprof.reports.formats import to_latex
        from attnprof.reports.view import View

        return to_latex(self, View.of(**options))

    def to_csv(self) -> str:
        """One line per module with plain integers."""
        from attnprof.reports.formats import to_csv

        return to_csv(self)

    def to_json(self) -> str:
        """Every number as JSON. To read a run again, :meth:`save` it instead."""
        from attnprof.reports.formats import to_json

        return to_json(self)

    def plot(self, path: str | os.PathLike[str], *, device: Devices = None) -> None:
        """Draw the roofline of each of the devices, or of those named here, as .png, .svg or .pdf.

        Raises :class:`AttnprofError` where no such file can be written, without a device, and without matplotlib.
        """
        from attnprof.reports.plot import save

        found = self.devices if device is None else specs(device)
        save(self, [self.roofline_on(one) for one in found], path)

    def to_html(self, path: str | os.PathLike[str], *, units: str = "decimal") -> None:
        """Write the report as one .html page, with charts, which opens in any browser and loads nothing.

        ``units`` as those of :meth:`to_table`, to begin with: a reader can choose others. Raises
        :class:`AttnprofError` for another suffix, where no such file can be written, and without plotly and jinja2.
        """
        from attnprof.core.units import Units
        from attnprof.reports.html.page import save

        save(self, path, Units.parse(units))

    def to_trace(
        self, path: str | os.PathLike[str], *, device: str | DeviceSpec | None = None, time: str | None = None
    ) -> None:
        """Write the run as a Chrome trace (.json or .json.gz) for ui.perfetto.dev.

        ``time`` is ``"attainable"``, the least of each op call on ``device`` or on the first of the report's, or
        ``"measured"``, that of the modules, whose op calls share it. Without it, time is measured where layers were
        timed, else attainable where there is a device; else op calls are in order, without time. Raises
        :class:`AttnprofError` for a time that the run does not have, and where no such file can be written.
        """
        from attnprof.reports.trace_events import save

        save(self, path, self._one(device), time)

    def to_flame(
        self, path: str | os.PathLike[str], weight: str = "flops", *, device: str | DeviceSpec | None = None
    ) -> None:
        """Write the run as stacks for flame graphs: collapsed (.txt, .folded, .collapsed) or for speedscope (.json).

        ``weight``: ``flops``, ``bytes``, ``saved``, or ``time``, the least on ``device`` or on the first of the
        report's, in nanoseconds. Raises :class:`AttnprofError` for another one or another suffix, for time without a
        device, where nothing has the weight, and where no such file can be written.
        """
        from attnprof.reports.flame import save

        save(self, path, weight, self._one(device))

    def _one(self, named: str | DeviceSpec | None) -> DeviceSpec | None:
        """The device that is named, or else the first of the report's."""
        if named is None:
            return self.devices[0] if self.devices else None
        return named if isinstance(named, DeviceSpec) else device(named)

    def __str__(self) -> str:
        return self.to_table()


def load(path: str | os.PathLike[str], *, device: Devices = None) -> Report:
    """The report of a trace that :meth:`Report.save` wrote, held against devices if any are named.

    Needs neither the model nor torch.
    Raises :class:`TraceFormatError` when the file is missing, damaged, not a trace or of a newer schema.
    """
    held = specs(device)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise TraceFormatError(f"{os.fspath(path)} does not exist.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise TraceFormatError(f"{os.fspath(path)} cannot be read: {error}.") from None
    report = Report(trace_json.loads(text, os.fspath(path)))
    report.devices = held
    return report
