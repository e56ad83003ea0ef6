"""Device files: JSON (or TOML) in the units of datasheets, read into :class:`DeviceSpec`.

JSON, because Python 3.10 reads it without a further dependency. A number keeps its decimal digits until it
is an integer of FLOP/s or bytes, so 989.4 TFLOP/s is 989,400,000,000,000 and nothing near it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

from attnprof.core import toml
from attnprof.core.calibration import Conditions
from attnprof.core.cost import Engine
from attnprof.core.device import PEAK_DTYPES, DeviceSpec, Origin, Peak, Provenance, peak_dtype
from attnprof.core.errors import AttnprofError, closest

#: figure of a file -> (field of DeviceSpec, what one of its unit is)
_FIGURES = {
    "memory_gib": ("memory_bytes", 2**30),
    "memory_reported_bytes": ("memory_reported_bytes", 1),
    "bandwidth_gb_per_s": ("bandwidth_bytes_per_s", 10**9),
    "l2_mib": ("l2_bytes", 2**20),
    "last_level_cache_mib": ("last_level_cache_bytes", 2**20),
    "on_chip_kib_per_unit": ("on_chip_bytes_per_unit", 2**10),
    "units": ("units", 1),
    "clock_mhz": ("clock_hz", 10**6),
    "interconnect_gb_per_s": ("interconnect_bytes_per_s", 10**9),
    "tdp_watts": ("tdp_watts", 1),
    "launch_overhead_us": ("launch_overhead_ns", 10**3),
}
_TEXTS = ("id", "product", "vendor", "architecture", "target", "form_factor", "unit", "notes")
_KEYS = (*_TEXTS, "aliases", "reported_as", "figures", "peaks", "based_on", "measured_on")
_PROVENANCE = ("origin", "source", "derivation", "also_quoted")
#: ``per_clock``: FLOP per clock and unit (``clock_ghz`` where it is not the device's). ``times``: of which
#: other peak (``of``, of another ``device``), or of one quoted with sparsity (``sparse``).
_FACTORS = ("per_clock", "clock_ghz", "times", "of", "device", "sparse")
_PEAK = ("engine", "dtype", "mode", "tflop_per_s", *_PROVENANCE, *_FACTORS)
Table = dict[str, Any]
#: Figures of a device are below this power of ten.
_TOO_LARGE = 31


def read(path: Path, base: Callable[[str], DeviceSpec]) -> DeviceSpec:
    """A user's device file. ``base`` finds the device that ``based_on`` names, for what is not said anew."""
    loads: Callable[..., Table] = json.loads if path.suffix.lower() == ".json" else toml.reader(str(path))
    try:
        table = loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
    except OSError as error:
        raise AttnprofError(f"cannot read the device file {path}: {error.strerror or error}.") from None
    except (ValueError, RecursionError) as error:  # both formats' errors, and bytes that are no UTF-8
        raise AttnprofError(f"the device file {path} is not valid {path.suffix[1:].upper()}: {error}.") from None
    try:
        return parse(table, base)
    except AttnprofError as error:
        raise AttnprofError(f"the device file {path}: {error}") from None


def shipped() -> list[DeviceSpec]:
    """Every device of the package."""
    folder = files("attnprof.hardware") / "data"
    texts = [entry.read_text(encoding="utf-8") for entry in folder.iterdir() if entry.name.endswith(".json")]
    return [parse(json.loads(text, parse_float=Decimal)) for text in texts]


@cache
def bibliography() -> Mapping[str, str]:
    """The sources that device files name by a short key, in full."""
    found: dict[str, str] = json.loads((files("attnprof.hardware") / "sources.json").read_text(encoding="utf-8"))
    return found


def parse(table: object, base: Callable[[str], DeviceSpec] | None = None) -> DeviceSpec:
    """One device from the table of its file."""
    table = _table(table, "a device", _KEYS)
    texts = {key: _text(table[key], key) for key in _TEXTS if key in table}
    if "id" not in texts:
        raise AttnprofError('a device needs an "id".')
    if not texts["id"].strip():
        raise AttnprofError(f'the "id" of a device is a name, not {texts["id"]!r}.')
    fields: dict[str, Any] = {}
    provenances: dict[str, Provenance] = {}
    peaks: dict[tuple[str, str, str], Peak] = {}
    figures = _table(table.get("figures", {}), "figures", _FIGURES)
    if "based_on" in table:
        if base is None:
            raise AttnprofError(f"{texts['id']}: based_on is for a user's own device file.")
        known = base(_text(table["based_on"], "based_on"))
        fields = {name: getattr(known, name) for name in (*_TEXTS, *(field for field, _ in _FIGURES.values()))}
        fields |= {"vendor": "", "product": f"based on {known.id}"}
        provenances = {name: p for name, p in known.provenances if name != "reported_as"}
        if not {"units", "clock_mhz"} & set(figures):  # other units or clocks have other peaks
            peaks = {(peak.engine, peak.dtype, peak.mode): peak for peak in known.peaks}
        if "memory_gib" in figures:
            fields["memory_reported_bytes"] = None
            provenances.pop("memory_reported_bytes", None)
    else:
        fields = {"product": texts["id"], "vendor": ""}
    fields |= texts
    for key, entry in figures.items():
        name, unit = _FIGURES[key]
        entry = _table(entry, key, ("value", *_PROVENANCE)) if isinstance(entry, dict) else {"value": entry}
        fields[name] = _whole(entry.get("value"), key, unit)
        provenances[name] = _provenance(entry, key, unit, entry.get("derivation", ""))
    named = _table(table.get("reported_as", {}), "reported_as", ("names", *_PROVENANCE))
    if named:
        provenances["reported_as"] = _provenance(named, "reported_as", 1, "")
    said: set[tuple[str, str, str]] = set()
    for entry in _list(table.get("peaks", []), "peaks"):
        peak = _peak(entry, fields.get("units"), fields.get("clock_hz"), str(fields.get("unit", "unit")))
        own = peak.engine, peak.dtype, peak.mode
        if own in said:
            raise AttnprofError(f"the peak {' '.join(filter(None, own))} is given twice.")
        said.add(own)
        peaks[own] = peak
    return DeviceSpec(
        **fields,
        aliases=_texts(table.get("aliases", []), "aliases"),
        reported_as=_texts(named.get("names", []), "names"),
        peaks=tuple(peaks.values()),
        provenances=tuple(provenances.items()),
        measured_on=_conditions(table["measured_on"]) if "measured_on" in table else None,
    )


