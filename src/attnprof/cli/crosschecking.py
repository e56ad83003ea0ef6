"""``--crosscheck``: other counters make the run again, and the report has their numbers beside attnprof's."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from attnprof import api
from attnprof.api.crosscheck import Rerun, crosschecks, parse_tools
from attnprof.core.errors import AttnprofError
from attnprof.reports.view import View

if TYPE_CHECKING:
    from attnprof.cli.request import Request
    from attnprof.cli.target import Target

Crosscheck = Annotated[
    str | None,
    typer.Option(
        "--crosscheck",
        metavar="TOOL[,TOOL]",
        help="Other counters' numbers beside attnprof's, by module, every difference explained: fvcore (its "
        "FlopCountAnalysis, of forwards), torch (its FlopCounterMode). Each runs the model again.",
        show_default=False,
    ),
]
CrosscheckOfSaved = Annotated[str | None, typer.Option("--crosscheck", hidden=True)]


def tools_of(text: str | None, view: View) -> tuple[str, ...]:
    """The counters that the option names; raises :class:`AttnprofError` for one that is not known."""
    if text is None:
        return ()
    found = parse_tools(text)
    if view.phase is not None:
        raise AttnprofError("--crosscheck is of the whole run: leave out --phase.")
    if view.by in ("memory", "time"):
        raise AttnprofError(f"--crosscheck is about FLOPs, and --by {view.by} shows none: leave one of them out.")
    return found


def refuse_for_saved(text: str | None) -> None:
    """A saved run has no model that another counter could run: raises :class:`AttnprofError` where one is named."""
    if text is not None:
        raise AttnprofError("--crosscheck needs the model, which a saved run is without: give it to `attnprof run`.")


@contextmanager
def crosschecked(report: api.Report, tools: tuple[str, ...], request: Request, made: Target) -> Iterator[None]:
    """Give a report what other counters say. An interrupt ends that alone; it is passed on once the report is shown."""
    if not tools:
        yield
        return
    from attnprof.capture.driver import Training

    training = Training(request.backward, request.loss, request.optimizer)
    fake = request.fake or made.fake
    again = Rerun(made.model, made.args, made.kwargs or {}, training, request.plan, fake, request.generate)
    interrupt = None
    try:
        report.crosschecks = crosschecks(report, tools, again)
    except KeyboardInterrupt as error:
        print("attnprof: interrupted in the cross-check; the report is without it.", file=sys.stderr)
        interrupt = error
    yield
    if interrupt is not None:
        raise interrupt
