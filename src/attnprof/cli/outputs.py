"""What ``run`` and ``report`` write: the form on stdout, and the files that options name."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

from attnprof import api
from attnprof.core.device import DeviceSpec
from attnprof.core.errors import AttnprofError
from attnprof.reports import flame as flames
from attnprof.reports import trace_events
from attnprof.reports.colours import wanted
from attnprof.reports.files import check_replaceable, check_writable, write_text
from attnprof.reports.forms import Form, form_of, named
from attnprof.reports.html import page
from attnprof.reports.view import View

#: What ``-o -`` is without a ``--format``: the run itself, as a file of it would be.
RUN = "run"
_STDOUT = Path("-")


@dataclass(frozen=True, slots=True)
class Output:
    """A file that an option names, and what writes it."""

    option: str
    path: Path
    write: Callable[[api.Report, Path], object]


@dataclass(frozen=True, slots=True)
class Outputs:
    """What goes to stdout, and every file of a command, in the order they are written.

    ``form`` is that of stdout, None for the run itself.
    """

    form: Form | None
    view: View
    stdout: TextIO
    files: tuple[Output, ...] = ()

    @classmethod
    def of(
        cls,
        view: View,
        *,
        form: str | None = None,
        save: Sequence[Path] = (),
        plot: Path | None = None,
        html: Path | None = None,
        trace: Path | None = None,
        trace_time: str | None = None,
        flame: Path | None = None,
        weight: str | None = None,
        devices: tuple[DeviceSpec, ...] = (),
        force: bool = False,
        read: Mapping[str, Path] | None = None,
    ) -> Outputs:
        """What the options say; ``read`` are the files that the command reads, by what its help calls them.

        Everything is checked here, before anything runs. Raises :class:`AttnprofError` for a suffix or a form that is
        not known, a form without the rows that are asked for, what cannot be written, a weight without a flame graph
        or time without a device, one file for two, and without ``force`` a file that holds something else than
        attnprof writes.
        """
        shown = named(form or (RUN if _STDOUT in save else "table"), RUN)
        if shown is not None:
            shown.check(view)
        found = [_saved(path, view) for path in save if path != _STDOUT]
        if plot is not None:  # its devices are checked with the other options that need one
            found.append(Output("--plot", plot, api.Report.plot))
        if html is not None:
            found.append(_page("--html", html, view))
        if trace is not None:
            trace_events.check(trace)
            trace_events.check_time(trace_time, devices)
            found.append(Output("--trace", trace, lambda report, path: report.to_trace(path, time=trace_time)))
        elif trace_time is not None:
            raise AttnprofError("--trace-time is the time of a timeline: name its file with --trace FILE.")
        if flame is not None:
            weighed = weight or "flops"
            flames.check(flame, weighed, devices[0] if devices else None)
            found.append(Output("--flame", flame, lambda report, path: report.to_flame(path, weighed)))
        elif weight is not None:
            raise AttnprofError("--weight is what a flame graph weighs: name its file with --flame FILE.")
        _check_different([*(read or {}).items(), *((file.option, file.path) for file in found)])
        for file in found:
            check_replaceable(file.path, force)
        return cls(shown, replace(view, colour=wanted(sys.stdout)), sys.stdout, tuple(found))

    @property
    def is_data(self) -> bool:
        """Whether stdout is for another program or a document, and nothing else may go there."""
        return self.form is None or not self.form.for_people

    @contextmanager
    def kept_clean(self) -> Iterator[None]:
        """Around a command: where stdout is data, what else is printed goes to stderr, by the user's code too."""
        if not self.is_data:
            yield
            return
        with redirect_stdout(sys.stderr):
            yield

    def show(self, report: api.Report) -> None:
        """Print what goes to stdout."""
        text = report.dumps() if self.form is None else self.form.of(report, self.view)
        print(text, end="", file=self.stdout, flush=True)

    def keep(self, report: api.Report) -> None:
        """Write the files."""
        for file in self.files:
            file.write(report, file.path)

    def paths(self) -> Iterator[Path]:
        """The files that are asked for."""
        yield from (file.path for file in self.files)


def _saved(path: Path, view: View) -> Output:
    """What ``-o`` writes: a page or another form of the report by the suffix, or else the run itself."""
    if path.suffix.lower() in page.SUFFIXES:
        return _page("--output", path, view)
    check_writable(path)
    form = form_of(path)
    if form is None:
        return Output("--output", path, api.Report.save)
    form.check(view, shown=False)
    return Output("--output", path, lambda report, path: write_text(path, form.in_file(report, view)))


def _page(option: str, path: Path, view: View) -> Output:
    page.check(path)
    return Output(option, path, lambda report, path: page.save(report, path, view.units))


def _check_different(named: Sequence[tuple[str, Path]]) -> None:
    """Raises :class:`AttnprofError` where two options name one file; a device takes everything."""
    seen: dict[str, str] = {}
    for option, path in named:
        if os.path.exists(path) and not os.path.isfile(path):
            continue
        if os.path.realpath(path) in seen:
            first = seen[os.path.realpath(path)]
            raise AttnprofError(f"{first} and {option} are the same file, {path}: give each one of its own.")
        seen[os.path.realpath(path)] = option
