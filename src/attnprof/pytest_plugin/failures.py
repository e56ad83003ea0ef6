"""A failed budget as pytest shows it: the verdict as the summary line, a few lines in place of a traceback."""

from __future__ import annotations

from types import TracebackType

import pytest


def shape(report: pytest.TestReport, raised: pytest.ExceptionInfo[BaseException], item: pytest.Item) -> None:
    """Give the report of a failed budget its short form, and with ``-v`` the full table too."""
    text = str(raised.value)
    details = getattr(raised.value, "details", "")
    shown = raised.getrepr(style="value", chain=False)
    path, number = _place(raised, item)
    lines = [*text.splitlines(), f"at {path}:{number}"]
    if details and item.config.option.verbose > 0:
        lines += ["", *details.splitlines()]
    one_line = item.config.option.tbstyle == "line"  # which pytest makes of the place and the first line
    for entry in shown.reprtraceback.reprentries:
        entry.lines = [] if one_line else lines
    if shown.reprcrash is not None:
        shown.reprcrash.path, shown.reprcrash.lineno = str(item.config.rootpath / path), number
        shown.reprcrash.message = lines[0]
    report.longrepr = shown


def without_ours(raised: pytest.ExceptionInfo[BaseException]) -> pytest.ExceptionInfo[BaseException]:
    """An error without the package's own lines in its traceback: what is to be corrected is in the others."""
    lines = []
    line = raised.tb
    while line is not None:
        if not str(line.tb_frame.f_globals.get("__name__", "")).startswith("attnprof."):
            lines.append(line)
        line = line.tb_next  # type: ignore[assignment]
    shorter: TracebackType | None = None
    for line in reversed(lines):
        shorter = TracebackType(shorter, line.tb_frame, line.tb_lasti, line.tb_lineno)
    return pytest.ExceptionInfo.from_exception(raised.value.with_traceback(shorter)) if shorter else raised


def _place(raised: pytest.ExceptionInfo[BaseException], item: pytest.Item) -> tuple[str, int]:
    """The file, from the root, and the line of the test that failed: where it called us, or where it begins."""
    path, line, _ = item.location
    for entry in reversed(raised.traceback):
        if entry.path == item.path:
            return path, entry.lineno + 1
    return path, (line or 0) + 1
