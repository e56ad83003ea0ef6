"""``attnprof report``: the table of a saved run, without the model and without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attnprof.cli import options
from attnprof.reports.view import View


def report(
    path: Annotated[Path, typer.Argument(metavar="RUN.JSON", help="A run saved with -o.", show_default=False)],
    strict: Annotated[bool, typer.Option("--strict", help="Fail when any op has no formula.")] = False,
    by: options.By = "module",
    depth: options.Depth = None,
    sort: options.Sort = None,
    top: options.Top = None,
    phase: options.Phase = None,
    units: options.UnitsText = "decimal",
) -> None:
    """Show a saved run again. Needs neither the model nor torch."""
    view = View.of(by=by, depth=depth, sort=sort, top=top, phase=phase, units=units)

    from attnprof import api

    loaded = api.load(path)
    if strict:
        loaded.require_priced()
    print(loaded.to_table(view=view))
