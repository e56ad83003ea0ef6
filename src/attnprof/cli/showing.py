"""A report shown, and kept in the files that were asked for."""

from __future__ import annotations

from pathlib import Path

from attnprof import api
from attnprof.cli.exports import Exports
from attnprof.reports.view import View

_NONE = Exports()


def show(
    report: api.Report, view: View, *, output: Path | None = None, plot: Path | None = None, exports: Exports = _NONE
) -> None:
    """Print the table, then save the run to ``output``, draw its roofline to ``plot``, and write the ``exports``.

    The table comes first: nothing that goes wrong with a file loses it. A reader that has seen enough (``| head``)
    loses no file.
    """
    try:
        print(report.to_table(view=view), flush=True)
    except OSError:
        _keep(report, output, plot, exports)
        raise
    _keep(report, output, plot, exports)


def _keep(report: api.Report, output: Path | None, plot: Path | None, exports: Exports) -> None:
    if output is not None:
        report.save(output)
    if plot is not None:
        report.plot(plot)
    exports.keep(report)
