"""A failed budget as pytest shows it: the verdict as the summary line, a few lines in place of a traceback."""

from __future__ import annotations

import pytest


def shape(report: pytest.TestReport, raised: pytest.ExceptionInfo[BaseException], item: pytest.Item) -> None:
    """Give the report of a failed budget its short form, and with ``-v`` the full table too."""
    text = str(raised.value)
    details = getattr(raised.value, "details", "")
    shown = raised.getrepr(style="value", chain=False)
    lines = [*text.splitlines(), f"at {_place(raised, item)}"]
    if details and item.config.option.verbose > 0:
        lines += ["", *details.splitlines()]
    for entry in shown.reprtraceback.reprentries:
        entry.lines = lines
    if shown.reprcrash is not None:
        shown.reprcrash.message = lines[0]
    report.longrepr = shown


def _place(raised: pytest.ExceptionInfo[BaseException], item: pytest.Item) -> str:
    """The line of the test that failed: where it called us, or where it begins."""
    path, line, _ = item.location
    for entry in reversed(raised.traceback):
        if entry.path == item.path:
            return f"{path}:{entry.lineno + 1}"
    return f"{path}:{(line or 0) + 1}"
