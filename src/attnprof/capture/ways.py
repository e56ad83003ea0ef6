"""The ways that steps went, what one step of each costs, and how often each was gone."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from attnprof.capture.calls import Calls
from attnprof.capture.clocks import Times
from attnprof.core.signature import OpSignature
from attnprof.core.timing import StepKind
from attnprof.core.trace import Repeat

#: The calls of the model and the steps of optimizers, in order, each as the number of its key.
Way = tuple[int, ...]
#: How many steps are counted in search of a way that a step went while nothing was counted, or of a lead.
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
class Kind:
    """Steps that went one way: the latest that was counted (None: not yet), and those that were not."""

    body: Piece | None = None
    counted: int = 0
    reused: int = 0
    since: int = 0  # the last that was counted
    searched: int = 0  # steps counted in search of one, before the first
    tokens: int = 0
    samples: int = 0
    times: Times = field(default_factory=Times)
    differed: bool = False


class Ways:
    """All ways of one capture.

    The lead of a step is what it does before its first call: loading data, say. It goes with the first call.
    """

    def __init__(self) -> None:
        self.kinds: dict[Way, Kind] = {}
        self._before: list[tuple[Way, Kind]] = []  # those of before the last time that all were forgotten
        self.firsts: set[int] = set()  # what known ways begin with
        self.pieces: list[Piece] = []
        self._leads: dict[int, Piece] = {}  # the latest, by the first call
        self._owed: dict[int, int] = defaultdict(int)  # steps whose lead was not counted, and is not known
        self._listened: dict[int, int] = defaultdict(int)  # steps whose lead was counted in search of this one
        self._sought: tuple[bool, bool] | None = None  # searching, listening: None when something has changed

    def counted(self, way: Way, body: Piece, events: Sequence[int], known: Sequence[OpSignature]) -> None:
        """A step was counted from its first call on; ``events`` are all op calls so far, as numbers in ``known``."""
        self._sought = None
        kind = self.kinds.setdefault(way, Kind())
        if kind.body is None:
            body.times += kind.reused
        else:
            before, now = (_work(events[piece.start : piece.stop], known) for piece in (kind.body, body))
            kind.differed |= before != now
        kind.body, kind.since = body, 0
        kind.counted += 1
        self.firsts.update(way[:1])
        for other in self.unknown():
            other.searched += 1

    def reused(self, way: Way, *, leads: bool) -> Kind:
        """A step ran bare: it cost what the counted one of its way did, or the next one will; its lead too, maybe."""
        if leads and way:
            self.unled(way[0])
        kind = self.kinds.get(way)
        if kind is None:
            kind = self.kinds[way] = Kind()
            self._sought = None
        kind.reused += 1
        kind.since += 1
        if kind.body is not None:
            kind.body.times += 1
        return kind

    def forget(self) -> None:
        """From now on every way is a new one."""
        self._before += self.kinds.items()
        self.kinds, self.firsts, self._sought = {}, set(), None

    def unknown(self) -> list[Kind]:
        """The kinds of which none was counted yet."""
        return [kind for kind in self.kinds.values() if kind.body is None]

    @property
    def searching(self) -> bool:
        """Whether steps are to be counted until one goes a way that is not known."""
        return self._looked()[0]

    @property
    def listening(self) -> bool:
        """Whether leads are to be counted until those of all known ways are."""
        return self._looked()[1]

    def _looked(self) -> tuple[bool, bool]:
        if self._sought is None:
            searching = any(kind.searched < PATIENCE for kind in self.unknown())
            self._sought = searching, any(self._listened[first] < PATIENCE for first in self._without_lead())
        return self._sought

    # Leads

    def led(self, first: int, lead: Piece) -> None:
        """The lead of a step with this first call was counted."""
        self._sought = None
        lead.times += self._owed.pop(first, 0)
        self._leads[first] = lead
        for other in self._without_lead():
            self._listened[other] += 1

    def unled(self, first: int) -> None:
        """That of one was not: it is as those of others."""
        lead = self._leads.get(first)
        if lead is None:
            self._owed[first] += 1
        else:
            lead.times += 1

    def _without_lead(self) -> set[int]:
        return self.firsts - self._leads.keys()

    # Afterwards

    def repeats(self) -> list[Repeat]:
        """The events that stand for more. A lead that was never seen is taken to be as the last that was."""
        found = [Repeat(piece.start, piece.stop, piece.times) for piece in self.pieces if piece.times]
        latest, owed = self._latest_lead(), sum(self._owed.values())
        return [*found, Repeat(latest.start, latest.stop, owed)] if latest is not None and owed else found

    def _latest_lead(self) -> Piece | None:
        return max(self._leads.values(), key=lambda lead: lead.stop, default=None)

    def step_kinds(self, labels: Sequence[str]) -> tuple[StepKind, ...]:
        """Those that were counted, the most frequent first; ``labels`` are those of the keys."""
        every = (*self._before, *self.kinds.items())
        found = [self.step_kind(way, kind, labels) for way, kind in every if kind.body is not None]
        return tuple(sorted(found, key=lambda kind: -(kind.counted + kind.reused)))

    def step_kind(self, way: Way, kind: Kind, labels: Sequence[str]) -> StepKind:
        """One as a value."""
        return StepKind(
            inputs=tuple(labels[key] for key in way),
            pieces=tuple(
                (p.start, p.stop) for p in (self._lead_of(way), kind.body) if p is not None and p.stop > p.start
            ),
            counted=kind.counted,
            reused=kind.reused,
            times=kind.times.durations(),
            tokens=kind.tokens or None,
            samples=kind.samples or None,
        )

    def _lead_of(self, way: Way) -> Piece | None:
        return self._leads.get(way[0], self._latest_lead()) if way else None

    def notes(self, labels: Sequence[str]) -> list[str]:
        """What a reader must know: steps that are not in the totals, and counts that were not the same again."""
        found = []
        if owed := sum(self._owed.values()):
            found.append(
                f"What {_steps(owed, did=True)} before the first call of the model was not counted, and is taken to be "
                "what another step did there."
            )
        for way, kind in (*self._before, *self.kinds.items()):
            if kind.body is None:
                found.append(
                    f"{_steps(kind.reused)} not counted, and not in the totals: no step that was counted went this "
                    f"way: {_named(way, labels)}."
                )
            elif kind.differed:
                found.append(
                    f"Steps of one kind ({_named(way, labels)}) did not cost the same when they were counted again: "
                    "those that were not counted are taken to be as the last one before."
                )
        return found


def _named(way: Way, labels: Sequence[str]) -> str:
    if not way:
        return "no call of the model"
    more = f", and {len(way) - _NAMED} more" if len(way) > _NAMED else ""
    return ", then ".join(labels[key] for key in way[:_NAMED]) + more


def _steps(count: int, *, did: bool = False) -> str:
    steps = "1 step" if count == 1 else f"{count:,} steps"
    return f"{steps} did" if did else f"{steps} {'was' if count == 1 else 'were'}"


def _work(events: Sequence[int], known: Sequence[OpSignature]) -> Counter[Hashable]:
    """The ops with their tensors: numbers such as an optimizer's bias correction change from step to step."""
    found: Counter[Hashable] = Counter()
    for number, calls in Counter(events).items():
        found[known[number].op, known[number].inputs, known[number].outs] += calls
    return found
