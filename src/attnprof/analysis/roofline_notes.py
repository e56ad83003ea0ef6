"""What is not in the times of a roofline, one sentence each, and what would put it there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attnprof.core.cost import Cost
from attnprof.core.device import DeviceSpec
from attnprof.core.roofline import MissingPeak
from attnprof.core.units import Units, share
from attnprof.hardware import calibrated

_UNITS = Units()


def sentences(
    device: DeviceSpec, cost: Cost, missing: Sequence[MissingPeak], unpriced: int, unpriced_bytes: int
) -> Iterator[str]:
    """For a run of this cost, with so many unpriced calls of so much traffic, on a device without some peaks."""
    yield from calibrated.remarks(device)
    if device.bandwidth_bytes_per_s is None and (cost.bytes or unpriced_bytes):
        yield (
            f"{device.id} has no known bandwidth: {_UNITS.named(cost.bytes + unpriced_bytes, 'bytes')} of traffic take "
            f"no time here, so times are lower bounds. --bandwidth RATE gives one."
        )
    yield from (_floating(device, peak, cost) for peak in missing if not _is_index(peak.dtype))
    if index := [peak for peak in missing if _is_index(peak.dtype)]:
        yield _integers(device, index, cost)
    if unpriced:
        its, calls = (
            ("its", "1 call has") if unpriced == 1 else ("their", f"{_UNITS.text(unpriced, 'count')} calls have")
        )
        part = f"nothing but {its} traffic, {_UNITS.named(unpriced_bytes, 'bytes')}, is"
        if device.bandwidth_bytes_per_s is None or not unpriced_bytes:
            part = "nothing of it is" if unpriced == 1 else "nothing of them is"
        yield f"{calls} no price: {part} in the times, which are lower bounds."
    yield from _tf32(device, cost)


def _floating(device: DeviceSpec, peak: MissingPeak, cost: Cost) -> str:
    engine = f"{peak.engine}:" if peak.engine == "vector" else ""
    wider = ""
    if peak.wider is not None:
        wider = f" The next wider is {peak.wider.dtype}, {_UNITS.named(peak.wider.flops_per_s)}/s, and is not used."
    return (
        f"{device.id} has no known {peak.engine} peak for {peak.dtype}: {_part(peak, cost)} take no time here, so "
        f"times are lower bounds.{wider} --peak {engine}{peak.dtype}=RATE gives one."
    )


def _integers(device: DeviceSpec, missing: Sequence[MissingPeak], cost: Cost) -> str:
    dtypes = ", ".join(dict.fromkeys(peak.dtype for peak in missing))
    flops = sum(peak.flops for peak in missing)
    return (
        f"{_UNITS.text(flops)} operations on {dtypes} ({share(flops, cost.flops)}% of all) take no time here: "
        f"{device.id} has no known peak for them."
    )


def _tf32(device: DeviceSpec, cost: Cost) -> Iterator[str]:
    """float32 contractions on a device that could run them as TF32, if the program allows it."""
    plain, tf32 = device.find_peak("float32"), device.find_peak("tf32")
    flops = sum(n for engine, dtype, n in cost.split if (engine, dtype) == ("matmul", "float32"))
    if plain is None or tf32 is None or (plain.engine == "matmul" and plain.provenance.origin == "given"):
        return  # a peak for float32's contractions that was given is the one that is meant
    if flops and tf32.flops_per_s > plain.flops_per_s:
        rate = _UNITS.named(tf32.flops_per_s)
        yield (
            f"float32 contractions are held against {_UNITS.named(plain.flops_per_s)}/s, without TF32. Where the "
            f"program allows TF32, {rate}/s is their peak: --peak float32={tf32.flops_per_s / 10**12:g}e12 says so."
        )


def _part(peak: MissingPeak, cost: Cost) -> str:
    return f"{_UNITS.named(peak.flops)} ({share(peak.flops, cost.flops)}% of all)"


def _is_index(dtype: str) -> bool:
    return dtype == "bool" or dtype.startswith(("int", "uint"))
