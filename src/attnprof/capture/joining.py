"""Whose time is it: the events of a profiled step, joined to modules and phases.

An event is what torch's profiler has recorded: an op, a node that autograd runs, or a scope that was opened
around a module's forward or an optimizer's step. The rules, for each thread in the order of its events:

1. an event's own time is its duration less that of the events in it; it belongs to the innermost scope;
2. an op carries the number of the node that autograd makes next, and claims it for its module. One that makes
   none carries the number of the op after it, so the last claim holds. A number that nobody claims (an op made
   several nodes) belongs to the claim before it;
3. a node that runs, and all in it, belongs to the module that claimed its number, in the thread that made it.
   Its hooks run beside the body that has the number; a node may run the body of another one;
4. a scope inside a node is a module that runs again: recompute, of that module. So is an op in a node that
   could make nodes of its own, unless all of that backward could: it builds a graph of the backward;
5. gradient accumulation has no number and names no parameter: it is a line of its own.

An instant in which several threads, or several kernels, are at work belongs to the one that began first.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from attnprof.capture.step_events import ACCUMULATES, ACCUMULATION, UNSEEN, Event, Joined, Kernel
from attnprof.core.trace import OPTIMIZER, OUTSIDE


@dataclass(slots=True)
class _Work:
    """Where time goes. One object for all that may yet turn out to be in another phase."""

    module: int
    phase: str


@dataclass(slots=True)
class _Backward:
    """One walk of autograd: whether any of its nodes ran ops of which none could make nodes."""

    plain: bool = False
    tentative: list[_Work] = field(default_factory=list)


@dataclass(slots=True)
class _Node:
    """A node that runs: which of the ops right in it could make nodes."""

    backward: _Backward
    ops: int = 0
    numbered: int = 0


@dataclass(slots=True)
class _Frame:
    """An event that has begun. ``work`` is where the time in it goes; ``node`` the innermost one it is in."""

    event: Event
    end: int
    work: _Work
    node: _Node | None
    direct: bool  # no scope stands between it and its node
    backward: _Backward | None = None  # the one whose nodes run right in it

    @property
    def works(self) -> bool:
        """Whether its own time is work: a scope's is Python between ops, unless it is the profiler's."""
        return self.event.kind in ("op", "node", "body", "unseen")


_Segment = tuple[int, int, _Work]


def join(events: Iterable[Event], kernels: Sequence[Kernel] | None = None) -> Joined:
    """The time of one step by module and phase: of its ops, or of the kernels that they launched.

    One of the events is the step itself; what is not within it is left out.
    """
    walk = _walked(events)
    segments = walk.segments
    if kernels is not None:
        nobody = _Work(OUTSIDE, "other")
        segments = [(k.start, k.end, walk.by_ident.get(k.launched_by, nobody)) for k in kernels]
    return _charged(walk.step, segments)


def places(events: Iterable[Event]) -> dict[int, tuple[int, str]]:
    """The module and phase of each event in the step, by its :attr:`Event.ident`."""
    return {ident: (work.module, work.phase) for ident, work in _walked(events).by_ident.items()}


def _walked(events: Iterable[Event]) -> _Walk:
    ordered = sorted(events, key=lambda event: (event.start, -event.end, event.ident))
    walk = _Walk(next(event for event in ordered if event.kind == "step"), _bodies(ordered))
    for event in ordered:
        if event.start < walk.step.end and event.end >= walk.step.start:
            walk.begin(event)
    walk.finish()
    return walk


def _bodies(ordered: Iterable[Event]) -> dict[int, Event]:
    """The body of each node, by the node's :attr:`Event.ident`."""
    found: dict[int, Event] = {}
    nodes: dict[int, list[Event]] = {}  # by thread, those that have begun
    for event in ordered:
        running = nodes.setdefault(event.thread, [])
        while running and running[-1].end <= event.start:
            running.pop()
        if event.kind == "node":
            running.append(event)
        elif event.kind == "body" and running:
            found.setdefault(running[-1].ident, event)
    return found


def _charged(step: Event, segments: Iterable[_Segment]) -> Joined:
    layers: dict[tuple[int, str], int] = {}
    special = {ACCUMULATION: 0, UNSEEN: 0}
    past = step.start
    for start, end, work in sorted(segments, key=lambda segment: segment[:2]):
        own = min(end, step.end) - max(start, past)
        if own <= 0:
            continue
        past = min(end, step.end)
        if work.module in special:
            special[work.module] += own
        else:
            key = (work.module, work.phase)
            layers[key] = layers.get(key, 0) + own
    return Joined(step.end - step.start - special[UNSEEN], layers, special[ACCUMULATION])


