"""This machine as a device: the file a calibration becomes, where it is kept, and whether it still holds."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from attnprof.core import machine
from attnprof.core.calibration import Calibration, Measurement
from attnprof.core.cost import Engine
from attnprof.core.device import DeviceSpec
from attnprof.core.errors import AttnprofError
from attnprof.core.units import Units, durations
from attnprof.hardware import files

#: The name of this machine among devices.
THIS = "this"
#: Measured figures keep so many digits: the others are noise.
_DIGITS = 4


def path() -> Path:
    """Where the calibration of this machine is kept: in the user's cache."""
    return _cache() / "attnprof" / "devices" / f"{THIS}.json"


def read() -> DeviceSpec:
    """This machine, as it was calibrated; :class:`AttnprofError` when it was not, or the file is broken."""
    where = path()
    if not where.exists():
        raise AttnprofError(f'"{THIS}" is this machine, and it is not calibrated: run `attnprof calibrate` first.')
    try:
        return files.read(where, _no_base)
    except AttnprofError as error:
        raise AttnprofError(f"{error} Run `attnprof calibrate` again.") from None


def doubts(spec: DeviceSpec) -> list[str]:
    """What differs here and now from where and how a device was measured: one sentence each; none for datasheets.

    PyTorch is not loaded for it: its number of threads is compared where the program has loaded it.
    """
    told = spec.measured_on
    if told is None:
        return []
    said = []
    if (machine.host(), machine.processor()) != (told.host, told.processor):
        there = f"{told.host} ({told.processor}, {_counted(told.cores, 'core')})"
        here = f"{machine.host()} ({machine.processor()}, {_counted(machine.cores(), 'core')})"
        said.append(f"{spec.id} was measured on another machine, {there}, and this is {here}.")
    elif machine.cores() != told.cores:
        said.append(f"{spec.id} was measured with {_counted(told.cores, 'core')}, and there are {machine.cores()} now.")
    version, threads = _torch()
    if version and version != told.torch:
        said.append(f"{spec.id} was measured with torch {told.torch}, and this is {version}.")
    if told.device == "cpu" and threads and threads != told.threads:
        said.append(f"{spec.id} was measured with {_counted(told.threads, 'thread')}, and there are {threads} now.")
    return [f"{sentence} `attnprof calibrate` measures anew." for sentence in said]


def remarks(spec: DeviceSpec) -> list[str]:
    """What the reader of figures held against a measured device must know: it was busy then, or is another now."""
    notes = spec.notes
    if notes.startswith("* "):  # what was given in place of a figure is said elsewhere
        notes = notes.partition(". ")[2]
    busy = [f"When {spec.id} was measured: {notes}"] if spec.measured_on and notes else []
    return [*busy, *doubts(spec)]


def content(found: Calibration, name: str = THIS, datasheet: DeviceSpec | None = None) -> dict[str, Any]:
    """The device file of a calibration, each figure with its spread and, beside it, its part of the datasheet's."""
    told = found.conditions
    on_cpu = told.device == "cpu"

    def measured(one: Measurement, value: float, unit: str, listed: int | None = None) -> dict[str, Any]:
        part = f", {one.best / listed:.0%} of {datasheet.id}'s" if datasheet and listed else ""
        return {"value": _digits(value), "origin": "measured", "derivation": spread(one, unit) + part}

    def told_by(value: float | None) -> dict[str, Any] | None:
        source = "the operating system" if on_cpu else "the driver"
        return None if value is None else {"value": value, "origin": "quoted", "source": [source]}

    figures = {
        "memory_reported_bytes": told_by(found.memory_bytes),
        ("last_level_cache_mib" if on_cpu else "l2_mib"): told_by(_per(found.cache_bytes, 2**20)),
        "on_chip_kib_per_unit": told_by(_per(found.on_chip_bytes_per_unit, 2**10)),
        "units": told_by(found.units),
    }
    if streams := found.best("bandwidth"):
        fastest = max(streams.values(), key=lambda one: one.best)
        listed = datasheet.bandwidth_bytes_per_s if datasheet else None
        figures["bandwidth_gb_per_s"] = measured(fastest, fastest.best / 1e9, "B", listed)
    if launched := found.best("launch").get("throughput"):
        whole_ns = max(1, round(1e9 / launched.best))
        figures["launch_overhead_us"] = {**measured(launched, 1.0, "op"), "value": whole_ns / 1000}
    peaks = []
    for engine in get_args(Engine):
        for dtype, one in found.best(engine).items():
            unit = "OP" if dtype.startswith("int") else "FLOP"
            entry = measured(one, one.best / 1e12, unit, datasheet.peak(dtype, engine) if datasheet else None)
            peaks.append({"engine": engine, "dtype": dtype, "tflop_per_s": entry.pop("value"), **entry})
    return {
        "id": name,
        "product": told.processor if on_cpu else told.device,
        "vendor": datasheet.vendor if datasheet and not on_cpu else "",  # a processor's name has its maker in it
        "target": "cpu" if on_cpu else datasheet.target if datasheet else "",
        "unit": "core" if on_cpu else datasheet.unit if datasheet else "SM",
        "notes": " ".join(found.doubts),
        "measured_on": asdict(told),
        "figures": {key: entry for key, entry in figures.items() if entry is not None},
        "peaks": peaks,
    }


def spread(one: Measurement, unit: str) -> str:
    """``best of 50 runs of A·B of 512 × 512; median 202, quartiles 198 and 205 GFLOP/s``."""
    low, high = one.quartiles
    rates = (one.median, low, high)
    if unit == "op":
        named, cells = durations([1 / rate for rate in (one.median, high, low)])
    elif unit == "B":
        named, cells = Units().column(rates, "bytes")
    else:
        named, cells = Units().column(rates)
    shown = [cell.strip() for cell in cells]
    per = named if unit == "op" else f"{named.replace('FLOP', unit)}/s"
    kernel = f"{one.name}, {one.at}" if one.kind == "bandwidth" else one.at
    runs = _counted(one.times.count, "run")
    return f"best of {runs} of {kernel}; median {shown[0]}, quartiles {shown[1]} and {shown[2]} {per}"


def text(table: Mapping[str, Any]) -> str:
    """A device file as JSON."""
    return json.dumps(table, indent=2, ensure_ascii=False) + "\n"


def _cache() -> Path:
    try:
        if platform.system() == "Windows":
            return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        if platform.system() == "Darwin":
            return Path.home() / "Library" / "Caches"
        named = Path(os.environ.get("XDG_CACHE_HOME", ""))
        return named if named.is_absolute() else Path.home() / ".cache"  # the standard ignores relative paths
    except RuntimeError:
        raise AttnprofError("no cache for the calibration: the user has no home folder; name a file with -o.") from None


def _torch() -> tuple[str | None, int | None]:
    """The version of PyTorch that is installed, and its threads where it is loaded."""
    loaded: Any = sys.modules.get("torch")
    get: Callable[[], int] | None = getattr(loaded, "get_num_threads", None)
    if get is not None:
        return str(loaded.__version__), get()
    from importlib import metadata  # slow to import, and seldom needed

    try:
        return metadata.version("torch"), None
    except metadata.PackageNotFoundError:
        return None, None


def _no_base(name: str) -> DeviceSpec:
    raise AttnprofError("a calibration is based on nothing.")


def _per(value: int | None, unit: int) -> float | None:
    return None if value is None else value / unit


def _digits(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
