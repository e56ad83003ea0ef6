"""A run as weighted stacks, for flame graphs: phase, modules from the outermost to the innermost, op.

The weights of all stacks add up to the report's own total of what they weigh.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from attnprof.analysis import module_paths, tree
from attnprof.analysis.report import PHASES, Report
from attnprof.analysis.roofline_clock import Clock, kinds
from attnprof.core.device import DeviceSpec
from attnprof.core.errors import AttnprofError, closest

#: What a stack can weigh.
WEIGHTS = ("flops", "bytes", "saved", "time")


@dataclass(frozen=True, slots=True)
class Stack:
    """Frames from the outermost in, and the weight of what ran there: an integer above 0."""

    frames: tuple[str, ...]
    weight: int


def check(weight: str, device: DeviceSpec | None) -> None:
    """Raise :class:`AttnprofError` for a weight that is not known, and for time without a device."""
    if weight not in WEIGHTS:
        raise AttnprofError(f'weight "{weight}" is not one of {", ".join(WEIGHTS)}.{closest(weight, WEIGHTS)}')
    if weight == "time" and device is None:
        raise AttnprofError("the weight time is the least on a device: name one, such as h100-sxm.")


def stacks(report: Report, weight: str = "flops", device: DeviceSpec | None = None) -> list[Stack]:
    """The stacks of a run in the order of phases and of the module tree, those of no weight left out.

    ``weight``: ``flops``, ``bytes`` (traffic), ``saved`` (what autograd keeps for the backward, by module and not by
    op) or ``time`` (the least on ``device``, in nanoseconds). Raises :class:`AttnprofError` for another weight,
    for time without a device, and where nothing has the weight.
    """
    check(weight, device)
    found = _saved(report) if weight == "saved" else _ran(report, weight, device)
    if not found:
        what = {"flops": "did a FLOP", "bytes": "moved a byte", "saved": "was saved for a backward"}
        raise AttnprofError(
            f"there is no flame graph of this run by {weight}: nothing in it {what.get(weight, 'took time')}."
        )
    return found


def _ran(report: Report, weight: str, device: DeviceSpec | None) -> list[Stack]:
    """Op calls added up by phase, module and op; those of steps like the counted ones are in it."""
    trace = report.trace
    own, again, per_unit = _weights(report, weight, device)
    sums: dict[tuple[int, int, str], int] = {}
    for (signature, scope), calls in trace.counts().items():
        where, op = trace.scopes[scope], trace.signatures[signature].op
        for phase, amount in ((where.phase, own[signature]), (tree.again(where.phase), again[signature])):
            key = (PHASES.index("optimizer" if phase == "optimizer_init" else phase), where.module, op)
            sums[key] = sums.get(key, 0) + amount * calls
    chains, labels = module_paths.chains(trace), module_paths.labels(trace)
    order = sorted(sums, key=lambda key: (key[0], chains[key[1]]))
    frames = [(PHASES[phase], *(labels[i] for i in chains[module]), op) for phase, module, op in order]
    weights = _whole([sums[key] for key in order], per_unit)
    return [Stack(names, amount) for names, amount in zip(frames, weights, strict=True) if amount]


def _weights(report: Report, weight: str, device: DeviceSpec | None) -> tuple[list[int], list[int], tuple[int, int]]:
    """What a call of each signature weighs itself, what its recomputed part does, and units per so many of these."""
    if weight == "time" and device is not None:
        clock = Clock(device, kinds(report.priced))
        times = [clock.op(op) for op in report.priced]
        return [time.own for time in times], [time.again for time in times], (10**9, clock.per_second)
    costs = [(op.cost, op.recompute) for op in report.priced]
    if weight == "flops":
        return [cost.flops for cost, _ in costs], [again.flops for _, again in costs], (1, 1)
    return [cost.bytes for cost, _ in costs], [again.bytes for _, again in costs], (1, 1)


def _whole(amounts: list[int], per_unit: tuple[int, int]) -> Iterator[int]:
    """The amounts in whole units that add up to the rounded sum: each is the step between two rounded sums."""
    units, ticks = per_unit
    total = before = 0
    for amount in amounts:
        total += amount
        now = (2 * total * units + ticks) // (2 * ticks)
        yield now - before
        before = now


def _saved(report: Report) -> list[Stack]:
    if report.memory is None:
        raise AttnprofError("there is no flame graph of saved memory: memory was not tracked in this run.")
    trace = report.trace
    chains, labels = module_paths.chains(trace), module_paths.labels(trace)
    saved = report.memory.saved_by_module(inclusive=False)
    return [
        Stack(("forward", *(labels[i] for i in chain)), saved[trace.modules[chain[-1]].fqn])
        for chain in sorted(chains)
        if saved[trace.modules[chain[-1]].fqn]
    ]
