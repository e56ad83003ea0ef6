"""The files for other viewers that ``--trace`` and ``--flame`` name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from attnprof import api
from attnprof.core.device import DeviceSpec
from attnprof.core.errors import AttnprofError
from attnprof.reports import flame, trace_events


@dataclass(frozen=True, slots=True)
class Exports:
    """A Chrome trace and a flame graph, each where one is asked for."""

    trace: Path | None = None
    flame: Path | None = None
    weight: str = "flops"

    @classmethod
    def of(
        cls,
        trace: Path | None,
        flame_path: Path | None,
        weight: str | None,
        devices: tuple[DeviceSpec, ...],
        others: dict[str, Path | None],
    ) -> Exports:
        """What the options say; ``others`` are the files that other options name.

        Everything is checked here, before anything runs. Raises :class:`AttnprofError` for a suffix that is not
        known, what cannot be written, a weight without a flame graph or time without a device, and one file for two.
        """
        if trace is not None:
            trace_events.check(trace)
        if flame_path is not None:
            flame.check(flame_path, weight or "flops", devices[0] if devices else None)
        elif weight is not None:
            raise AttnprofError("--weight is what a flame graph weighs: name its file with --flame FILE.")
        named: dict[str, str] = {}
        for option, path in {**others, "--trace": trace, "--flame": flame_path}.items():
            if path is None or (os.path.exists(path) and not os.path.isfile(path)):  # a device takes everything
                continue
            first = named.setdefault(os.path.realpath(path), option)
            if first != option:
                raise AttnprofError(f"{first} and {option} are the same file, {path}: give each one of its own.")
        return cls(trace, flame_path, weight or "flops")

    def paths(self) -> Iterator[Path]:
        """The files that are asked for."""
        yield from (path for path in (self.trace, self.flame) if path is not None)

    def keep(self, report: api.Report) -> None:
        """Write them."""
        if self.trace is not None:
            report.to_trace(self.trace)
        if self.flame is not None:
            report.to_flame(self.flame, self.weight)