class _Walk:
    """The events of all threads in the order in which they began."""

    def __init__(self, step: Event, bodies: Mapping[int, Event]) -> None:
        self.step = step
        self._bodies = bodies
        self.segments: list[_Segment] = []
        self.by_ident: dict[int, _Work] = {}
        self._stacks: dict[int, list[_Frame]] = {}
        self._reached: dict[int, int] = {}  # by thread: up to when its time has gone somewhere
        self._numbers: dict[int, list[int]] = {}  # by thread: the numbers that were claimed ...
        self._claims: dict[int, list[_Work]] = {}  # ... and for whom
        self._backwards: dict[int, _Backward] = {}  # in threads that run nodes and nothing else
        self._all: list[_Backward] = []
        self._outside: list[_Work] = []

    def begin(self, event: Event) -> None:
        """The next event begins: those that are over end, and the time up to now is theirs."""
        stack = self._stacks.setdefault(event.thread, [])
        self._return(event.thread, stack, event.start)
        above = stack[-1] if stack else None
        frame = self._frame(event, above)
        self.by_ident[event.ident] = frame.work
        if above is not None and above.works:
            self._emit(event.thread, event.start, above)
        self._reached[event.thread] = event.start
        stack.append(frame)

    def finish(self) -> None:
        """No event is left; what was not known yet is decided."""
        for thread, stack in self._stacks.items():
            self._return(thread, stack, None)
        for backward in self._all:
            if not backward.plain:
                for work in backward.tentative:
                    work.phase = "backward"
        made = {id(work) for works in self._claims.values() for work in works}
        for work in self._outside:
            if id(work) not in made:
                work.phase = "other"

    def _return(self, thread: int, stack: list[_Frame], now: int | None) -> None:
        while stack and (now is None or stack[-1].end <= now):
            frame = stack.pop()
            if frame.works:
                self._emit(thread, frame.end, frame)
            self._reached[thread] = frame.end
            if frame.event.kind == "node" and frame.node is not None:
                frame.node.backward.plain |= frame.node.ops > 0 and not frame.node.numbered

    def _emit(self, thread: int, now: int, frame: _Frame) -> None:
        start = self._reached.get(thread, frame.event.start)
        if now > start:
            self.segments.append((start, now, frame.work))

    def _frame(self, event: Event, above: _Frame | None) -> _Frame:
        end = event.end if above is None else min(event.end, above.end)
        work = _Work(OUTSIDE, "forward") if above is None else above.work
        node = None if above is None else above.node
        direct = above is not None and above.direct
        if above is not None and event.kind != "node":
            above.backward = None  # nodes that come after this are of another one
        if event.kind == "module":
            return _Frame(event, end, _Work(event.module, "forward" if node is None else "recompute"), node, False)
        if event.kind == "optimizer":
            return _Frame(event, end, _Work(OPTIMIZER, "optimizer"), None, False)
        if event.kind == "unseen":
            return _Frame(event, end, _Work(UNSEEN, "other"), None, False)
        if event.kind == "node":
            return self._node(event, end, above)
        if event.kind == "body" and event.number >= 0 and direct:
            work = _Work(self._owner(event), "backward")
        if event.kind == "op":
            if above is None or above.event.kind != "op":
                work = self._op(event, work, node if direct else None)
            if event.number >= 0:
                self._claim(event.thread, event.number, work)
        return _Frame(event, end, work, node, direct)

    def _node(self, event: Event, end: int, above: _Frame | None) -> _Frame:
        backward = self._backwards.get(event.thread) if above is None else above.backward
        if backward is None:
            backward = _Backward()
            self._all.append(backward)
        if above is None:
            self._backwards[event.thread] = backward
        else:
            above.backward = backward
        if event.name == ACCUMULATES:
            return _Frame(event, end, _Work(ACCUMULATION, "backward"), _Node(backward), False)
        module = self._owner(self._bodies.get(event.ident, event))
        return _Frame(event, end, _Work(module, "backward"), _Node(backward), True)

    def _op(self, event: Event, work: _Work, node: _Node | None) -> _Work:
        """Where an op that is in no other goes; ``node`` is the one it is right in."""
        if node is not None:
            node.ops += 1
            if event.number < 0:
                return work
            node.numbered += 1
            work = _Work(work.module, "recompute")
            node.backward.tentative.append(work)
        elif work.module == OUTSIDE and work.phase == "forward":
            work = _Work(OUTSIDE, "forward")
            self._outside.append(work)
        return work

    def _claim(self, thread: int, number: int, work: _Work) -> None:
        numbers, works = self._numbers.setdefault(thread, []), self._claims.setdefault(thread, [])
        if numbers and numbers[-1] == number:
            works[-1] = work
        elif not numbers or numbers[-1] < number:
            numbers.append(number)
            works.append(work)

    def _owner(self, body: Event) -> int:
        at = bisect_right(self._numbers.get(body.made_in, ()), body.number) - 1
        return OUTSIDE if at < 0 or body.number < 0 else self._claims[body.made_in][at].module
