"""How fast the steps of a run were, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from attnprof.analysis.pace import WIDE, KindPace, Pace
from attnprof.core.units import Units, duration, share

#: Kinds of steps that have a line of their own.
_NAMED = 4


def sentences(paces: Sequence[Pace], units: Units) -> list[str]:
    """What was counted and timed, the pace of all timed steps, and of each kind where there are several.

    ``paces`` are those of one run, on each device that it is held against, or on none.
    """
    if not paces:
        return []
    pace = paces[0]
    total = pace.counted + pace.reused
    counted = f"steps: {total:,}; {pace.counted:,} counted, {pace.reused:,} with the counts of one like them"
    if not pace.timed or pace.main is None:
        return [f"{counted}, none timed: a step is where one like it was counted before."]
    clock = " by CUDA events" if pace.timing.clock == "cuda events" else ""
    found = [f"{counted}, {pace.timed:,} timed{clock}", _speed(pace, units)]
    found += [", ".join(_utilisation(pace)) for pace in paces if _utilisation(pace)]
    timed = [kind for kind in pace.kinds if kind.kind.times.count]
    if len(timed) > 1:
        found += [_kind(kind, units) for kind in timed[:_NAMED]]
        if len(timed) > _NAMED:
            found.append(f"and {len(timed) - _NAMED} further kinds of steps")
    spread = pace.main.kind.times.spread
    if spread is not None and spread > WIDE:
        found.append(
            f"The middle half of the times spreads over {spread:.0%} of the median: something else was running, or "
            "the steps were not alike."
        )
    return found + [warning for pace in paces for warning in _warnings(pace)]


def _warnings(pace: Pace) -> list[str]:
    """What cannot be true, and what cannot be said."""
    achieved = [kind.achieved for kind in pace.kinds if kind.achieved is not None]
    found = [one.contradiction for one in achieved if one.contradiction is not None]
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
    """``12.3 ms a step (spread 1.2%) · 81.0 GFLOP/s of the model's matmuls · 650 samples/s``."""
    main, rate = pace.main, pace.flops_per_s
    assert main is not None
    parts = [f"{_step(main)} a step"]
    if rate:
        parts.append(f"{units.named(rate, 'matmul')}/s of the model's matmuls")
    for name, number in (("tokens", pace.tokens_per_s), ("samples", pace.samples_per_s)):
        if number:
            parts.append(f"{units.text(number, 'count')} {name}/s")
    return " · ".join(parts)


def _utilisation(pace: Pace) -> list[str]:
    """``h100-sxm: MFU 26.0%``, ``HFU 34.1% of the dense peaks``, ``41.2% of the roofline (5.1 ms at best)``."""
    device, main = pace.device, pace.main
    if device is None or main is None:
        return []
    parts = []
    if pace.mfu is not None and pace.hfu is not None:
        parts += [f"MFU {share(pace.mfu, 1)}%", f"HFU {share(pace.hfu, 1)}% of the dense peaks"]
    if main.achieved is not None:
        parts.append(f"{main.achieved.percent}% of the roofline ({duration(main.achieved.attainable_s)} at best)")
    return [f"{device.id}: {parts[0]}", *parts[1:]] if parts else []


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
