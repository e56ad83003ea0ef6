"""``attnprof calibrate``: measure this machine, and keep it as the device ``this``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from attnprof.api import calibration
from attnprof.cli import options
from attnprof.core.units import Units
from attnprof.hardware.calibrated import THIS
from attnprof.reports.calibration import lines
from attnprof.reports.files import check_replaceable
from attnprof.reports.text import printable, width_of_terminal


def calibrate(
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write the device file here, for --device FILE. Default: the user's cache, for --device this.",
            show_default=False,
        ),
    ] = None,
    on: Annotated[
        str | None,
        typer.Option(metavar="cpu|cuda|cuda:N", help="What to measure. Default: a GPU if any.", show_default=False),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The known device that this one is, such as h100-sxm: what part of its datasheet was reached is shown "
            "too. Default: what the driver says, if that is known.",
            show_default=False,
        ),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help=f"About {calibration.QUICK_SECONDS:.0f} s in place of {calibration.SECONDS:.0f}, with fewer repeats.",
        ),
    ] = False,
    force: options.Force = False,
    units: options.UnitsText = "decimal",
) -> None:
    """Measure this machine: matmul and vector peaks by dtype, bandwidth and launch overhead, with their spread.

    Example: attnprof calibrate --quick
    """
    shown = Units.parse(units)
    where = calibration.checked(output)
    if output is not None:
        check_replaceable(output, force)
    seconds = calibration.QUICK_SECONDS if quick else calibration.SECONDS
    with _progress() as progress:
        found, datasheet = calibration.measured(seconds, on, device, progress)
    calibration.save(found, datasheet, where)
    width = width_of_terminal()
    print("\n".join(lines(found, datasheet, shown, width)))
    use = THIS if output is None else str(output)
    print("", printable(f"Saved in {where}"), printable(f"Use it with --device {use}"), sep="\n")


@contextmanager
def _progress() -> Iterator[Callable[[str, float], None] | None]:
    """A bar on stderr, where that is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    with tqdm(total=100, leave=False, bar_format="{desc} {bar} {percentage:.0f}%  {elapsed}") as bar:

        def tell(what: str, done: float) -> None:
            bar.set_description_str(f"{what:<20}", refresh=False)
            bar.update(100 * done - bar.n)
            bar.refresh()

        yield tell
