"""A calibration of an imagined machine, in round numbers."""

from __future__ import annotations

from attnprof.core.calibration import Calibration, Conditions, Measured, Measurement, Refusal
from attnprof.core.timing import Durations

MS = 1_000_000  # ns
CONDITIONS = Conditions("2026-11-21", "a-host", "A Processor", 8, "cpu", 4, "2.13.0")


def measurement(
    kind: Measured, name: str, work: int, at: str = "a size", times: tuple[int, ...] = (MS, MS, MS, MS), calls: int = 1
) -> Measurement:
    return Measurement(kind, name, work, at, calls, Durations.of(times))


def calibration(**changes: object) -> Calibration:
    """200 and 400 GFLOP/s, 50 GB/s, 500 ns."""
    made: dict[str, object] = {
        "conditions": CONDITIONS,
        "measurements": (
            measurement("matmul", "float32", 100_000_000, "A·B of 64 × 64"),
            measurement("matmul", "float32", 200_000_000, "A·B of 128 × 128"),
            measurement("matmul", "bfloat16", 400_000_000, "A·Bᵀ of 128 × 128"),
            measurement("matmul", "int8", 800_000_000, "A·B of 128 × 128"),
            measurement("vector", "float32", 20_000_000, "lerp of 65,536 elements"),
            measurement("bandwidth", "copy", 40_000_000, "arrays of 64 MiB"),
            measurement("bandwidth", "triad", 50_000_000, "arrays of 64 MiB"),
            measurement("launch", "throughput", 1, "neg_ of 1 element", calls=2000),
        ),
        "processor_share": 1.0,
        "memory_bytes": 16 * 2**30,
        "cache_bytes": 32 * 2**20,
        "units": 8,
    }
    return Calibration(**{**made, **changes})  # type: ignore[arg-type]


REFUSED = Refusal("matmul", "float8", "no kernel")
