"""The products of a profiled step by module and phase, to be held against what was derived or counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from torch import nn

from attnprof.capture.joining import places
from attnprof.capture.modules import Modules
from attnprof.capture.process import PROCESS
from attnprof.capture.profiled_step import Recording, silent
from attnprof.capture.scope_marks import STEP, ScopeMarks
from attnprof.capture.step_events import ACCUMULATION

#: Ops that multiply matrices, as both the profiler and the counts name them.
PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "addbmm", "mv", "addmv", "dot", "addmm_"}


def profiled(model: nn.Module, step: Callable[[], Any], ops: set[str] = PRODUCTS) -> Counter[tuple[str, str, str]]:
    """How often each op ran in one step, by module, phase and name."""
    modules = Modules(model)
    recording, marks = Recording(cuda=False), ScopeMarks(modules)
    PROCESS.enter()
    try:
        with silent(), recording.running(), marks.installed(), marks.scope(STEP):
            step()
    finally:
        PROCESS.leave()
    events = recording.events()
    where = places(events)
    found: Counter[tuple[str, str, str]] = Counter()
    for event in events:
        name = event.name.removeprefix("aten::")
        if event.kind == "op" and name in ops:
            module, phase = where[event.ident]
            found["(accumulation)" if module == ACCUMULATION else modules.records[module].fqn, phase, name] += 1
    return found
