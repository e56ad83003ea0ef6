"""The report as an HTML file: one page with its data, styles and scripts in it, which opens without a network."""

from __future__ import annotations

import importlib
import os
import re
from functools import cache
from importlib import resources
from pathlib import Path

from attnprof.analysis.report import Report
from attnprof.core.errors import AttnprofError
from attnprof.core.units import Units
from attnprof.reports import table
from attnprof.reports.files import check_writable, write_text
from attnprof.reports.html.data import data
from attnprof.reports.html.embedding import embedded, policy
from attnprof.reports.text import printable
from attnprof.reports.view import View

#: What a page's name ends in.
SUFFIXES = (".html", ".htm")
#: The page's own script, in the order in which its parts need one another.
_SCRIPTS = (
    "numbers.js",
    "elements.js",
    "model.js",
    "grid.js",
    "columns.js",
    "summary.js",
    "layers.js",
    "charts.js",
    "shares.js",
    "roofline.js",
    "timeline.js",
    "ops.js",
    "theory.js",
    "runs.js",
    "crosscheck.js",
    "page.js",
)
_STYLES = ("page.css", "tables.css")
#: The width of the table that is there for browsers that run no scripts.
_WIDTH = 120


def check(path: str | os.PathLike[str]) -> Path:
    """The path, once it is clear that a page can be written there; asked before a long run, not after.

    Raises :class:`AttnprofError` for a suffix other than .html and .htm, where nothing can be written, and where
    plotly or jinja2 is missing.
    """
    target = Path(path)
    if target.suffix.lower() not in SUFFIXES:
        given = f'not "{target.suffix}"' if target.suffix else f'and "{target}" does not end so'
        raise AttnprofError(f"a page is an .html file, {given}.")
    for package in ("jinja2", "plotly.offline"):
        try:
            importlib.import_module(package)
        except ModuleNotFoundError:
            name = package.partition(".")[0]
            raise AttnprofError(f"pages need {name}: pip install 'attnprof[html]'.") from None
    return check_writable(target)


def save(report: Report, path: str | os.PathLike[str], units: Units | None = None) -> Path:
    """Write the page of a report, whole or not at all. Errors are those of :func:`check`."""
    return write_text(check(path), render(report, units))


def render(report: Report, units: Units | None = None) -> str:
    """The page of a report as text. ``units`` are those that it opens with; a reader can choose others."""
    import jinja2
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    units = units or Units()
    style, script, library = _joined(_STYLES), _joined(_SCRIPTS), get_plotlyjs()
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        _read("templates", "page.html")
    )
    return template.render(
        title=printable(table.subject(report)[0]),
        policy=policy([script, library], [style]),
        style=Markup(style),
        script=Markup(script),
        library=Markup(library),
        data=Markup(embedded(data(report, units))),
        styled=_styled(library),
        text=table.render(report, View(units=units), width=_WIDTH),
    )


def _styled(library: str) -> list[str]:
    """Ids of style elements that Plotly makes unless they are there: for maps, of which the page has none.

    The page has empty ones, since its policy would refuse Plotly's.
    """
    return sorted(set(re.findall(r'getElementById\("([0-9a-f]{64})"\)', library)))


def _joined(names: tuple[str, ...]) -> str:
    """Files of one kind as one; scripts in a scope of their own."""
    text = "\n".join(_read("static", name) for name in names)
    return f'"use strict";\n(() => {{\n{text}}})();\n' if names[0].endswith(".js") else text


@cache
def _read(folder: str, name: str) -> str:
    return resources.files("attnprof.reports.html").joinpath(folder, name).read_text(encoding="utf-8")
