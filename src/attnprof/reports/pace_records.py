"""The pace of a run as plain data."""

from __future__ import annotations

from typing import Any

from attnprof.analysis.pace import Pace


def record(pace: Pace) -> dict[str, Any]:
    """Steps by kind, rates per second, and utilisation (0 to 1) on the device, None where it is not known."""
    return {
        "device": None if pace.device is None else pace.device.id,
        "counted": pace.counted,
        "reused": pace.reused,
        "timed": pace.timed,
        "seconds": pace.seconds,
        "model_flops_per_s": pace.flops_per_s,
        "hardware_flops_per_s": pace.hardware_flops_per_s,
        "mfu": pace.mfu,
        "hfu": pace.hfu,
        "tokens_per_s": pace.tokens_per_s,
        "samples_per_s": pace.samples_per_s,
        "kinds": [
            {
                "inputs": list(one.kind.inputs),
                "counted": one.kind.counted,
                "reused": one.kind.reused,
                "timed": one.kind.times.count,
                "median_s": one.step_s,
                "spread": one.kind.times.spread,
                "model_matmul_flops": one.work.model.matmul_flops,
                "matmul_flops": one.work.cost.matmul_flops,
                "attainable_s": None if one.achieved is None else one.achieved.attainable_s,
            }
            for one in pace.kinds
        ],
    }
