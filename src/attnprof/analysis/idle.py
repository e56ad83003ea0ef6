"""Forward calls that no backward can have followed: evaluation inside a training run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from attnprof.core.trace import OUTSIDE, ROOT, Trace

#: Calls by (module, signature).
Calls = Counter[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Idle:
    """Op calls of forwards without a backward, and whether these are ``all`` of them."""

    calls: Calls
    all: bool


def idle(trace: Trace, trains: Callable[[int, int], bool]) -> Idle:
    """What of a trace with a backward had none; ``trains`` tells ops (module, signature) that use a trainable weight.

    Whatever comes after the last backward; and calls of the model for which autograd kept nothing, not even
    what a trainable weight is multiplied with. A trace does not say which calls these were, so they are told
    only where all calls were alike.
    """
    phases = [scope.phase for scope in trace.scopes]
    end = next(i for i in range(len(trace) - 1, -1, -1) if phases[trace.event_scopes[i]] == "backward") + 1
    trailing = _forward_calls(trace, end, len(trace))
    calls = trace.modules[ROOT].calls
    number = sum(calls.values())
    if number <= 1 and not _called_without_the_model(trace):
        return Idle(trailing, True)
    if trace.memory is None or not number:
        return Idle(trailing, False)
    kept = sum(
        trace.times(saved.at)
        for saved in trace.memory.saved
        if saved.by_module and saved.at <= end and _ends_model(trace, saved.at)
    )
    if kept == number:
        return Idle(trailing, True)
    found = _forward_calls(trace, 0, len(trace))
    alike = len(calls) == 1 and not any(count % number for count in found.values())
    if not alike or kept > number or not any(trains(*key) for key in found):
        return Idle(trailing, False)
    return Idle(Counter({key: count // number * (number - kept) for key, count in found.items()}), True)


def _forward_calls(trace: Trace, start: int, end: int) -> Calls:
    """Forward op calls in modules among the events from ``start`` to ``end``."""
    found: Calls = Counter()
    for (signature, scope), calls in trace.counts_in(start, end).items():
        where = trace.scopes[scope]
        if where.phase == "forward" and where.module != OUTSIDE:
            found[where.module, signature] += calls
    return found


def _called_without_the_model(trace: Trace) -> bool:
    """Whether there is no model, or not one that was called, and some module was called more than once."""
    root = trace.modules[ROOT]
    return not root.call_count and any(record.call_count > 1 for record in trace.modules)


def _ends_model(trace: Trace, at: int) -> bool:
    """Whether the module call that ended there was of the model, and not of a loss that is a module."""
    module = trace.scopes[trace.event_scopes[at - 1]].module if at else OUTSIDE
    while module != ROOT:
        record = trace.modules[module]
        if record.parent in (ROOT, None) and record.fqn.startswith("("):
            return False
        module = record.parent or ROOT
    return True
