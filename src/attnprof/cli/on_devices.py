"""The devices that ``--device`` names, with ``--peak`` and ``--bandwidth`` in place of their figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from attnprof.core.device import DeviceSpec
from attnprof.core.errors import AttnprofError
from attnprof.hardware import catalog
from attnprof.hardware.overrides import override
from attnprof.reports import plot


def devices(
    names: Sequence[str] | None,
    peaks: Sequence[str] | None = None,
    bandwidth: str | None = None,
    *,
    sort: str | None = None,
    by: str = "module",
    plot_path: Path | None = None,
) -> tuple[DeviceSpec, ...]:
    """The devices, each once, in the order they were named; none when none was.

    Everything that needs one is checked here, before anything runs. Raises :class:`AttnprofError` for a device that
    is not known, for figures, a sort or a plot without a device, for figures of more than one, and for
    figures or a plot that cannot be.
    """
    found = tuple(dict.fromkeys(catalog.device(name) for text in names or () for name in _split(text)))
    given = [option for option, value in (("--peak", peaks), ("--bandwidth", bandwidth)) if value]
    if not found:
        needing = [
            *given,
            *(["--sort time"] if sort == "time" and by != "time" else []),
            *(["--plot"] if plot_path else []),
        ]
        if needing:
            raise AttnprofError(f"{needing[0]} needs a device: name one, such as --device h100-sxm.")
    names_of = [spec.id for spec in found]
    if twice := [name for name in names_of if names_of.count(name) > 1]:
        raise AttnprofError(f'two devices are called "{twice[0]}": give the one in your file another id.')
    if given and len(found) > 1:
        raise AttnprofError(f"{given[0]} is a figure of one device: name one with --device, not {len(found)}.")
    found = tuple(override(spec, peaks or (), bandwidth) for spec in found)
    if plot_path is not None:
        plot.check(plot_path, found)
    return found


def _split(text: str) -> Iterator[str]:
    """``a100-80gb-sxm,h100-sxm`` is two names; a file whose name has a comma is one."""
    return iter([text] if Path(text).suffix and Path(text).is_file() else text.split(","))
