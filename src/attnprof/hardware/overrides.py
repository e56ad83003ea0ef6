"""A device with other figures than the listed ones: ``--peak bf16=800e12 --bandwidth 4TB/s``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import get_args

from attnprof.core.cost import Engine
from attnprof.core.device import PEAK_DTYPES, DeviceSpec, Peak, Provenance, peak_dtype
from attnprof.core.errors import AttnprofError, closest
from attnprof.core.units import Units

_ENGINES = get_args(Engine)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5, "e": 6}
#: A number, a prefix and what is counted: ``800e12``, ``800 TFLOP/s``, ``4TB/s``, ``2 TiB/s``.
_NUMBER = r"(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|[+-]?(?:nan|inf\w*))"
_FLOPS = re.compile(rf"{_NUMBER}\s*(?P<prefix>[kmgtpe]?)(?:(?:fl)?op(?:/s|s|s/s)?)?", re.IGNORECASE | re.ASCII)
_BYTES = re.compile(rf"{_NUMBER}\s*(?P<prefix>[kmgtpe]?)(?P<binary>i?)(?:B(?:/s|ps)?)?", re.IGNORECASE | re.ASCII)
#: Rates below are a number without its prefix: no device is as slow as a million per second.
_LEAST = 10**6


def override(spec: DeviceSpec, peaks: Sequence[str] = (), bandwidth: str | None = None) -> DeviceSpec:
    """A device with other peaks and another bandwidth; ``spec`` itself when nothing is given.

    Each of ``peaks`` is ``[ENGINE:]DTYPE=RATE``: ``bf16=800e12``, ``matmul:bf16=800TFLOP/s``,
    ``vector:fp32=60e12``. Without an engine it is the peak of matmuls. A rate is in FLOP/s (OP/s for
    integers), a bandwidth in B/s, plain or with a prefix. The id gets an asterisk, the notes say what was
    given in place of what, and the provenance of each figure is ``given``.

    Raises :class:`AttnprofError` for an unknown engine or dtype, a rate that is no positive number, and a
    peak that is given twice.
    """
    if isinstance(peaks, str):
        raise AttnprofError(f'peaks is a sequence such as ["bf16=800e12"], not the text "{peaks}".')
    given: dict[tuple[Engine, str], Peak] = {}
    said: list[str] = []
    for text in peaks:
        peak = _peak(text)
        if (peak.engine, peak.dtype) in given:
            raise AttnprofError(f'the peak of {peak.engine} {peak.dtype} is given twice: "{text}" comes second.')
        was = _listed(spec.find_peak(peak.dtype, peak.engine), peak.engine)
        said.append(
            f"{peak.engine} {peak.dtype} {_text(peak.flops_per_s, 'flops')} {was or 'in place of an unknown one'}"
        )
        given[peak.engine, peak.dtype] = replace(peak, provenance=Provenance("given", derivation=was))
    rate = None if bandwidth is None else _bandwidth(bandwidth)
    listed = spec.bandwidth_bytes_per_s
    was = "" if listed is None else f"in place of {_text(listed, 'bytes')}"
    if rate is not None:
        said.append(f"bandwidth {_text(rate, 'bytes')} {was or 'in place of an unknown one'}")
    if not said:
        return spec
    kept = [given.pop(key, peak) if (key := _key(peak)) else peak for peak in spec.peaks]
    provenances = dict(spec.provenances)
    if rate is not None:
        provenances["bandwidth_bytes_per_s"] = Provenance("given", derivation=was)
    return replace(
        spec,
        id=spec.id if spec.id.endswith("*") else f"{spec.id}*",
        notes=f"* Given by you: {'; '.join(said)}.{f' {spec.notes}' if spec.notes else ''}",
        peaks=(*kept, *given.values()),
        bandwidth_bytes_per_s=spec.bandwidth_bytes_per_s if rate is None else rate,
        provenances=tuple(provenances.items()),
    )


def _key(peak: Peak) -> tuple[Engine, str] | None:
    """What an override replaces; the peaks of modes that no lookup uses are not replaced."""
    return None if peak.mode else (peak.engine, peak.dtype)


def _peak(text: str) -> Peak:
    """One ``[ENGINE:]DTYPE=RATE``."""
    name, equals, rate = text.partition("=")
    if not (equals and name.strip() and rate.strip()):
        raise AttnprofError(
            f'the peak "{text}" does not parse: write DTYPE=RATE, such as bf16=800e12 or vector:fp32=60TFLOP/s.'
        )
    engine, colon, dtype = name.rpartition(":")
    engine = engine.strip().lower() if colon else "matmul"
    if engine not in _ENGINES:
        raise AttnprofError(
            f'the peak "{text}": no engine "{engine}", use {" or ".join(_ENGINES)}.{closest(engine, _ENGINES)}'
        )
    known = peak_dtype(dtype)
    if known not in PEAK_DTYPES:
        raise AttnprofError(
            f'the peak "{text}": no dtype "{dtype.strip()}" has peaks; use one of {", ".join(PEAK_DTYPES)}.'
            f"{closest(known, PEAK_DTYPES)}"
        )
    value = _rate(_FLOPS.fullmatch(rate.strip()), f'the peak "{text}"', "FLOP/s", "800e12 or 800TFLOP/s")
    return Peak("matmul" if engine == "matmul" else "vector", known, value, Provenance("given"))


def _bandwidth(text: str) -> int:
    found = _BYTES.fullmatch(text.strip())
    what = f'the bandwidth "{text}"'
    if found is not None and re.search(r"b(/s|ps)?$", text.strip()):
        raise AttnprofError(f"{what}: a small b is bits; write bytes per second, such as 4e12 or 4TB/s.")
    return _rate(found, what, "B/s", "4e12 or 4TB/s")


def _rate(found: re.Match[str] | None, what: str, unit: str, like: str) -> int:
    """A rate per second as an integer."""
    if found is None:
        raise AttnprofError(f"{what} does not parse: a rate is in {unit}, such as {like}.")
    number = Decimal(found["number"])
    if not number.is_finite() or number <= 0:
        raise AttnprofError(f"{what} is not above zero and finite: a rate is in {unit}, such as {like}.")
    if number.adjusted() > 30:
        raise AttnprofError(f"{what} is no rate of any device: write it in {unit}, such as {like}.")
    step = 1024 if found.groupdict().get("binary") else 1000
    value = int(number * step ** _POWERS[found["prefix"].lower()])
    if value < _LEAST:
        raise AttnprofError(f"{what} is {number} {unit}, slower than any device: write {like}.")
    return value


def _listed(peak: Peak | None, engine: Engine) -> str:
    """What a given peak replaces: the one that work would run against otherwise."""
    if peak is None:
        return ""
    units = "" if peak.engine == engine else f" of the {peak.engine} units"
    return f"in place of {_text(peak.flops_per_s, 'flops')}{units}"


def _text(value: int, kind: str) -> str:
    return f"{Units().named(value, 'bytes' if kind == 'bytes' else 'flops')}/s"
