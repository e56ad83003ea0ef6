"""Count once, then get out of the way: of the steps of a program that are alike, one is counted.

A step lasts from one ``prof.step()`` to the next, and goes a way (see :mod:`ways`): calls of the model, by the key
of each, and steps of optimizers. What comes before the first call (loading data) is counted apart, and not in the
very first step, which may set things up.

While nothing is counted, no mode and no module hook is on. Where a step comes to a segment that no counted one
begins like, it is counted from there on. When a segment that ran bare turns out to be one that is not known, the
next steps are counted until one of them goes it; the first is then taken to have cost the same.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim.optimizer import Optimizer

from attnprof.capture.call_keys import Flags, key_of, label_of
from attnprof.capture.clocks import clock_for
from attnprof.capture.interception import Interception
from attnprof.capture.optimizer_keys import OptimizerKeys
from attnprof.capture.switching import is_inside_compiled
from attnprof.capture.ways import CALL, END, FAILED, Piece, Way, Ways
from attnprof.core.timing import StepKind, Timing

if TYPE_CHECKING:
    from attnprof.capture.recorder import Recorder

#: The calls of one segment that are told from those of another: more is a program that marks no steps.
LONGEST = 100_000
_number = torch.autograd._get_sequence_nr  # type: ignore[attr-defined]


class Stepping:
    """Switches a recorder on and off, for the thread that runs the steps."""

    def __init__(self, recorder: Recorder, model: nn.Module, recount_every: int | None) -> None:
        self._recorder = recorder
        self._thread = threading.get_ident()
        self.recount_every = recount_every
        self._interception = Interception(model, self._called, self._failed)
        self._clock = clock_for(model)
        self._flags = Flags()
        self._optimizers = OptimizerKeys()
        self._keys: dict[Hashable, int] = {}
        self._labels: list[str] = []
        self.ways = Ways()
        self.steps = 0
        self.latest: Way | None = None  # of the last step that was timed
        # The step that is running
        self._way = self.ways.start
        self._segment: list[int] = []  # the one that is running
        self._is_optimizers = False  # it is a step of an optimizer
        self._called_model = False
        self._made_state = False
        self._first_of_all = True
        self._asked = False  # to be counted, whatever it is
        self._began_bare = False
        self._at = 0  # the op calls before the piece that is being counted
        self._any_bare = False  # some segment of it ran bare
        self._cut_short = False  # while it ran bare
        self.each_by_itself = False  # the program names its steps, to see them apart
        self._first_node = 0  # autograd's number of the first node that the segment can have made
        self._elsewhere = 0  # calls of the model in other threads while nothing was counted
        self._threads = False  # another thread has called the model
        self._missed = 0  # steps that did not call the model itself, while nothing was counted
        self._untold = False  # a step did not call the model itself: no step can be told from another

    # The capture

    def open(self) -> None:
        """The capture begins, or goes on: everything is counted."""
        self._interception.open()
        self._first_of_all = True
        self._began_bare = self._asked = False
        self._restart()
        self._at = self._recorder.op_calls()

    def close(self, *, failed: bool) -> None:
        """It ends. A step that no ``prof.step()`` ended is a step too, but not a timed one."""
        self._interception.close()
        if not self.steps or not (self._segment or self._way is not self.ways.start):
            return
        if not failed:
            self._book()
        elif self._recorder.is_suspended:
            self._cut_short = True

    def end(self, *, tokens: int = 0, samples: int = 0) -> None:
        """A step ends, and the next begins. ``tokens`` and ``samples`` are what it processed."""
        timed = self._began_bare and self._recorder.is_suspended
        if timed:
            self._clock.end()
        if not self._called_model:
            self._interception.open()  # it may have been compiled in this step
        way = self._book()
        if timed:
            way.tokens += tokens
            way.samples += samples
            self._clock.tell(way.times.add)
            self.latest = way
        self.steps += 1
        if not (self._called_model or self._first_of_all):
            self._untold = True
            self._missed += self._began_bare
        self._first_of_all = False
        due = self.recount_every is not None and way.since + 1 >= self.recount_every
        self._asked = self._made_state or due or self._untold or self.each_by_itself or self._threads
        self._asked |= self.ways.searching
        self._restart()
        wanted = self._asked or self.ways.listening or not self.ways.start.firsts
        self._began_bare = not wanted and (timed or self._recorder.is_suspended or self._recorder.can_suspend())
        if self._began_bare:
            self._recorder.suspend()
            self._clock.begin()
        else:
            self._recorder.resume()
            self._at = self._recorder.op_calls()

    def _book(self) -> Way:
        """Put down the step that ends; it is a counted one if all of it was, from its first call on."""
        self._end_segment(END)
        self.ways.ended(self._way, counted=not self._any_bare)
        return self._way

    def _restart(self) -> None:
        self._way = self.ways.start
        self._is_optimizers = self._made_state = self._called_model = self._any_bare = False
        self._segment.clear()
        self._first_node = _number()

    # What a step calls

    def _called(self, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """The model is called, from outside of itself."""
        if threading.get_ident() != self._thread:
            self._threads = True
            self._elsewhere += self._recorder.is_suspended
            return
        self._called_model = True
        key = key_of(self._flags, model, args, kwargs)
        number = self._keys.get(key)
        if number is None:
            number = self._new(key, label_of(args, kwargs))
        if self._is_optimizers or not self._segment:
            self._begin_segment(number, CALL, is_optimizers=False)
        elif len(self._segment) < LONGEST:
            self._segment.append(number)

    def _failed(self) -> None:
        """An exception ended a call: it did not do what others like it do."""
        if threading.get_ident() == self._thread and self._segment and len(self._segment) < LONGEST:
            self._segment.append(FAILED)

    def optimizer_begins(self, optimizer: Optimizer) -> None:
        """An optimizer's step begins."""
        if threading.get_ident() != self._thread:
            return
        key = which, _ = self._optimizers.key(optimizer)
        label = f"{type(optimizer).__name__}.step()"
        numbers = [self._keys.get(one) for one in (key, which)]
        number, then = (self._new(k, label) if n is None else n for k, n in zip((key, which), numbers, strict=True))
        self._begin_segment(number, then, is_optimizers=True)

    def optimizer_ended(self, had_state: bool, has_state: bool) -> None:
        """It ended, and was counted."""
        self._made_state |= has_state and not had_state

    def _begin_segment(self, number: int, kind: int, *, is_optimizers: bool) -> None:
        """Here it is seen whether what comes needs counting. ``kind`` is which optimizer it is, or a call."""
        recorder, ways = self._recorder, self.ways
        first = self._way is ways.start and not self._segment
        if first:
            self._end_lead(number)
        else:
            self._end_segment(kind)
        known = number in self._way.firsts
        if recorder.is_suspended:
            if not known and not is_inside_compiled():
                recorder.resume()
                self._at = recorder.op_calls()
        elif first and known and not self._asked and self.steps and recorder.can_suspend() and not is_inside_compiled():
            recorder.suspend()
        self._segment.append(number)
        self._is_optimizers = is_optimizers
        self._first_node = _number()

    def _end_lead(self, number: int) -> None:
        if self._recorder.is_suspended:
            self.ways.unled(number)
        else:
            lead = self._cut()
            if not self._first_of_all:
                self.ways.led(number, lead)

    def _end_segment(self, then: int) -> None:
        """``then`` is what begins: a step of an optimizer, a call of the model, or the next step."""
        recorder, segment = self._recorder, tuple(self._segment)
        self._segment.clear()
        nodes = None if _has_compiled() else _number() - self._first_node
        if recorder.is_suspended:
            self._any_bare = True
            self._way = self.ways.reused(self._way, (segment, then, nodes))
        else:
            events, known = recorder.events_of_thread(), recorder.signatures.known
            self._way = self.ways.counted(self._way, (segment, then, nodes), self._cut(), events, known)

    def _cut(self) -> Piece:
        """What was counted since the last cut."""
        piece = Piece(self._at, self._recorder.op_calls(), self._recorder.take_calls())
        self.ways.pieces.append(piece)
        self._at = piece.stop
        return piece

    def _new(self, key: Hashable, label: str) -> int:
        self._labels.append(label)
        self._keys[key] = len(self._labels) - 1
        return self._keys[key]

    # Afterwards

    def timing(self) -> Timing | None:
        """The steps by kind; None where none was marked."""
        if not self.steps:
            return None
        self._clock.flush(wait=True)
        return Timing(self.ways.step_kinds(self._labels), self._clock.name, self.recount_every)

    def live(self, latest: int) -> tuple[StepKind, list[int]] | None:
        """The kind of the last step that was timed, and how long the latest of that kind took; None before one was."""
        self._clock.flush(wait=False)
        durations = [] if self.latest is None else self.latest.times.latest(latest)
        return None if self.latest is None or not durations else (self.ways.step_kind(self.latest), durations)

    def recount(self) -> None:
        """What was counted holds for the steps so far, and not for those to come."""
        self.ways.forget()
        self._restart()
        self.latest = None

    def notes(self) -> list[str]:
        """What a reader must know of them."""
        found = self.ways.notes(self._labels)
        if self._cut_short:
            found.append("The step that an exception ended ran bare: it is not in the totals.")
        if self._elsewhere:
            calls = "1 call" if self._elsewhere == 1 else f"{self._elsewhere:,} calls"
            found.append(f"{calls} of the model in another thread came while nothing was counted: not in the totals.")
        if self._missed:
            steps = "1 step" if self._missed == 1 else f"{self._missed:,} steps"
            found.append(f"Part of {steps} was not counted and is not in the totals: the model itself was not called.")
        if self._untold:
            found.append(
                "Every step is counted, which takes time: some do not call the model itself (but a part of it, its "
                "forward, or compiled code with it inside), and cannot be told apart. Give profile() what is called."
            )
        return found


def _has_compiled() -> bool:
    """Whether anything was compiled in this process: such code makes other nodes than it does while counted."""
    frames = sys.modules.get("torch._dynamo.convert_frame")
    return frames is not None and frames.FRAME_COUNTER > 0
