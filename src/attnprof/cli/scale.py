"""``attnprof scale``: the exact formula of what a model costs, how it grows, and whether a claim of that is true."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attnprof.cli import on_devices, options
from attnprof.cli.scaled import closed_form, find, read_claims
from attnprof.cli.users_code import their_own
from attnprof.cli.varying import around, complete, parse_at, parse_varied
from attnprof.core.errors import AttnprofError
from attnprof.core.sizes import one_of, positive
from attnprof.core.units import Units

if TYPE_CHECKING:
    from attnprof.claims.grammar import Claim

_FORMATS = ("table", "markdown", "latex", "csv", "json")
_QUANTITIES = ("flops", "matmul", "vector", "bytes", "saved", "peak")
_PHASES = ("forward", "backward", "recompute", "all")


def scale(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="file.py:callable or package.module:callable, called with sizes by name, which returns a module, "
            "(module, args) or (module, args, kwargs); or a mechanism of the zoo: 'gqa', 'performer:r=64'.",
        ),
    ],
    vary: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=SIZES",
            help="What varies: 'T=128..8192' (any size between them may be counted), 'T=128..8192:64' (in steps of "
            "64) or 'T=128,256,512' (these alone). Repeatable.",
            show_default=False,
        ),
    ],
    fixed: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="What does not vary: 'd=768'. Repeatable.", show_default=False),
    ] = None,
    of: Annotated[
        str,
        typer.Option(
            metavar="|".join(_QUANTITIES),
            help="What is counted: FLOPs (all, or those of contractions, or the rest), bytes of traffic, bytes saved "
            "for the backward, bytes live at the peak.",
        ),
    ] = "matmul",
    phase: Annotated[str, typer.Option(metavar="|".join(_PHASES), help="In which phase.")] = "forward",
    by: Annotated[
        str | None,
        typer.Option(metavar="module", help="The formula of every module, too.", show_default=False),
    ] = None,
    claim: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLAIM",
            help="Say whether it is true: a growth, 'O(N*d^2)', with O, Theta or Omega, or a formula, "
            "'6*s*d^2+4*s^2*d'. What it names and does not vary varies as well. Repeatable.",
            show_default=False,
        ),
    ] = None,
    assume: Annotated[
        list[str] | None,
        typer.Option(
            metavar="A<=B",
            help="What is known of sizes when a growth is judged: 'H<=d'. Repeatable.",
            show_default=False,
        ),
    ] = None,
    require: Annotated[
        bool, typer.Option("--require", help="Exit with 1 when a claim is false, or no formula was found.")
    ] = False,
    at: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=SIZE,...",
            help="What it needs at other sizes: 'T=1M'. Repeatable.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="With --at: the least time on a device (`attnprof devices` lists them), or a file of yours.",
            show_default=False,
        ),
    ] = None,
    peak: options.Peaks = None,
    bandwidth: options.Bandwidth = None,
    count: Annotated[
        int, typer.Option(metavar="N", help="With --device: so many of them, which share the work evenly.")
    ] = 1,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Draw the curves, with logarithmic axes and slopes, as .png, .svg or .pdf (needs matplotlib).",
            show_default=False,
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write all of it as a page (.html).", show_default=False),
    ] = None,
    force: options.Force = False,
    form: Annotated[str, typer.Option("--format", metavar="|".join(_FORMATS), help="How to show it.")] = "table",
    units: options.UnitsText = "decimal",
) -> None:
    """Recover the exact formula of what a model costs from runs at chosen sizes, and hold claims against it.

    Example: attnprof scale model.py:build --vary T=128..8192 --vary d=64..1024 --phase backward --claim "O(T*d^2)"
    """
    one_of(_QUANTITIES, **{"--of": of})
    one_of(_PHASES, **{"--phase": phase})
    one_of(_FORMATS, **{"--format": form})
    if by is not None:
        one_of(("module",), **{"--by": by})
    positive(**{"--count": count})
    shown_in = Units.parse(units)
    varied = parse_varied(vary)
    wanted = parse_at(at or [])
    spec = on_devices.devices([device] if device else None, peak, bandwidth)
    if len(spec) > 1:
        raise AttnprofError(f"an extrapolation is for one device, not for {len(spec)}.")
    if (device or count > 1) and not wanted:
        raise AttnprofError(f"{'--device' if device else '--count'} goes with --at: at which sizes?")
    if count > 1 and not device:
        raise AttnprofError("--count is of a device: name it with --device.")
    _check_files(plot, html, force)

    from attnprof.api.competitors import symbols

    kept = symbols("--fixed", fixed or [])
    build, takes = find(target, {**kept, **varied})
    claims, assumed, more = read_claims(claim or [], assume or [], takes, {**varied, **kept})
    varied |= {name: around(value) for name, value in more.items()}
    kept = {name: value for name, value in kept.items() if name not in more}
    points = [complete(sizes, more, varied) for sizes in wanted]

    from attnprof.analysis.scaling import growth
    from attnprof.analysis.scaling_answer import Answer
    from attnprof.analysis.scaling_claim import hold
    from attnprof.api.extrapolation import extrapolate
    from attnprof.api.scaling import scaling
    from attnprof.recovery.outcome import Formula
    from attnprof.reports import scaling as reports

    with _progress() as told:
        with their_own("the model"):
            found = scaling(build, varied, of=of, phase=phase, fixed=kept, told=told)  # type: ignore[arg-type]  # checked
        has_formula = isinstance(found.outcome, Formula)
        answer = Answer(
            growth(found, more),
            tuple(hold(found, one, assumed, more) for one in claims) if has_formula else (),
            tuple(
                extrapolate(found, sizes, build=build, device=spec[0] if spec else None, count=count)
                for sizes in points
            ),
            closed_form(found, build, target, takes, kept),
            by_module=by is not None,
            notes=_notes(more, claims, has_formula),
        )
    print(reports.FORMATS[form](answer, shown_in), end="", flush=True)
    _write(answer, shown_in, plot, html)
    if require and (not has_formula or not all(judged.verdict.holds for judged in answer.claims)):
        raise typer.Exit(1)


def _notes(more: Mapping[str, int], claims: Sequence[Claim], has_formula: bool) -> tuple[str, ...]:
    found = []
    if more:
        usual = ", ".join(f"{name}={value}" for name, value in more.items())
        vary = f"{' and '.join(more)} {'varies' if len(more) == 1 else 'vary'} too"
        found.append(f"{vary}, since {'a claim names it' if len(more) == 1 else 'claims name them'}: around {usual}.")
    if claims and not has_formula:
        found.append("No claim could be judged: there is no formula.")
    return tuple(found)


@contextmanager
def _progress() -> Iterator[Callable[[Mapping[str, int], int], None]]:
    """What runs, on a terminal only: how many runs it will take is not known before."""
    from tqdm import tqdm

    with tqdm(unit=" runs", file=sys.stderr, disable=None, leave=False, bar_format="{n_fmt}{unit}, {desc}") as bar:

        def told(sizes: Mapping[str, int], runs: int) -> None:
            bar.set_description_str(", ".join(f"{name}={size}" for name, size in sizes.items()), refresh=False)
            bar.update()

        yield told


def _check_files(plot: Path | None, html: Path | None, force: bool) -> None:
    """Raise for files that cannot be written, before anything runs."""
    from attnprof.reports import pictures, scaling_page
    from attnprof.reports.files import check_replaceable

    if plot is not None:
        pictures.check(plot)
    if html is not None:
        scaling_page.check(html)
    if plot is not None and html is not None and plot.resolve() == html.resolve():
        raise AttnprofError(f"--plot and --html are the same file, {plot}: give each one of its own.")
    for path in (plot, html):
        if path is not None:
            check_replaceable(path, force)


def _write(answer: Any, units: Units, plot: Path | None, html: Path | None) -> None:
    if plot is not None:
        from attnprof.reports import scaling_plot

        scaling_plot.save(answer, plot, units)
    if html is not None:
        from attnprof.reports import scaling_page

        scaling_page.save(answer, html, units)
