"""How fast the steps of a run were, in sentences."""

from __future__ import annotations

from attnprof.analysis.pace import WIDE, KindPace, Pace
from attnprof.core.units import Units, duration

#: Kinds of steps that have a line of their own.
_NAMED = 4


def sentences(pace: Pace, units: Units) -> list[str]:
    """What was counted and timed, the pace of all timed steps, and of each kind where there are several."""
    total = pace.counted + pace.reused
    counted = f"steps: {total:,}; {pace.counted:,} counted, {pace.reused:,} with the counts of one like them"
    if not pace.timed or pace.main is None:
        return [f"{counted}, none timed: a step is where one like it was counted before."]
    found = [f"{counted}, {pace.timed:,} timed{_clock(pace)}", _speed(pace, units)]
    timed = [kind for kind in pace.kinds if kind.kind.times.count]
    if len(timed) > 1:
        found += [_kind(kind, units) for kind in timed[:_NAMED]]
        if len(timed) > _NAMED:
            found.append(f"and {len(timed) - _NAMED} further kinds of steps")
    found += [kind.achieved.contradiction for kind in timed if kind.achieved and kind.achieved.contradiction]
    spread = pace.main.kind.times.spread
    if spread is not None and spread > WIDE:
        found.append(
            f"The middle half of the times spreads over {spread:.0%} of the median: something else was running, or "
            "the steps were not alike."
        )
    if pace.device is not None and pace.missing:
        found.append(
            f"No utilisation: {pace.device.id} has no known matmul peak for {', '.join(pace.missing)}; give one with "
            f"--peak {pace.missing[0]}=..., or in a device file."
        )
    for name, value in (("MFU", pace.mfu), ("HFU", pace.hfu)):
        if value is not None and value > 1:
            found.append(
                f"Contradiction: {name} {value:.1%} is more than all of the peak. The peak is not this device's, the "
                "arithmetic ran in another dtype (TF32), or the clock stopped too early."
            )
            break
    return found


def _speed(pace: Pace, units: Units) -> str:
    """``12.3 ms a step (±1.2%) · 81.0 GFLOP/s of the model · MFU 26.0%, HFU 34.1% of h100-sxm (dense)``."""
    main = pace.main
    assert main is not None
    parts = [f"{_step(main)} a step"]
    rate = pace.flops_per_s
    if rate:
        parts.append(f"{units.named(rate, 'matmul')}/s of the model's matmuls")
    if pace.mfu is not None and pace.hfu is not None and pace.device is not None:
        parts.append(f"MFU {pace.mfu:.1%}, HFU {pace.hfu:.1%} of {pace.device.id} (dense peaks)")
    if main.achieved is not None:
        parts.append(f"{main.achieved.percent}% of the roofline ({duration(main.achieved.attainable_s)} at best)")
    for name, number in (("tokens", pace.tokens_per_s), ("samples", pace.samples_per_s)):
        if number:
            parts.append(f"{units.text(number, 'count')} {name}/s")
    return " · ".join(parts)


def _kind(pace: KindPace, units: Units) -> str:
    inputs = ", then ".join(pace.kind.inputs) or "no call of the model"
    if len(inputs) > 60:
        inputs = f"{inputs[:57]}..."
    work = units.named(pace.work.model.matmul_flops, "matmul")
    return f"  {pace.kind.times.count:,} x {_step(pace)}, {work} of matmul each: {inputs}"


def _step(pace: KindPace) -> str:
    spread = pace.kind.times.spread
    near = "" if spread is None else f" (spread {spread:.1%})"
    return f"{duration(pace.step_s or 0)}{near}"


def _clock(pace: Pace) -> str:
    return " by CUDA events" if pace.timing.clock == "cuda events" else ""
