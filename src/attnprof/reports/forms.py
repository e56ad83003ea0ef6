"""The forms that a report is written in, by name and by the suffix of a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from attnprof.analysis.report import Report
from attnprof.core.errors import AttnprofError, closest
from attnprof.core.units import Units
from attnprof.reports.formats import to_csv, to_json, to_latex, to_markdown
from attnprof.reports.table import render
from attnprof.reports.tree import to_tree
from attnprof.reports.view import ROWS, View

#: The width of tables in files.
_FILE_WIDTH = 120


@dataclass(frozen=True, slots=True)
class Form:
    """One form: its name, the suffixes of its files, which rows it can show, and what makes the text.

    ``text`` takes a width, None for the terminal's. ``for_people``: it is read where it is shown. ``whole``: it has
    every module with whole numbers, whatever the view.
    """

    name: str
    suffixes: tuple[str, ...]
    rows: tuple[str, ...]
    text: Callable[[Report, View, int | None], str]
    for_people: bool = False
    whole: bool = False

    def check(self, view: View, *, shown: bool = True) -> None:
        """Raise :class:`AttnprofError` where the form does not have what the view asks for.

        ``shown``: the view was asked for this form, and not for a table beside it.
        """
        if view.by not in self.rows and (shown or not self.whole):
            other = " or ".join(form.name for form in FORMS.values() if view.by in form.rows)
            raise AttnprofError(
                f'the form "{self.name}" shows modules, not by="{view.by}": leave out by, or use {other}.'
            )
        if self.whole and shown:
            sort = view.sort if view.top is None else None  # what top alone implies
            asked = {"depth": view.depth, "sort": sort, "top": view.top, "phase": view.phase}
            given = [name for name, value in asked.items() if value is not None]
            given += ["units"] if view.units != Units() else []
            if given:
                raise AttnprofError(
                    f'the form "{self.name}" has every module, with whole numbers: leave out {" and ".join(given)}.'
                )

    def of(self, report: Report, view: View, width: int | None = None) -> str:
        """The report in this form, with a newline at its end."""
        return self.text(report, view, width).rstrip("\n") + "\n"

    def in_file(self, report: Report, view: View) -> str:
        """The same for a file, which is as wide everywhere."""
        return self.of(report, replace(view, colour=False), _FILE_WIDTH)


FORMS: dict[str, Form] = {
    form.name: form
    for form in (
        Form("table", (".txt",), ROWS, render, for_people=True),
        Form("tree", (), ("module",), to_tree, for_people=True),
        Form("markdown", (".md", ".markdown"), ("module", "time"), lambda report, view, _: to_markdown(report, view)),
        Form("latex", (".tex",), ("module", "time"), lambda report, view, _: to_latex(report, view)),
        Form("csv", (".csv",), ("module",), lambda report, *_: to_csv(report), whole=True),
        Form("json", (), ("module",), lambda report, *_: to_json(report), whole=True),
    )
}


def named(name: str, *others: str) -> Form | None:
    """The form of this name, None for one of the ``others``; raises :class:`AttnprofError` for any other name."""
    if name in others:
        return None
    if name not in FORMS:
        known = (*FORMS, *others)
        raise AttnprofError(f'format "{name}" is not one of {", ".join(known)}.{closest(name, known)}')
    return FORMS[name]


def form_of(path: Path) -> Form | None:
    """The form whose files have this suffix, if any."""
    suffix = path.suffix.lower()
    return next((form for form in FORMS.values() if suffix in form.suffixes), None)
