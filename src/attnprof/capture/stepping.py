"""Count once, then get out of the way: of the steps of a program that are alike, one is counted.

A step lasts from one ``prof.step()`` to the next, and goes a way (see :mod:`ways`): calls of the model, by the key
of each, and steps of optimizers. What comes before the first call (loading data) is counted apart, and not in the
very first step, which may set things up.

While nothing is counted, no mode and no module hook is on. Where a step comes to a segment that no counted one
begins like, it is counted from there on. When a segment that ran bare turns out to be one that is not known, the
next steps are counted until one of them goes it; the first is then taken to have cost the same.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.optim.optimizer import Optimizer

from attnprof.capture.call_keys import TRACED, key_of, label_of
from attnprof.capture.clocks import clock_for
from attnprof.capture.interception import Interception
from attnprof.capture.model_state import ModelState
from attnprof.capture.optimizer_keys import OptimizerKeys
from attnprof.capture.running_step import RunningStep
from attnprof.capture.switching import is_inside_compiled
from attnprof.capture.track import Track
from attnprof.capture.ways import CALL, END, FAILED, Way, Ways
from attnprof.core.timing import StepKind, Timing

if TYPE_CHECKING:
    from attnprof.capture.recorder import Recorder


class Stepping:
    """Switches a recorder on and off, for the thread that runs the steps."""

    def __init__(self, recorder: Recorder, model: nn.Module, recount_every: int | None) -> None:
        self._recorder = recorder
        self._thread = threading.get_ident()
        self.recount_every = recount_every
        self._interception = Interception(model, self._called, self._failed)
        self._clock = clock_for(model)
        self._state = ModelState(self._was_late)
        self._optimizers = OptimizerKeys(self._was_late)
        self._keys: dict[Hashable, int] = {}
        self._of_optimizers: set[int] = set()  # the keys of their steps
        self._labels: list[str] = []
        self.ways = Ways()
        self.steps = 0
        self.latest: Way | None = None  # of the last step that was timed
        self._step_ns = 0  # how long the shortest like that took, once it is known
        # The step that is running
        self._running = RunningStep(recorder, self.ways)
        self._called_model = False
        self._made_state = False
        self._first_of_all = True
        self._asked = False  # to be counted, whatever it is
        self._began_bare = False
        self._cut_short = False  # while it ran bare
        self.each_by_itself = False  # the program names its steps, to see them apart
        self._elsewhere = 0  # calls of the model in other threads while nothing was counted
        self._threads = False  # another thread has called the model
        self._late = False  # a switch in the model or an optimizer may have been seen late
        self._missed = 0  # steps that did not call the model itself, while nothing was counted
        self._untold = False  # a step did not call the model itself: no step can be told from another

    # The capture

    def open(self) -> None:
        """The capture begins, or goes on: everything is counted."""
        self._interception.open()
        self._first_of_all = True
        self._began_bare = self._asked = False
        self._restart()
        self._running.count_from_here()

    def close(self, *, failed: bool) -> None:
        """It ends. A step that no ``prof.step()`` ended is a step too, but not a timed one."""
        self._interception.close()
        self._state.forget()
        self._running.leave_track()
        if not self.steps or not self._running.has_begun:
            return
        if not failed:
            self._running.end()
        elif self._recorder.is_suspended:
            self._cut_short = True

    def end(self, *, tokens: int = 0, samples: int = 0) -> None:
        """A step ends, and the next begins. ``tokens`` and ``samples`` are what it processed."""
        timed = self._began_bare and self._recorder.is_suspended
        if timed:
            self._clock.end()
        if not self._called_model:
            self._interception.open()  # it may have been compiled in this step
        way = self._running.end()
        if timed:
            way.tokens += tokens
            way.samples += samples
            self._clock.tell(way.times.add)
            self.latest, self._step_ns = way, way.times.shortest_ns
        self.steps += 1
        due = self.recount_every is not None and way.since + 1 >= self.recount_every
        if self._running.track and self._called_model and not (due or self.each_by_itself or self._threads):
            self._called_model = False  # the step was as the one before, and nothing else has changed
            self._clock.begin()
            return
        if not (self._called_model or self._first_of_all):
            self._untold = True
            self._missed += self._began_bare
        self._first_of_all = False
        self._asked = self._made_state or due or self._untold or self.each_by_itself or self._threads
        self._asked |= self.ways.searching
        self._restart()
        wanted = self._asked or self.ways.listening or not self.ways.start.firsts
        self._began_bare = not wanted and (timed or self._recorder.is_suspended or self._recorder.can_suspend())
        if self._began_bare:
            self._recorder.suspend()
            self._running.track = Track.of(way, self.ways.lead_of(way)) if timed else None
            self._clock.begin()
        else:
            self._recorder.resume()
            self._running.count_from_here()

    def _restart(self) -> None:
        self._made_state = self._called_model = False
        self._running.restart()

    # What a step calls

    def _called(self, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """The model is called, from outside of itself."""
        if threading.get_ident() != self._thread:
            self._threads = True
            self._elsewhere += self._recorder.is_suspended
            return
        self._called_model = True
        call = key_of(args, kwargs)
        step_ns = self._step_ns if self._recorder.is_suspended else 0
        key = call, 0 if call is TRACED else self._state.number(model, step_ns)
        number = self._keys.get(key)
        if number is None:
            number = self._new(key, label_of(args, kwargs))
        running = self._running
        if running.is_on_track(number):
            return
        if not running.segment or running.segment[0] in self._of_optimizers:
            self._begin_segment(number, CALL)
        else:
            running.goes_on(number)

    def _failed(self) -> None:
        """An exception ended a call: it did not do what others like it do."""
        if threading.get_ident() == self._thread:
            self._running.leave_track()
            if self._running.segment:
                self._running.goes_on(FAILED)

    def optimizer_begins(self, optimizer: Optimizer) -> None:
        """An optimizer's step begins."""
        if threading.get_ident() != self._thread:
            return
        which, key = self._optimizers.key(optimizer, self._step_ns if self._recorder.is_suspended else 0)
        number, then = self._keys.get(key), self._keys.get(which)
        if number is None or then is None:
            label = f"{type(optimizer).__name__}.step()"
            number, then = (self._new(k, label) if n is None else n for k, n in ((key, number), (which, then)))
            self._of_optimizers.add(number)
        if not self._running.is_on_track(number):
            self._begin_segment(number, then)

    def optimizer_ended(self, had_state: bool, has_state: bool) -> None:
        """It ended, and was counted."""
        self._made_state |= has_state and not had_state

    def _begin_segment(self, number: int, kind: int) -> None:
        """Here it is seen whether what comes needs counting. ``kind`` is which optimizer it is, or a call."""
        recorder, running = self._recorder, self._running
        first = not running.has_begun
        if first:
            running.end_lead(number, is_any=not self._first_of_all)
        else:
            running.end_segment(kind)
        known = number in running.way.firsts
        if recorder.is_suspended:
            if not known and not is_inside_compiled():
                recorder.resume()
                running.count_from_here()
        elif first and known and not self._asked and self.steps and recorder.can_suspend() and not is_inside_compiled():
            recorder.suspend()
        running.begin_segment(number)

    def _was_late(self) -> None:
        self._late = True

    def _new(self, key: Hashable, label: str) -> int:
        self._labels.append(label)
        self._keys[key] = len(self._labels) - 1
        return self._keys[key]

    # Afterwards

    def settle(self) -> None:
        """A report is to have what the step that is running has gone so far."""
        if threading.get_ident() == self._thread:
            self._running.leave_track()

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
        self._running.leave_track()
        if self._running.has_begun:
            self._running.end_segment(END)
        self.ways.forget()
        self._state.begin_anew()
        self._optimizers.begin_anew()
        self._restart()
        self.latest = None

    def notes(self) -> list[str]:
        """What a reader must know of them."""
        found = self.ways.notes(self._labels)
        if self._cut_short:
            found.append("The step that an exception ended ran bare: it is not in the totals.")
        if self._late:
            found.append(
                "Something was switched or replaced in a small part of the model, or of an optimizer, and may have "
                "been seen some steps late: up to then a sixteenth of them was looked at in each step, to save time. "
                "Those steps are taken to have cost what they did before; recount_every=1 counts every one."
            )
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
