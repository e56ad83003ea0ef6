"""``attnprof devices``: the devices that are known, or one of them with the source of every figure."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Annotated

import typer

from attnprof.cli import options
from attnprof.core.calibration import Conditions
from attnprof.core.device import DeviceSpec, Provenance
from attnprof.core.errors import AttnprofError
from attnprof.core.units import Units, align, duration, exactly, rounded
from attnprof.hardware import calibrated, catalog
from attnprof.hardware.overrides import override
from attnprof.reports.text import printable, shortened, width_of_terminal, wrapped

#: figure of a DeviceSpec -> (what it is called, what follows its value)
_FIGURES = {
    "memory_bytes": ("memory", ""),
    "memory_reported_bytes": ("memory reported", ""),
    "bandwidth_bytes_per_s": ("bandwidth", "/s"),
    "l2_bytes": ("L2", ""),
    "last_level_cache_bytes": ("last-level cache", ""),
    "on_chip_bytes_per_unit": ("on-chip memory", " per {unit}"),
    "units": ("{unit}s", ""),
    "clock_hz": ("clock", "Hz"),
    "interconnect_bytes_per_s": ("interconnect", "/s both ways"),
    "tdp_watts": ("TDP", "W"),
    "launch_overhead_ns": ("launch overhead", " per op"),
}
#: What stands between an origin and its derivation; beside a quoted figure it confirms the figure.
_LEADS = {"derived": ":", "measured": ":", "given": ","}
#: The dtypes whose peaks the list shows.
_LISTED = ("bf16", "fp16", "fp32", "tf32", "fp8")


def devices(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="A device such as h100-sxm, the name a driver reports, a .json or .toml file of your own, or this for "
            "this machine (`attnprof calibrate`).",
            show_default=False,
        ),
    ] = None,
    peak: options.Peaks = None,
    bandwidth: options.Bandwidth = None,
    units: options.UnitsText = "decimal",
) -> None:
    """List the known devices, or show one with its sources.

    Example: attnprof devices h100-sxm --peak bf16=800e12
    """
    shown = Units.parse(units)
    width = width_of_terminal()
    if name is None:
        if peak or bandwidth:
            raise AttnprofError(
                "--peak and --bandwidth change one device: name it, such as `attnprof devices h100-sxm`."
            )
        lines = _list(catalog.devices(), shown, width)
    else:
        lines = _one(override(catalog.device(name), peak or (), bandwidth), shown, width)
    print("\n".join(lines))


def _list(specs: Sequence[DeviceSpec], units: Units, width: int) -> list[str]:
    """One line per device, below its vendor; on a narrow terminal the last columns give way."""
    flop, rates = units.column([d.peak(dtype) for dtype in _LISTED for d in specs])  # one unit for them all
    columns = [
        _column("memory", "", *units.column([d.capacity_bytes for d in specs], "bytes")),
        _column("bandwidth", "/s", *units.column([d.bandwidth_bytes_per_s for d in specs], "bytes")),
        *(_column(dtype, "/s", flop, rates[i * len(specs) :][: len(specs)]) for i, dtype in enumerate(_LISTED)),
        _column("ridge", "", "FLOP/B", align([_ridge(d.ridge("bf16")) for d in specs])),
    ]
    room = max(len(d.id) for d in specs) + 4
    kept = [c for i, c in enumerate(columns) if room + sum(len(c[0]) + 2 for c in columns[: i + 1]) <= width + 2]
    lines = []
    for row, label in enumerate(("device", "")):
        lines.append(f"{label:<{room}}" + "  ".join(column[row] for column in kept))
    for i, spec in enumerate(specs):
        if i == 0 or specs[i - 1].vendor != spec.vendor:
            lines.append(spec.vendor)
        lines.append(f"  {spec.id:<{room - 2}}" + "  ".join(column[i + 2] for column in kept))
    about = (
        "Dense peaks of matmuls, 2 FLOPs per multiply-add; a ridge point is that of bf16. `attnprof devices NAME` "
        "shows one device, with the source of every figure; – is not known. `attnprof calibrate` measures this "
        "machine, which is the device `this` from then on."
    )
    return [line.rstrip() for line in lines] + ["", *wrapped(about, width)]


def _column(title: str, rate: str, unit: str, cells: list[str]) -> list[str]:
    """Title, unit and cells, all of one width."""
    texts = [title, f"{unit}{rate}", *cells]
    longest = max(map(len, texts))
    return [text.rjust(longest) for text in texts]


def _one(spec: DeviceSpec, units: Units, width: int) -> list[str]:
    """Everything about one device, and who says so."""
    cited: list[str] = []
    named = (f"{spec.vendor} {spec.product}".strip(), spec.architecture, spec.target, spec.form_factor)
    lines = wrapped(printable(" · ".join((spec.id, *filter(None, named)))), width)
    if spec.reported_as:
        source = _provenance(spec.provenance("reported_as"), [], cited)
        lines += wrapped(printable(f"reported as {', '.join(spec.reported_as)}: {source}"), width)
    if spec.measured_on:
        lines += wrapped(printable(f"measured on {_conditions(spec.measured_on)}"), width)
    if spec.aliases:
        lines += wrapped(printable(f"also {', '.join(spec.aliases)}"), width)
    lines += ["", *_peaks(spec, units, width, cited), ""]
    figures = _figures(spec, units)
    longest, widest = (max(len(row[i]) for row in figures) for i in (1, 2)) if figures else (0, 0)
    for field, label, value in figures:
        found = spec.provenance(field)
        rivals = [_value(spec, field, n, units) for n in found.also_quoted] if found else []
        lines += _with_source(f"{label:<{longest}}  {value:<{widest}}", _provenance(found, rivals, cited), width)
    notes = [*([spec.notes] if spec.notes else []), *calibrated.doubts(spec)]
    if notes:
        lines.append("")
    for note in notes:
        lines += wrapped(printable(note), width)
    if cited:
        lines.append("")
    for i, source in enumerate(cited, start=1):
        lines += wrapped(f"[{i}] {printable(source)}", width)
    return [line.rstrip() for line in lines]


def _conditions(told: Conditions) -> str:
    """``vm, 2026-11-21, torch 2.13.0, 2 threads, as h100-sxm``."""
    threads = f"{told.threads} thread{'' if told.threads == 1 else 's'}" if told.device == "cpu" else ""
    known = f"datasheet of {told.datasheet}" if told.datasheet else ""
    return ", ".join(filter(None, (told.host, told.date, f"torch {told.torch}", threads, known)))


def _peaks(spec: DeviceSpec, units: Units, width: int, cited: list[str]) -> list[str]:
    """The table of peaks and ridge points, and the rules for what it does not list."""
    if not spec.peaks:
        return ["No peak is known."]
    labels = [printable(f"{p.engine} {p.dtype}{f' ({p.mode})' if p.mode else ''}") for p in spec.peaks]
    bandwidth = spec.bandwidth_bytes_per_s
    ridges = [p.flops_per_s / bandwidth if bandwidth else None for p in spec.peaks]
    rates = _column("", "/s", *units.column([p.flops_per_s for p in spec.peaks]))[1:]
    ridge = _column("", "", "FLOP/B", align([_ridge(r) for r in ridges]))[1:]
    longest = min(max(map(len, (*labels, "dense peak"))), width - len(rates[0]) - len(ridge[0]) - 4)
    lines = [f"{'dense peak':<{longest}}  {rates[0]}  {ridge[0]}"]
    for label, rate, point, peak in zip(labels, rates[1:], ridge[1:], spec.peaks, strict=True):
        rivals = [units.named(n) + "/s" for n in peak.provenance.also_quoted]
        source = _provenance(peak.provenance, rivals, cited)
        lines += _with_source(f"{shortened(label, longest):<{longest}}  {rate}  {point}", source, width)
    rules = ["FLOP/B: the ridge point; work of less intensity is bound by the memory."]
    if spec.find_peak("float32", "matmul") is spec.find_peak("float32", "vector") is not None:
        other = " unless TF32 is allowed" if spec.peak("tf32") else ""
        rules.append(f"float32 matmuls run on the vector units{other}.")
    wide = spec.find_peak("float32", "vector")
    narrow = [dtype for dtype in ("float16", "bfloat16") if wide and spec.find_peak(dtype, "vector") is wide]
    if narrow:
        rules.append(f"Vector work in {' and '.join(narrow)} runs at float32's rate: PyTorch computes it in float32.")
    return [*lines, *wrapped(" ".join(rules), width)]


def _figures(spec: DeviceSpec, units: Units) -> list[tuple[str, str, str]]:
    """(field, label, value) of every figure that is known."""
    known = [(field, label, getattr(spec, field)) for field, (label, _) in _FIGURES.items()]
    return [
        (field, printable(label.format(unit=spec.unit)), _value(spec, field, value, units))
        for field, label, value in known
        if value is not None
    ]


def _value(spec: DeviceSpec, field: str, value: int, units: Units) -> str:
    after = _FIGURES[field][1].format(unit=spec.unit)
    if field == "launch_overhead_ns":
        return duration(Fraction(value, 10**9)) + after
    if "bytes" in field:
        return printable(units.text(value, "bytes") + after)
    text = units.text(value, "count") if field == "clock_hz" else exactly(value)
    return printable(f"{text} {after}" if after and text[-1].isdigit() else text + after)


def _provenance(found: Provenance | None, rivals: Sequence[str], cited: list[str]) -> str:
    """``quoted [1, 2], ≈ 132 SM × 4096 FLOP × 1.83 GHz; elsewhere 1.98 PFLOP/s``; numbers new sources."""
    if found is None:
        return "unsourced"
    cited += [source for source in dict.fromkeys(found.sources) if source not in cited]
    numbers = sorted(cited.index(source) + 1 for source in set(found.sources))
    text = f"{found.origin} [{', '.join(map(str, numbers))}]" if numbers else found.origin
    if found.derivation:
        text += f"{_LEADS.get(found.origin, ', ≈')} {found.derivation}"
    return printable(text + (f"; elsewhere {', '.join(rivals)}" if rivals else ""))


def _with_source(row: str, source: str, width: int) -> list[str]:
    """A row and its source beside it, or below it where there is no room."""
    room = width - len(row) - 2
    if room >= 30:
        first, *more = wrapped(source, room, indent="")
        return [f"{row}  {first}", *(" " * (len(row) + 2) + line for line in more)]
    return [row, *(f"    {line}" for line in wrapped(source, width - 4, indent=""))]


def _ridge(value: float | None) -> str | None:
    return None if value is None else rounded(value)
