"""What each step of a run costs: a prefill, a decode step, a training step."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from attnprof.analysis import tree
from attnprof.core.cost import ZERO, Cost
from attnprof.core.memory import KVCache
from attnprof.core.roofline import Attainable
from attnprof.core.trace import Trace
from attnprof.core.work import PricedOp

#: The name of what ran after the last step had ended.
REST = "(after the last step)"


@dataclass(frozen=True, slots=True)
class StepCost:
    """One step: its cost, the same by phase, and the key-value cache it left.

    ``label`` is the name the step was given, or its number. ``cache`` is None when no module returned one in
    this step; ``cache_growth`` are the bytes it has more than after the step before. ``attainable`` is the
    least time on a device; None where none was asked about.
    """

    label: str
    cost: Cost
    phases: dict[str, Cost] = field(default_factory=dict)
    cache: KVCache | None = None
    cache_growth: int | None = None
    attainable: Attainable | None = None

    @property
    def cache_bytes(self) -> int | None:
        """Bytes of the cache after this step."""
        return None if self.cache is None else self.cache.bytes

    @property
    def tokens(self) -> int | None:
        """Tokens in the cache after this step; None where there is none, or its shapes do not say."""
        return None if self.cache is None else self.cache.tokens


def steps(trace: Trace, priced: Sequence[PricedOp]) -> list[StepCost]:
    """The steps of a trace whose signature ``i`` has the price ``priced[i]``; they add up to its total.

    Nothing for a run that marked no step. Ops after the last step are a step of their own, and so are all steps
    together that were not counted because one like them was.
    """
    ends = step_ends(trace)
    caches: dict[int, KVCache] = {}
    for cache in trace.memory.caches if trace.memory is not None else ():
        caches[min(bisect_left(ends, cache.at), len(ends) - 1)] = cache  # the last of a step is what it leaves
    found: list[StepCost] = []
    before = 0
    for position, (label, calls) in enumerate(step_calls(trace)):
        phases = _phases(trace, priced, calls)
        after = caches.get(position)
        growth = None if after is None else after.bytes - before
        found.append(StepCost(label, Cost.sum(phases.values()), phases, after, growth))
        before = before if after is None else after.bytes
    return found


def step_calls(trace: Trace) -> list[tuple[str, Counter[tuple[int, int]]]]:
    """The op calls of each step, by (signature, scope), under its name; together they are all of the trace."""
    ends = step_ends(trace)
    starts = [0, *ends][: len(ends)]
    found = [
        (_label(trace, position), trace.between(start, end))
        for position, (start, end) in enumerate(zip(starts, ends, strict=True))
    ]
    if ends and trace.repeats:
        again = trace.counts()
        again.subtract(trace.between(0, len(trace)))
        kinds = () if trace.timing is None else trace.timing.kinds
        found.append((f"({sum(kind.reused for kind in kinds):,} like these)", +again))
    return found


def step_ends(trace: Trace) -> list[int]:
    """The number of op calls at which each step had ended; what ran after the last is a step of its own."""
    ends = list(trace.steps)
    if ends and len(trace) > ends[-1]:
        ends.append(len(trace))
    return ends


def _label(trace: Trace, position: int) -> str:
    """The name of a step: the one it was given, or its number."""
    if position == len(trace.steps):
        return REST
    return trace.step_labels.get(position, f"{'counted ' if trace.repeats else ''}step {position + 1}")


def _phases(trace: Trace, priced: Sequence[PricedOp], steps: Mapping[tuple[int, int], int]) -> dict[str, Cost]:
    calls: Counter[tuple[str, int]] = Counter()
    for (signature, scope), count in steps.items():
        phase = trace.scopes[scope].phase
        calls["optimizer" if phase == "optimizer_init" else phase, signature] += count
    found: dict[str, Cost] = {}
    for (phase, signature), count in calls.items():
        op = priced[signature]
        for where, cost in ((phase, op.cost), (tree.again(phase), op.recompute)):
            if cost:
                found[where] = found.get(where, ZERO) + cost * count
    return found
