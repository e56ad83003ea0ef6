"""``attnprof diff``: what changed between two saved runs, without the models and without torch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from attnprof.core import amounts
from attnprof.core.snapshot import MEMORY


def diff(
    before: Annotated[Path, typer.Argument(metavar="BEFORE.JSON", help="A run saved with -o.", show_default=False)],
    after: Annotated[
        Path, typer.Argument(metavar="AFTER.JSON", help="The run to compare with it.", show_default=False)
    ],
    fail_on_increase: Annotated[
        str | None,
        typer.Option(
            metavar="PERCENT",
            help="Exit with 1 when FLOPs, bytes, peak or saved memory grew by more: '1%', or '0' for at all.",
            show_default=False,
        ),
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown, for a comment on a pull request.")
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Every module and op that changed, not the largest.")
    ] = False,
) -> None:
    """Say what changed between two saved runs.

    Totals first, then the modules and the ops whose cost is not the same. Needs neither the models nor torch.

    Exit codes: 0 done; 1 more than --fail-on-increase allows; 2 something to correct.

    Example: attnprof diff main.json branch.json --fail-on-increase 1%
    """
    allowed = None if fail_on_increase is None else amounts.tolerance(fail_on_increase)

    from attnprof import api
    from attnprof.analysis.budget_changes import compare, operators
    from attnprof.analysis.budget_snapshot import snapshot
    from attnprof.reports import budget, changes

    runs = api.load(before), api.load(after)
    found = compare(snapshot(runs[0]), snapshot(runs[1]))
    shown = changes.to_markdown if markdown else changes.to_text
    print(shown(found, operators(*runs), None if everything else changes.MOST).rstrip("\n"))
    if allowed is None:
        return
    known = {change.name for change in found.totals}
    totals = [found.total(name) for name in ("flops", "bytes", *(name for name in MEMORY if name in known))]
    grown = [change for change in totals if change.delta > 0 and not change.within(allowed)]
    for change in grown:
        print(f"attnprof: {budget.words(change.name)} grew: {budget.arrow(change)}.", file=sys.stderr)
    if grown:
        raise typer.Exit(1)
