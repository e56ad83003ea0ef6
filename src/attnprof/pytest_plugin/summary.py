"""What a session counted, for a terminal, for machines, and for the page of a CI job."""

from __future__ import annotations

from typing import Any

from attnprof.pytest_plugin.options import Settings
from attnprof.reports import tests as shown
from attnprof.reports.files import write_text


def terminal_lines(counted: dict[str, dict[str, Any]]) -> list[str]:
    """The dearest tests as a table."""
    return shown.table(counted)


def write_files(
    settings: Settings, counted: dict[str, dict[str, Any]], differs: dict[str, dict[str, str]]
) -> list[str]:
    """Write the files that were asked for; a sentence for each."""
    sentences = []
    for path, text in ((settings.json, shown.to_json), (settings.markdown, shown.to_markdown)):
        if path is not None:
            write_text(path, text(counted, differs))
            sentences.append(f"wrote {path}")
    return sentences
