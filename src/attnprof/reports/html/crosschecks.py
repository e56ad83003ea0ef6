"""Other counters' numbers for the page: beside ours by module, with the causes of every difference."""

from __future__ import annotations

from attnprof.analysis.report import Report
from attnprof.core.crosscheck import KINDS, Crosscheck
from attnprof.core.units import Units
from attnprof.reports import crosscheck
from attnprof.reports.html.embedding import Json
from attnprof.reports.view import View

#: Deeper than any module is: every level is in the page.
_EVERY_LEVEL = 10**6


def crosschecks(report: Report, units: Units) -> list[Json]:
    """One record for each counter; its ``rows`` are columns of FLOPs by module, in the order of the tree."""
    return [_record(report, check, units) for check in report.crosschecks]


def _record(report: Report, check: Crosscheck, units: Units) -> dict[str, Json]:
    view = View(depth=_EVERY_LEVEL, units=units)
    found = crosscheck.lines(report, check, view)[0] if check.modules else []
    return {
        "tool": check.tool,
        "title": crosscheck.title(report, check),
        "sentences": crosscheck.sentences(report, check, units),
        "unexplained": check.unexplained,
        "rows": {
            "label": [line.label for line in found],
            "level": [len(line.art) // 3 for line in found],
            "ours": [line.ours for line in found],
            "said": [line.said for line in found],
            "theirs": [line.theirs for line in found],
            "difference": [line.difference for line in found],
            "kinds": {kind: [line.kinds[kind] for line in found] for kind in KINDS},
        },
    }
