"""The ways that steps go, what each part of one costs, and how often it was gone.

A step's way is what it calls, in segments: a run of calls of the model, or one step of an optimizer. What happens
until the next segment begins (the backward, the gradients set to zero) is part of a segment; it differs with what
that is (gradients are clipped before an optimizer's step), and where autograd made another number of nodes, there was
other work. Ways that begin alike share those segments, so that a program's ways are a tree.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field

from attnprof.capture.calls import Calls
from attnprof.capture.clocks import Times
from attnprof.core.signature import OpSignature
from attnprof.core.timing import StepKind
from attnprof.core.trace import Repeat

#: The keys of the calls of a segment, or of its optimizer step, as numbers.
Segment = tuple[int, ...]
#: What a segment is, what comes after it (a number, or one of those below), and how many nodes autograd made in it
#: (None: not comparable).
Stretch = tuple[Segment, int, int | None]
#: After a segment: the end of the step, a call of the model. In one: the call was ended by an exception.
END, CALL, FAILED = -1, -2, -3
#: How many numbers of nodes are told apart in one place: of more, they are different in every step.
_MANY = 8
#: How many steps are counted in search of a segment that was gone while nothing was counted, or of a lead.
PATIENCE = 32
#: The calls that are named of a way that goes on.
_NAMED = 4


@dataclass(slots=True)
class Piece:
    """Op calls ``start`` to ``stop`` - 1 and the module calls among them; they stand for ``times`` more."""

    start: int
    stop: int
    calls: Calls
    times: int = 0


@dataclass(slots=True)
class Way:
    """A way up to the end of one segment: that segment, and what comes after it.

    ``piece`` is the latest count of the segment; without one, ``owed`` are the times it was gone bare. The rest is
    of the steps that ended here.
    """

    parent: Way | None = None
    stretch: Stretch = ((), END, None)
    ways: dict[Stretch, Way] = field(default_factory=dict)
    alike: dict[tuple[Segment, int], list[Way]] = field(default_factory=dict)  # of those, whatever their nodes
    firsts: set[int] = field(default_factory=set)  # what the segments after this one begin with, where counted
    piece: Piece | None = None
    owed: int = 0
    searched: int = 0
    differed: bool = False
    counted: int = 0
    reused: int = 0
    since: int = 0  # steps since the last that was counted
    tokens: int = 0
    samples: int = 0
    times: Times = field(default_factory=Times)

    def to_here(self) -> list[Way]:
        """From the first segment to this one."""
        found, way = [], self
        while way.parent is not None:
            found.append(way)
            way = way.parent
        return found[::-1]

    @property
    def numbers(self) -> Segment:
        return tuple(number for way in self.to_here() for number in way.stretch[0])


class Ways:
    """All ways of one capture, with the leads of steps: what they do before their first call, such as loading data.

    A lead goes with the first call.
    """

    def __init__(self) -> None:
        self.start = Way()
        self._before: list[Way] = []  # the starts of before the times that all was forgotten
        self.pieces: list[Piece] = []
        self._unknown: list[Way] = []
        self._leads: dict[int, Piece] = {}  # the latest, by the first call
        self._owed: dict[int, int] = defaultdict(int)  # steps whose lead was not counted, and is not known
        self._latest: Piece | None = None  # of the leads
        #: First calls whose lead is not known: steps whose lead was counted in search of it, until it is given up.
        self._leadless: dict[int, int] = {}
        self._given_up: set[int] = set()
        self._sought: bool | None = None  # searching: None when something has changed

    def counted(
        self, way: Way, stretch: Stretch, piece: Piece, events: Sequence[int], known: Sequence[OpSignature]
    ) -> Way:
        """A segment was counted; ``events`` are all op calls so far, as numbers in ``known``."""
        self._sought = None
        found = self._next(way, stretch)
        if found.piece is None:
            piece.times += found.owed
            found.owed = 0
            self._unknown = [other for other in self._unknown if other is not found]
        else:
            before, now = (_work(events[one.start : one.stop], known) for one in (found.piece, piece))
            found.differed |= before != now
        found.piece = piece
        if FAILED not in stretch[0]:
            way.firsts.update(stretch[0][:1])
            if way is self.start and stretch[0] and not self._is_sought(stretch[0][0]):
                self._leadless.setdefault(stretch[0][0], 0)
        return found

    def reused(self, way: Way, stretch: Stretch) -> Way:
        """A segment ran bare: it cost what it did when it was counted, or what it does when it will be."""
        found = way.ways.get(stretch)
        if found is None:
            found = self._next(way, stretch)
        if found.piece is not None:
            found.piece.times += 1
        else:
            if not found.owed:
                self._unknown.append(found)
                found.searched = PATIENCE if FAILED in stretch[0] else 0  # no step is made to fail again
                self._sought = None
            found.owed += 1
        return found

    def ended(self, way: Way, *, counted: bool) -> None:
        """A step ended, all of it counted or not."""
        if counted:
            way.counted += 1
            way.since = 0
            for other in self._unknown:
                other.searched += 1
                self._sought = None
        else:
            way.reused += 1
            way.since += 1

    def forget(self) -> None:
        """From now on every way is a new one."""
        self._before.append(self.start)
        self.start, self._unknown, self._sought = Way(), [], None
        self._leadless.clear()
        self._given_up.clear()

    def _next(self, way: Way, stretch: Stretch) -> Way:
        found = way.ways.get(stretch)
        if found is None:
            segment, then, nodes = stretch
            same = way.alike.setdefault((segment, then), [])
            if same and (nodes is None or len(same) >= _MANY):
                return max(same, key=lambda other: -1 if other.piece is None else other.piece.stop)
            found = way.ways[stretch] = Way(way, stretch)
            same.append(found)
        return found

    @property
    def searching(self) -> bool:
        """Whether steps are to be counted until one goes a segment that is not known."""
        if self._sought is None:
            self._unknown = [way for way in self._unknown if way.searched < PATIENCE]
            self._sought = bool(self._unknown)
        return self._sought

    @property
    def listening(self) -> bool:
        """Whether leads are to be counted until those of all first calls are."""
        return bool(self._leadless)

    # Leads

    def led(self, first: int, lead: Piece) -> None:
        """The lead of a step with this first call was counted."""
        lead.times += self._owed.pop(first, 0)
        self._leads[first] = self._latest = lead
        self._leadless.pop(first, None)
        for other in list(self._leadless):
            self._leadless[other] += 1
            if self._leadless[other] == PATIENCE:
                del self._leadless[other]
                self._given_up.add(other)

    def unled(self, first: int) -> None:
        """That of one was not: it is as those of others."""
        lead = self._leads.get(first)
        if lead is None:
            self._owed[first] += 1
        else:
            lead.times += 1

    def lead_of(self, way: Way) -> Piece | None:
        """That of the steps that go a way; None where it is not known."""
        numbers = way.numbers
        return self._leads.get(numbers[0]) if numbers else None

    def _is_sought(self, first: int) -> bool:
        """Whether the lead of steps with this first call is known, or was looked for."""
        return first in self._leads or first in self._given_up

    # Afterwards

    def repeats(self) -> list[Repeat]:
        """The events that stand for more. A lead that was never seen is taken to be as the last that was."""
        times = {id(piece): piece.times for piece in self.pieces}
        for way in self._all():
            if way.owed and (piece := _stand_in(way)) is not None:
                times[id(piece)] += way.owed
        found = [Repeat(piece.start, piece.stop, times[id(piece)]) for piece in self.pieces if times[id(piece)]]
        latest, owed = self._latest, sum(self._owed.values())
        return [*found, Repeat(latest.start, latest.stop, owed)] if latest is not None and owed else found

    def step_kinds(self, labels: Sequence[str]) -> tuple[StepKind, ...]:
        """Those that are known, the most frequent first; ``labels`` are those of the keys."""
        found = [self.step_kind(way, labels) for way in self._all() if way.counted or way.reused]
        return tuple(sorted(found, key=lambda kind: -(kind.counted + kind.reused)))

    def step_kind(self, way: Way, labels: Sequence[str] = ()) -> StepKind:
        """One as a value."""
        numbers = way.numbers
        lead = self._leads.get(numbers[0], self._latest) if numbers else None
        pieces = [lead, *(segment.piece or _stand_in(segment) for segment in way.to_here())]
        return StepKind(
            inputs=tuple(_label(number, labels) for number in numbers) if labels else (),
            pieces=tuple((p.start, p.stop) for p in pieces if p is not None and p.stop > p.start),
            counted=way.counted,
            reused=way.reused,
            times=way.times.durations(),
            tokens=way.tokens or None,
            samples=way.samples or None,
        )

    def notes(self, labels: Sequence[str]) -> list[str]:
        """What a reader must know: what is not in the totals, and counts that were not the same again."""
        found = []
        if owed := sum(self._owed.values()):
            found.append(
                f"What {_steps(owed)} did before the first call of the model was not counted, and is taken to be "
                "what another step did there."
            )
        for way in self._all():
            if way.owed and _stand_in(way) is None:
                found.append(
                    f"Part of {_steps(way.owed)} was not counted and is not in the totals: no step that was counted "
                    f"went this way: {_named(way, labels)}."
                )
            elif way.owed:
                found.append(
                    f"Part of {_steps(way.owed)} ({_named(way, labels)}) was not counted, and is taken to be as in "
                    "others that called the same: what happened between the calls, or in them, was something else."
                )
            elif way.differed:
                found.append(
                    f"Steps of one kind ({_named(way, labels)}) did not cost the same when they were counted again: "
                    "those that were not counted are taken to be as the last one before."
                )
        return found

    def _all(self) -> Iterator[Way]:
        todo = [*self._before, self.start]
        while todo:
            way = todo.pop(0)
            todo += way.ways.values()
            if way.parent is not None:
                yield way


def _named(way: Way, labels: Sequence[str]) -> str:
    numbers = way.numbers
    if not numbers:
        return "no call of the model"
    more = f", and {len(numbers) - _NAMED} more" if len(numbers) > _NAMED else ""
    return ", then ".join(_label(number, labels) for number in numbers[:_NAMED]) + more


def _label(number: int, labels: Sequence[str]) -> str:
    return "an exception" if number == FAILED else labels[number]


def _stand_in(way: Way) -> Piece | None:
    """The latest count of the same segment: where the same came after it, or else something other."""
    same = [] if way.parent is None else [o for o in way.parent.ways.values() if o.stretch[0] == way.stretch[0]]
    counted = [other for other in same if other.piece is not None]
    pieces = [other.piece for other in counted if other.stretch[1] == way.stretch[1]] or [o.piece for o in counted]
    return max((piece for piece in pieces if piece is not None), key=lambda piece: piece.stop, default=None)


def _steps(count: int) -> str:
    return "1 step" if count == 1 else f"{count:,} steps"


def _work(events: Sequence[int], known: Sequence[OpSignature]) -> Counter[Hashable]:
    """The ops with their tensors: numbers such as an optimizer's bias correction change from step to step."""
    found: Counter[Hashable] = Counter()
    for number, calls in Counter(events).items():
        found[known[number].op, known[number].inputs, known[number].outs] += calls
    return found
