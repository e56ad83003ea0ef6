"""What ``run`` and ``report`` write: the form on stdout, and the files that options name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from attnprof import api
from attnprof.core.device import DeviceSpec
from attnprof.core.errors import AttnprofError
from attnprof.reports import flame as flames
from attnprof.reports import trace_events
from attnprof.reports.files import check_replaceable, check_writable
from attnprof.reports.html import page


@dataclass(frozen=True, slots=True)
class Output:
    """A file that an option names, and what writes it."""

    option: str
    path: Path
    write: Callable[[api.Report, Path], object]


@dataclass(frozen=True, slots=True)
class Outputs:
    """Every file of a command, in the order they are written."""

    files: tuple[Output, ...] = ()

    @classmethod
    def of(
        cls,
        *,
        save: Path | None = None,
        plot: Path | None = None,
        html: Path | None = None,
        trace: Path | None = None,
        flame: Path | None = None,
        weight: str | None = None,
        devices: tuple[DeviceSpec, ...] = (),
        force: bool = False,
        read: Mapping[str, Path] | None = None,
    ) -> Outputs:
        """What the options say; ``read`` are the files that the command reads, by what its help calls them.

        Everything is checked here, before anything runs. Raises :class:`AttnprofError` for a suffix that is not
        known, what cannot be written, a weight without a flame graph or time without a device, one file for two,
        and without ``force`` a file that holds something else than attnprof writes.
        """
        found: list[Output] = []
        if save is not None:
            check_writable(save)
            found.append(Output("--output", save, api.Report.save))
        if plot is not None:  # its devices are checked with the other options that need one
            found.append(Output("--plot", plot, api.Report.plot))
        if html is not None:
            page.check(html)
            found.append(Output("--html", html, api.Report.to_html))
        if trace is not None:
            trace_events.check(trace)
            found.append(Output("--trace", trace, api.Report.to_trace))
        if flame is not None:
            weighed = weight or "flops"
            flames.check(flame, weighed, devices[0] if devices else None)
            found.append(Output("--flame", flame, lambda report, path: report.to_flame(path, weighed)))
        elif weight is not None:
            raise AttnprofError("--weight is what a flame graph weighs: name its file with --flame FILE.")
        _check_different([*(read or {}).items(), *((file.option, file.path) for file in found)])
        for file in found:
            check_replaceable(file.path, force)
        return cls(tuple(found))

    def paths(self) -> Iterator[Path]:
        """The files that are asked for."""
        yield from (file.path for file in self.files)

    def keep(self, report: api.Report) -> None:
        """Write them."""
        for file in self.files:
            file.write(report, file.path)


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