def _peak(entry: object, units: int | None, clock_hz: int | None, unit: str) -> Peak:
    entry = _table(entry, "a peak", _PEAK)
    engine, dtype = (_text(entry.get(key), key) for key in ("engine", "dtype"))
    what = f"the peak {engine} {dtype}"
    if engine not in get_args(Engine):
        raise AttnprofError(f'{what}: no engine "{engine}", use {" or ".join(get_args(Engine))}.')
    if peak_dtype(dtype) not in PEAK_DTYPES:
        near = closest(peak_dtype(dtype), PEAK_DTYPES)
        raise AttnprofError(f"{what}: the dtypes of peaks are {', '.join(PEAK_DTYPES)}.{near}")
    derivation = _text(entry.get("derivation", ""), "derivation") or _factors(entry, units, clock_hz, unit)
    return Peak(
        "matmul" if engine == "matmul" else "vector",
        peak_dtype(dtype),
        _whole(entry.get("tflop_per_s"), f"{what}, tflop_per_s", 10**12),
        _provenance(entry, what, 10**12, derivation),
        _text(entry.get("mode", ""), "mode"),
    )


def _conditions(entry: object) -> Conditions:
    entry = _table(entry, "measured_on", [field.name for field in dataclasses.fields(Conditions)])
    numbers = {key: _whole(entry.get(key), f"measured_on, {key}", 1) for key in ("cores", "threads")}
    words = {key: _text(value, f"measured_on, {key}") for key, value in entry.items() if key not in numbers}
    missing = [
        field.name
        for field in dataclasses.fields(Conditions)
        if field.default is dataclasses.MISSING and field.name not in entry
    ]
    if missing:
        raise AttnprofError(f"measured_on does not say {', '.join(missing)}.")
    made: dict[str, Any] = {**words, **numbers}
    return Conditions(**made)


def _factors(entry: Table, units: int | None, clock_hz: int | None, unit: str) -> str:
    """``132 SM × 4096 FLOP × 1.83 GHz``, ``0.5 × matmul float16``: how a peak follows from other figures."""
    if "per_clock" in entry and units:
        clock = entry.get("clock_ghz") or (Decimal(clock_hz) / 10**9 if clock_hz else "?")
        return f"{units} {unit} × {entry['per_clock']} FLOP × {clock} GHz"
    times = "" if entry.get("times", 1) == 1 else f"{entry['times']} × "
    if "sparse" in entry:
        return f"{times}{entry['sparse']} TFLOP/s with sparsity"
    if "of" in entry:
        return f"{times}{entry['of']}{' of ' + entry['device'] if 'device' in entry else ''}"
    return ""


def _provenance(entry: Table, what: str, unit: int, derivation: str) -> Provenance:
    sources = _texts(entry.get("source", []), f"{what}, source")
    origin = entry.get("origin", "quoted" if sources else "unsourced")
    if origin not in get_args(Origin):
        raise AttnprofError(f"{what}: the origin is one of {', '.join(get_args(Origin))}, not {origin!r}.")
    rivals = _list(entry.get("also_quoted", []), f"{what}, also_quoted")
    return Provenance(
        origin,
        tuple(bibliography().get(source, source) for source in sources),
        _text(derivation, f"{what}, derivation"),
        tuple(_whole(value, f"{what}, also_quoted", unit) for value in rivals),
    )


def _whole(value: object, what: str, unit: int) -> int:
    """A positive number of some unit, as the integer it is in the base unit."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise AttnprofError(f"{what} is a number, not {value!r}.")
    number = Decimal(value)
    if number.is_finite() and number.adjusted() >= _TOO_LARGE:  # before it is made an integer of as many digits
        raise AttnprofError(f"{what} is no figure of any device: {number:.3g}.")
    scaled = number * unit if number.is_finite() and number.adjusted() > -_TOO_LARGE else Decimal(0)
    if scaled <= 0 or scaled != int(scaled):
        raise AttnprofError(f"{what} is a positive number, whole in its base unit, not {value}.")
    return int(scaled)


def _table(value: object, what: str, keys: Any) -> Table:
    if not isinstance(value, dict):
        raise AttnprofError(f"{what} is a table of names and values, not {value!r}.")
    for key in value:
        if key not in keys:
            raise AttnprofError(f'{what} has no "{key}".{closest(str(key), keys)}')
    return value


def _list(value: object, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise AttnprofError(f"{what} is a list, not {value!r}.")
    return value


def _texts(value: object, what: str) -> tuple[str, ...]:
    return tuple(_text(item, what) for item in _list(value, what))


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise AttnprofError(f"{what} is text, not {value!r}.")
    return value
