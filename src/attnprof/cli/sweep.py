"""One run for each shape, and their table."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from attnprof.analysis.sweep import Point, Shape, Sweep, common_notes, settings_of
from attnprof.core.errors import AttnprofError
from attnprof.core.units import Units

if TYPE_CHECKING:
    from attnprof import api
    from attnprof.cli.request import Request
    from attnprof.core.device import DeviceSpec


def refuse(given: Mapping[str, object]) -> None:
    """Raise for the first option that is about the table of one run."""
    for option, value in given.items():
        if value is not None and value is not False and value != [] and value != ():
            raise AttnprofError(f"{option} is for one run, and a sweep is several: give one --batch and one --seq.")


@dataclass(frozen=True)
class Outputs:
    """Where the table of a sweep goes: its form on stdout, and files, each in the form of its suffix."""

    form: str
    files: tuple[Path, ...]
    stdout: TextIO

    def run(
        self,
        text: str,
        requests: Mapping[Shape, Request],
        devices: tuple[DeviceSpec, ...],
        units: Units,
        strict: bool = False,
        strict_prediction: bool = False,
    ) -> None:
        """Run all shapes, with a bar on a terminal, and show the table; what is done is shown after an error too.

        Where the table is data for another program, what the user's code prints goes to stderr.
        """
        sweeping = _Sweeping(self, text, requests, devices, units, strict, strict_prediction)
        with nullcontext() if self.form == "table" else redirect_stdout(sys.stderr):
            sweeping.run()


def outputs_of(form: str | None, files: Sequence[Path], force: bool) -> Outputs:
    """Where the table goes; raises :class:`AttnprofError` where it cannot, before anything runs."""
    from attnprof.reports.files import check_replaceable, check_writable
    from attnprof.reports.sweep import check_form, form_of

    for path in files:
        form_of(path)
        check_writable(path)
        check_replaceable(path, force)
    return Outputs(check_form(form or "table"), tuple(files), sys.stdout)


@dataclass(frozen=True)
class _Sweeping:
    outputs: Outputs
    text: str
    requests: Mapping[Shape, Request]
    devices: tuple[DeviceSpec, ...]
    units: Units
    strict: bool
    strict_prediction: bool

    def run(self) -> None:
        from tqdm import tqdm

        done: list[tuple[Point, api.Report]] = []
        try:
            with tqdm(total=len(self.requests), file=sys.stderr, disable=None, leave=False) as bar:
                for shape, request in self.requests.items():
                    bar.set_description(str(shape))
                    report = self._report(shape, request)
                    done.append((Point.of(shape, report), report))
                    bar.update()
        except BaseException as error:
            self._show_partial(done, error)
            raise
        self._show(self._sweep(done))

    def _report(self, shape: Shape, request: Request) -> api.Report:
        from attnprof import api
        from attnprof.cli.users_code import their_own

        made = request.build()
        counting = api.profile(made.model, recount_every=1)
        with their_own(f"the model, at {shape},"):
            request.drive(counting, made)
        report = counting.report()
        report.devices = self.devices
        if self.strict:
            report.require_priced()
        if self.strict_prediction:
            report.theory.require_exact()
        return report

    def _sweep(self, done: Sequence[tuple[Point, api.Report]]) -> Sweep:
        from attnprof.reports import roofline

        settings = settings_of(self.text, done[0][1])
        notes = common_notes([*(one.trace.notes for _, one in done), roofline.notes(done[-1][1])])
        return Sweep(
            tuple(point for point, _ in done), len(self.requests), settings, notes, tuple(d.id for d in self.devices)
        )

    def _show_partial(self, done: Sequence[tuple[Point, api.Report]], error: BaseException) -> None:
        if not done:
            return
        ended = "was interrupted" if isinstance(error, KeyboardInterrupt) else "ended"
        print(f"attnprof: the sweep {ended}; the table shows what was counted until then.", file=sys.stderr)
        for file in self.outputs.files:
            print(f"attnprof: nothing was written to {file}: the sweep is not complete.", file=sys.stderr)
        sys.stderr.flush()
        self._print(self._sweep(done))

    def _show(self, sweep: Sweep) -> None:
        from attnprof.reports.files import write_text
        from attnprof.reports.sweep import FORMS, form_of

        self._print(sweep)
        for file in self.outputs.files:
            write_text(file, FORMS[form_of(file)](sweep, self.units))

    def _print(self, sweep: Sweep) -> None:
        from attnprof.reports.sweep import FORMS

        print(FORMS[self.outputs.form](sweep, self.units), end="", file=self.outputs.stdout, flush=True)
