"""``attnprof run``: build the model a target names, count one call of it, show the table."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated

import typer

from attnprof import api
from attnprof.cli import inputs as input_specs
from attnprof.cli import options, target
from attnprof.core.errors import AttnprofError
from attnprof.reports.files import check_writable
from attnprof.reports.view import View

#: Frames of files below this folder are ours and say nothing about the user's model.
_OURS = str(Path(__file__).resolve().parents[1])


def run(
    target_text: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="file.py:callable or package.module:callable. Called without arguments, it returns a module, "
            "(module, args) or (module, args, kwargs).",
            show_default=False,
        ),
    ],
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            "-i",
            metavar="SPEC",
            help="An argument of the model: 'x=float32[2,128,768]', 'input_ids=int64[2,128]<50257' (random below "
            "50257), 'mask=int64[2,128]=1' (all ones), 'n=3', 'flag=true'; by name, by position ('0=float32[8]') "
            "or in order ('float32[8]'). Repeatable.",
            show_default=False,
        ),
    ] = None,
    backward: Annotated[bool, typer.Option("--backward", help="Count the backward pass too.")] = False,
    fake: Annotated[
        bool, typer.Option("--fake", help="Build and run on fake tensors: no memory, no arithmetic, any size.")
    ] = False,
    training: Annotated[
        bool | None,
        typer.Option(
            "--train/--eval", help="Put the model in this mode. Default: as the target left it.", show_default=False
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail when any op has no formula.")] = False,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the weights and of the --input values.")] = 0,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Save the run as JSON too.", show_default=False),
    ] = None,
    by: options.By = "module",
    depth: options.Depth = None,
    sort: options.Sort = None,
    top: options.Top = None,
    phase: options.Phase = None,
    units: options.UnitsText = "decimal",
) -> None:
    """Count the FLOPs and bytes of one call of a model.

    Example: attnprof run model.py:build --input 'x=float32[8,3,224,224]' --backward
    """
    view = View.of(by=by, depth=depth, sort=sort, top=top, phase=phase, units=units)
    specs = [input_specs.parse(text) for text in inputs or []]
    if output is not None:
        check_writable(output)

    import torch

    torch.manual_seed(seed)
    with _their_own(f"importing {target_text}"):
        found = target.find(target_text)
    with api.fake_tensors() if fake else nullcontext():
        with _their_own(f"building {target_text}"):
            made = target.build(found, target_text)
        input_specs.apply(specs, made, seed, fake)
    if training is not None:
        made.model.train(training)

    counting = api.profile(made.model)
    try:
        with _their_own("the model"):
            api.drive(counting, made.model, made.args, made.kwargs, backward=backward, fake=fake)
    except (typer.Exit, KeyboardInterrupt, _ExitedError) as error:
        _show_partial(counting, view, fake, "was interrupted" if isinstance(error, KeyboardInterrupt) else "raised")
        if output is not None:
            print(f"attnprof: nothing was written to {output}: the run is not complete.", file=sys.stderr)
        raise
    report = counting.report()
    print(report.to_table(view=view), flush=True)  # first: nothing that goes wrong later loses it
    if output is not None:
        report.save(output)
    if strict:
        report.require_priced()


def _show_partial(counting: api.Profile, view: View, fake: bool, ended: str) -> None:
    """What was counted until the model raised or was interrupted, marked as such."""
    trace = counting.trace
    hint = ""
    if fake and ended == "raised":
        hint = " Values are unknown under --fake; a model that looks at them may need a real run."
    if not len(trace):
        print(f"attnprof: the model {ended} before its first op.{hint}", file=sys.stderr)
        return
    trace.notes.insert(0, f"Incomplete: the model {ended} after {len(trace):,} op calls; this is what ran until then.")
    print(f"attnprof: the model {ended}; the table shows what ran until then.{hint}", file=sys.stderr)
    sys.stderr.flush()
    print(api.Report(trace).to_table(view=view))


class _ExitedError(AttnprofError):
    """The user's code called ``sys.exit``."""


@contextmanager
def _their_own(doing: str) -> Iterator[None]:
    """An exception of the user's code shows the user's frames, and the command ends with exit code 1."""
    try:
        yield
    except AttnprofError:
        raise
    except SystemExit as error:
        raise _ExitedError(f"{doing} called sys.exit({error.code!r}).") from None
    except Exception as error:  # whatever a model may raise
        shown = traceback.TracebackException.from_exception(error)
        _hide_our_frames(shown, set())
        print("".join(shown.format()), end="", file=sys.stderr)
        raise typer.Exit(1) from None


def _hide_our_frames(shown: traceback.TracebackException, seen: set[int]) -> None:
    if id(shown) in seen:
        return
    seen.add(id(shown))
    kept = [f for f in shown.stack if not f.filename.startswith((_OURS, "<frozen importlib"))]
    shown.stack[:] = kept
    for other in (shown.__cause__, shown.__context__, *(getattr(shown, "exceptions", None) or ())):
        if other is not None:
            _hide_our_frames(other, seen)
