"""``attnprof report``: the table of a saved run, without the model and without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attnprof.cli import fitting, options
from attnprof.reports.view import View


def report(
    path: Annotated[Path, typer.Argument(metavar="RUN.JSON", help="A run saved with -o.", show_default=False)],
    device: options.DeviceOfSaved = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail when any op has no formula.")] = False,
    by: options.By = "module",
    depth: options.Depth = None,
    sort: options.Sort = None,
    top: options.Top = None,
    phase: options.Phase = None,
    units: options.UnitsText = "decimal",
) -> None:
    """Show a saved run again, without its model and without torch.

    Example: attnprof report run.json --by op --top 10
    """
    view = View.of(by=by, depth=depth, sort=sort, top=top, phase=phase, units=units)
    spec = None if device is None else fitting.device(device)

    from attnprof import api

    loaded = api.load(path)
    print(loaded.to_table(view=view))
    if spec is not None:
        fitting.show([fitting.verdict(loaded, spec, view.units)])
    if strict:
        loaded.require_priced()
