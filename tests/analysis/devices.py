"""Devices with round rates, on which the time of a hand-made op is its FLOPs or bytes in nanoseconds."""

from __future__ import annotations

from typing import Any

from attnprof.core.device import DeviceSpec, Peak, Provenance
from attnprof.core.roofline import Attainable
from attnprof.core.signature import Declared, OpSignature
from reports.traces import tensor

#: In FLOP/s and B/s: one FLOP, or one byte, takes a nanosecond.
GIGA = 10**9


def peak(engine: Any, dtype: str, rate: int = GIGA) -> Peak:
    return Peak(engine, dtype, rate, Provenance("unsourced"))


def toy(*peaks: Peak, matmul: int = GIGA, vector: int = GIGA, bandwidth: int | None = GIGA, **other: Any) -> DeviceSpec:
    """float32 on both engines, and what else is given."""
    listed = (peak("matmul", "float32", matmul), peak("vector", "float32", vector), *peaks)
    return DeviceSpec("toy", "Toy", "nobody", peaks=listed, bandwidth_bytes_per_s=bandwidth, **other)


def op(matmul: int = 0, moved: int = 0, vector: int = 0, rebuilt: int = 0, name: str = "made") -> OpSignature:
    """A float32 op of so many FLOPs of each kind and bytes; ``rebuilt`` are matmul FLOPs of recomputation."""
    price = Declared(
        "here",
        matmul_flops=matmul,
        vector_flops=vector,
        recompute_matmul_flops=rebuilt,
        read_bytes=moved,
        write_bytes=0,
    )
    return OpSignature(f"mylib.{name}.default", (("x", tensor(3)),), (tensor(3),), declared=price)


def ns(compute: int = 0, memory: int = 0, launch: int = 0) -> Attainable:
    """Times given in nanoseconds, rounded once as any quotient is."""
    return Attainable(compute / GIGA, memory / GIGA, launch / GIGA)


def whole_ns(attainable: Attainable) -> tuple[int, int, int]:
    """The nanoseconds behind times that are whole ones: exact below 2^53."""
    return round(attainable.compute_s * GIGA), round(attainable.memory_s * GIGA), round(attainable.launch_s * GIGA)
