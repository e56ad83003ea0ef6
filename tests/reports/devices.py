"""Devices with round figures, so that every time in a test is a derivation."""

from __future__ import annotations

from typing import Any

from attnprof.core.device import DeviceSpec, Peak, Provenance

#: FLOP/s of both engines in float32, and bytes per second: 1.25 and 1 in a nanosecond. The ridge is 1.25 FLOP/B.
PEAK, BANDWIDTH = 1_250_000_000, 1_000_000_000


def peak(engine: Any, dtype: str, flops_per_s: int) -> Peak:
    return Peak(engine, dtype, flops_per_s, Provenance("unsourced"))


def round_device(name: str = "round", **figures: Any) -> DeviceSpec:
    """1.25 GFLOP/s of float32 on both engines, 1 GB/s, 10 kB of memory; other figures as given."""
    usual: dict[str, Any] = {
        "bandwidth_bytes_per_s": BANDWIDTH,
        "memory_bytes": 10_000,
        "peaks": (peak("matmul", "float32", PEAK), peak("vector", "float32", PEAK)),
    }
    return DeviceSpec(id=name, product=name, vendor="", **(usual | figures))
