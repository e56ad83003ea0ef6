"""Measuring this machine and keeping what was measured as a device file."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from attnprof.core.calibration import Calibration
from attnprof.core.device import DeviceSpec
from attnprof.core.errors import AttnprofError
from attnprof.hardware import calibrated, catalog
from attnprof.reports.files import check_writable, write_text

#: Seconds that a calibration takes, and a quick one.
SECONDS, QUICK_SECONDS = 40.0, 8.0


def calibrate(
    path: str | os.PathLike[str] | None = None,
    *,
    seconds: float = SECONDS,
    on: str | None = None,
    datasheet: str | None = None,
) -> DeviceSpec:
    """Measure this machine, save it as a device file, and return it: peaks, bandwidth, launch overhead.

    It takes about ``seconds``. ``on`` is ``cpu``, ``cuda`` or ``cuda:1``; the first GPU where there is one.
    Without a ``path``, which ends in .json, the file goes to the user's cache and is the device ``this`` from
    then on. ``datasheet`` names the known device that this one is, for the parts of its figures that were
    reached; a GPU is recognised. The notes of the device say when the machine was busy.

    Raises :class:`AttnprofError` for an unknown device, a path that cannot be written, and inside
    ``attnprof.profile()``.
    """
    where = checked(path)
    found, listed = measured(seconds, on, datasheet)
    save(found, listed, where)
    return catalog.device(calibrated.THIS if path is None else str(where))


def checked(path: str | os.PathLike[str] | None) -> Path:
    """The file to write, once it is clear that it can be; asked before the measurement, not after."""
    if path is not None:
        if Path(path).suffix.lower() != ".json":
            raise AttnprofError(f"a calibration is written as JSON: {path} does not end in .json.")
        return check_writable(path)
    where = calibrated.path()
    try:
        where.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AttnprofError(f"cannot make the folder {where.parent}: {error.strerror or error}.") from None
    return check_writable(where)


def measured(
    seconds: float, on: str | None, datasheet: str | None, progress: Callable[[str, float], None] | None = None
) -> tuple[Calibration, DeviceSpec | None]:
    """What was measured, and the known device it was measured on, if it is known."""
    listed = None if datasheet is None else catalog.device(datasheet)

    from attnprof.capture import calibration

    found = calibration.measure(seconds, on, progress)
    if listed is None:
        listed = _recognised(found.conditions.device)
    if listed is not None:
        found = replace(found, conditions=replace(found.conditions, datasheet=listed.id))
    return found, listed


def save(found: Calibration, datasheet: DeviceSpec | None, where: Path) -> None:
    """Write the device file."""
    write_text(where, calibrated.text(calibrated.content(found, where.stem, datasheet)))


def _recognised(device: str) -> DeviceSpec | None:
    """The device that a driver's name names; None for a CPU, and for a name that is not known or not clear."""
    try:
        return None if device == "cpu" else catalog.device(device)
    except AttnprofError:
        return None
