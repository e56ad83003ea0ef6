"""Count once, then get out of the way: of the steps of a program that are alike, one is counted.

A step lasts from one ``prof.step()`` to the next. Its way is what it calls, in order: the model, by the key of the
call, and the steps of optimizers. A way is known once it was counted from its first call to its end. What comes
before the first call (loading data) is counted apart, and not in the very first step, which may set things up.

While nothing is counted, no mode and no module hook is on. A step whose first call no known way begins with is
counted from there on. When a step that ran bare turns out to have gone a way that is not known, the next ones are
counted until one of them goes it; the first is then taken to have cost the same.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

from attnprof.capture.call_keys import Flags, key_of, label_of
from attnprof.capture.clocks import clock_for
from attnprof.capture.interception import Interception
from attnprof.capture.stepped import Optimizers, Stepped
from attnprof.capture.ways import Kind, Piece, Ways
from attnprof.core.timing import StepKind, Timing

if TYPE_CHECKING:
    from attnprof.capture.recorder import Recorder

#: The calls of one step that are told from those of another: more is a program that marks no steps.
LONGEST = 100_000


class Stepping:
    """Switches a recorder on and off, for the thread that runs the steps."""

    def __init__(self, recorder: Recorder, model: nn.Module, recount_every: int | None) -> None:
        self._recorder = recorder
        self._thread = threading.get_ident()
        self._every = recount_every
        self._interception = Interception(model, self._called)
        self._clock = clock_for(model)
        self._flags = Flags(model)
        self._open = ExitStack()
        self._keys: dict[Hashable, int] = {}
        self._labels: list[str] = []
        self._optimizers = Optimizers()
        self.ways = Ways()
        self.steps = 0
        self.latest: Kind | None = None  # of the last step that was timed
        # The step that is running
        self._way: list[int | Stepped] = []  # a step of an optimizer gets its number at the end
        self._first_of_all = True
        self._asked = False  # to be counted, whatever it is
        self.began_bare = False
        self._at = 0  # the op calls before the piece that is being counted
        self._cut_short = False  # while it ran bare

    # The capture

    def open(self) -> None:
        """The capture begins, or goes on: everything is counted."""
        with ExitStack() as stack:
            stack.callback(register_optimizer_step_pre_hook(self._optimizer_steps).remove)
            self._interception.open()
            stack.callback(self._interception.close)
            self._open = stack.pop_all()
        self._first_of_all = True
        self._way.clear()
        self.began_bare = self._asked = False
        self._at = self._recorder.op_calls()

    def close(self, *, failed: bool) -> None:
        """It ends. A step that no ``prof.step()`` ended is a step too, but not a timed one."""
        self._open.close()
        if self.steps and self._way:
            if not failed:
                self._book()
            elif self._recorder.is_suspended:
                self._cut_short = True

    def end(self, *, tokens: int = 0, samples: int = 0) -> None:
        """A step ends, and the next begins. ``tokens`` and ``samples`` are what it processed."""
        timed = self.began_bare and self._recorder.is_suspended
        if timed:
            self._clock.end()
        kind = self._book()
        if timed:
            kind.tokens += tokens
            kind.samples += samples
            self._clock.tell(kind.times.add)
            self.latest = kind
        self.steps += 1
        self._way.clear()
        self._first_of_all = False
        due = self._every is not None and kind.since + 1 >= self._every
        self._asked = self._optimizers.made_state or due or self.ways.searching
        self._optimizers.made_state = False
        if timed and not (self._asked or self.ways.listening):
            self._clock.begin()
        else:
            self._begin()

    def _begin(self) -> None:
        """The next step begins, bare if nothing speaks against it."""
        recorder = self._recorder
        self.began_bare = not (self._asked or self.ways.listening) and (recorder.is_suspended or recorder.can_suspend())
        if self.began_bare:
            recorder.suspend()
            self._clock.begin()
        else:
            recorder.resume()
            self._at = recorder.op_calls()

    def _book(self) -> Kind:
        """Put down the step that ends."""
        recorder, ways = self._recorder, self.ways
        way = tuple([part if isinstance(part, int) else self._step_of(part) for part in self._way])
        if recorder.is_suspended:
            return ways.reused(way, leads=self.began_bare)
        ways.counted(way, self._cut(), recorder.events_of_thread(), recorder.signatures.known)
        return ways.kinds[way]

    # What a step calls

    def _called(self, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        key = key_of(self._flags, args, kwargs)
        number = self._keys.get(key)
        if number is None:
            number = self._keys[key] = self._new(label_of(args, kwargs))
        if not self._way:
            self._first(number)
        if len(self._way) < LONGEST:
            self._way.append(number)

    def _optimizer_steps(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if not self._way and not self._recorder.is_suspended:
            self._cut()  # a step's lead ends here too; hooks are neither added nor removed by one of them
        if len(self._way) < LONGEST:
            self._way.append(self._optimizers.met(optimizer))

    def _step_of(self, stepped: Stepped) -> int:
        key = self._optimizers.ended(stepped)
        number = self._keys.get(key)
        if number is None:
            number = self._keys[key] = self._new(f"{key[0]}.step()")
        return number

    def _first(self, number: int) -> None:
        """The model is called for the first time in a step: here it is seen whether it needs counting."""
        recorder, ways = self._recorder, self.ways
        if threading.get_ident() != self._thread:
            return
        known = number in ways.firsts
        if recorder.is_suspended:
            if not known:
                ways.unled(number)
                recorder.resume()
                self._at = recorder.op_calls()
            return
        lead = self._cut()
        if not self._first_of_all:
            ways.led(number, lead)
        if known and not self._asked and self.steps and recorder.can_suspend():
            recorder.suspend()

    def _cut(self) -> Piece:
        """What was counted since the last cut."""
        piece = Piece(self._at, self._recorder.op_calls(), self._recorder.take_calls())
        self.ways.pieces.append(piece)
        self._at = piece.stop
        return piece

    def _new(self, label: str) -> int:
        self._labels.append(label)
        return len(self._labels) - 1

    # Afterwards

    def timing(self) -> Timing | None:
        """The steps by kind; None where none was marked."""
        if not self.steps:
            return None
        self._clock.flush(wait=True)
        return Timing(self.ways.step_kinds(self._labels), self._clock.name, self._every)

    def live(self, latest: int) -> tuple[StepKind, list[int]] | None:
        """The kind of the last step that was timed, and how long the latest of that kind took; None before one was."""
        self._clock.flush(wait=False)
        kind = self.latest
        durations = [] if kind is None else kind.times.latest(latest)
        if kind is None or kind.body is None or not durations:
            return None
        return self.ways.step_kind((), kind, ()), durations

    def recount(self) -> None:
        """What was counted holds for the steps so far, and not for those to come."""
        self.ways.forget()
        self.latest = None

    def notes(self) -> list[str]:
        """What a reader must know of them."""
        found = self.ways.notes(self._labels)
        if self._cut_short:
            found.append("The step that an exception ended ran bare: it is not in the totals.")
        return found
