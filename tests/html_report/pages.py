"""Reports to make pages of: a GPT that was trained, and runs made by hand."""

from __future__ import annotations

from attnprof.api import Report
from attnprof.core.memory import MemoryTrace
from attnprof.core.trace import ModuleRecord, ParameterRecord, Scope, Trace
from reports.traces import Hand, mm, unknown

#: Names that would do something if they were read as anything but text.
HOSTILE = (
    "<script>window.hit = 1</script>",
    "</script><script>window.hit = 2</script>",
    "\"><img src=x onerror='window.hit = 3'>",
    "<b>bold</b> &lt;i&gt; %{label} $x$ {{ 7 * 7 }}",
    "<a href='https://example.com/'>link</a>",
    "\u202egnp.exe\u2066",
    "line\u2028separator\u2029\x00\x1b[31m\ud800",
    "__proto__",
)


def report(trace: Trace, *devices: str) -> Report:
    from attnprof.api.report import specs

    made = Report(trace)
    made.devices = specs(",".join(devices)) if devices else ()
    return made


def hostile() -> Trace:
    """Modules, classes, ops, notes and facts with names that would do something."""
    hand = Hand(HOSTILE[0])
    for position, name in enumerate(HOSTILE):
        safe = name.replace(".", "·")  # a dot would be another level
        hand.add(safe, name, params={position: 8}).ran(safe, mm(4, 8, 16), times=1 + position)
        hand.ran(safe, unknown(f"evil.{safe}.default", 25 + position))
    hand.trace.notes.extend(HOSTILE)
    hand.trace.meta["model"] = HOSTILE[1]
    return hand.trace


def wide(modules: int) -> Trace:
    """A model of so many modules: blocks of 99 unlike layers each, so that nothing folds."""
    trace = Hand("Wide").trace
    for index in range(modules):
        block, place = divmod(index, 100)
        if place == 0:
            trace.modules.append(ModuleRecord(f"b{block}", "Block", 0, calls={("float32[4,8]",): 1}))
            parent = len(trace.modules) - 1
            continue
        weights = (ParameterRecord("weight", (8, 1 + index), "float32", True, index),)
        trace.modules.append(
            ModuleRecord(f"b{block}.l{place}", "Linear", parent, parameters=weights, calls={("float32[4,8]",): 1})
        )
        trace.scopes.append(Scope(len(trace.modules) - 1, "forward"))
        trace.signatures.append(mm(4, 8, 1 + index))
        trace.event_signatures.append(len(trace.signatures) - 1)
        trace.event_scopes.append(len(trace.scopes) - 1)
    return trace


def without_memory() -> Trace:
    return Hand().add("a").ran("a", mm(2, 3, 4)).trace


def with_memory(memory: MemoryTrace) -> Trace:
    trace = without_memory()
    trace.memory = memory
    return trace
