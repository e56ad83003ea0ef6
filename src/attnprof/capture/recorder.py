"""The capture of one run: a dispatch mode per thread for the ops, global module hooks for the scope."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.compiler import is_compiling
from torch.optim.optimizer import Optimizer
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from attnprof.capture import written
from attnprof.capture.attribution import Scopes, numbers_work
from attnprof.capture.calls import Calls
from attnprof.capture.hooks import Hooks
from attnprof.capture.memory import Memory
from attnprof.capture.mode import Retired, ThreadRecorder
from attnprof.capture.modes import put_below, take_off
from attnprof.capture.modules import Modules
from attnprof.capture.process import PROCESS
from attnprof.capture.signatures import Signatures
from attnprof.capture.states import has_state
from attnprof.capture.stepping import Stepping
from attnprof.core.trace import ROOT, Trace

_current_task = torch._C._current_graph_task_id


class Recorder:
    """Everything one capture installs, and removes again, and the trace it makes.

    Entering pushes a dispatch mode on this thread, registers global module and optimizer hooks and puts
    ``torch.compile`` into eager stance. All of it is taken away again while steps run bare (``stepping``).

    Another thread may enter as well, for a mode of its own. One that does not, but runs modules, has a mode for
    the time of each outermost call; the trace then has a note of what was not seen.
    """

    def __init__(self, model: nn.Module | None = None, *, memory: bool = True, recount_every: int | None = 1) -> None:
        self.signatures = Signatures()
        self.scopes = Scopes()
        self.modules = Modules(model)
        self.numbers_trusted = numbers_work()
        self.fake_modes: set[int] = set()  # those that the local parts of DTensors are made in
        self.steps: list[int] = []
        self.step_labels: dict[int, str] = {}
        self.memory = Memory(self.modules) if memory else None
        self.modes: list[ThreadRecorder] = []
        self._local = threading.local()
        self._hooks = Hooks(
            before_forward=self._before_forward,
            after_forward=self._after_forward,
            before_step=self._before_step,
            after_step=self._after_step,
        )
        self._lock = threading.Lock()
        self._threads = 0  # that are inside
        self.visited = False
        self.grad = torch.is_grad_enabled()
        self.is_suspended = self._had_state = False
        reuses = model is not None and recount_every != 1
        self.stepping = Stepping(self, model, recount_every) if model is not None and reuses else None

    # Entering and leaving

    def __enter__(self) -> Recorder:
        mode = self._mode_of_thread()
        if mode.entered == 0:
            with self._lock:
                if self._threads == 0:
                    self._install()
                    self._hooks.watch()
                self._threads += 1
            if not mode.visiting:
                mode.attribution.reset()
                mode.__enter__()  # type: ignore[no-untyped-call]
            if self.stepping is not None and self._threads == 1:
                self.stepping.open()
        mode.entered += 1
        return self

    def __exit__(self, *error: Any) -> None:
        mode = self._mode_of_thread()
        mode.entered -= 1
        if mode.entered:
            return
        if self.stepping is not None and self._threads == 1:
            self.stepping.close(failed=error[:1] != (None,) and bool(error))
        if not mode.visiting and not self.is_suspended:
            take_off(mode)
        with self._lock:
            self._threads -= 1
            if self._threads == 0:
                self._hooks.stop_watching()
                self._uninstall()
                self.is_suspended = False
                for visitor in self.modes:
                    if visitor.visiting:  # its thread is inside a module, and no hook will take it off
                        visitor.__class__ = Retired

    @property
    def is_open(self) -> bool:
        """Whether any thread is inside."""
        return self._threads > 0

    def _install(self) -> None:
        for visitor in self.modes:
            if type(visitor) is Retired:  # asked first: a class that is set makes every attribute slower
                visitor.__class__ = ThreadRecorder  # type: ignore[assignment]
        self._hooks.count(None if self.memory is None else self.memory.open)

    def _uninstall(self) -> None:
        self._hooks.stop_counting()
        self.modules.refresh()
        if self.memory is not None and not self.is_suspended:
            self.memory.close()

    # Out of the way

    def can_suspend(self) -> bool:
        """Whether this thread is the only one that was ever seen, and no module is running."""
        mode = self._mode_of_thread()
        return len(self.modes) == 1 and not mode.visiting and not mode.attribution.stack

    def suspend(self) -> None:
        """Nothing is seen from now on, and nothing is in the way."""
        if not self.is_suspended:
            take_off(self._mode_of_thread())
            self._uninstall()
            self.is_suspended = True

    def resume(self) -> None:
        """Everything is seen again."""
        if self.is_suspended:
            mode = self._mode_of_thread()
            self.is_suspended = False
            self._install()
            mode.attribution.reset()
            put_below(mode)

    def op_calls(self) -> int:
        """How many op calls of this thread were seen."""
        return len(self._mode_of_thread().events)

    def events_of_thread(self) -> list[int]:
        """The signatures of this thread's op calls."""
        return self._mode_of_thread().events

    def take_calls(self) -> Calls:
        """The module calls of this thread since they were last taken."""
        mode = self._mode_of_thread()
        taken, mode.calls = mode.calls, Calls()
        return taken

    def _mode_of_thread(self) -> ThreadRecorder:
        mode: ThreadRecorder | None = getattr(self._local, "mode", None)
        if mode is None:
            mode = self._local.mode = ThreadRecorder(self)
            self.modes.append(mode)
        return mode

    def step(self, label: str | None = None, *, tokens: int = 0, samples: int = 0) -> None:
        """The end of one step, which may have a name. It is marked where it was counted."""
        stepping = self.stepping
        if stepping is not None and label is not None:
            stepping.each_by_itself = True
        if stepping is not None and self.is_suspended:
            stepping.end(tokens=tokens, samples=samples)
            return
        mode = self._mode_of_thread()
        mode.attribution.reset()
        if label is not None:
            self.step_labels[len(self.steps)] = label
        self.steps.append(len(mode.events))
        if stepping is not None and mode.entered:
            stepping.end(tokens=tokens, samples=samples)

    def recount(self) -> None:
        """Steps to come are counted anew."""
        if self.stepping is not None:
            self.stepping.recount()

    @contextmanager
    def unseen(self) -> Iterator[None]:
        """Ops in here are the profiler's own: they leave no event."""
        mode = self._mode_of_thread()
        count = len(mode.events)
        memory, mode.memory = mode.memory, None
        try:
            yield
        finally:
            mode.memory = memory
            del mode.events[count:], mode.scopes[count:]

    def ops(self) -> Trace:
        """The op calls so far and nothing else, of one thread: a view, for those who ask often."""
        mode = self._mode_of_thread()
        return Trace(self.signatures.known, self.scopes.known, mode.events, mode.scopes, [])

    # Hooks

    def _before_forward(self, module: nn.Module, args: Any) -> None:
        if is_compiling():
            return
        if not PROCESS.stance_is_set:
            PROCESS.use_eager_stance()
        mode = getattr(self._local, "mode", None)
        if mode is None or not (mode.entered or mode.visiting):
            mode = self._mode_in_new_thread()
        if len(mode.events) != len(mode.scopes):
            mode.drop_half_an_event()
        attribution, modules = mode.attribution, self.modules
        stack = attribution.stack
        index = modules.indices.get(id(module))
        if index is None:
            index = modules.index_of(module, stack[-1] if stack else ROOT)
        if stack and index in modules.outermost and not _is_running(stack[0], index, modules):
            attribution.reset()  # an interrupt took the frames away without a hook
        if self.memory is not None and not stack and _current_task() < 0:
            mode.since = self.memory.before_call(args)
        attribution.enter(index)

    def _after_forward(self, module: nn.Module, args: Any, kwargs: Any = None, output: Any = None) -> None:
        # After an exception torch calls (module, args, None), whatever was asked for.
        if is_compiling():
            return
        mode = getattr(self._local, "mode", None) or self._mode_in_new_thread()
        attribution, modules = mode.attribution, self.modules
        index = modules.indices.get(id(module))
        if index is None:
            index = modules.index_of(module, ROOT)
        span = attribution.leave(index)
        if id(module) not in modules.wrappers:
            mode.calls.note(index, module, args, kwargs, output, span)
        if self.memory is not None and kwargs is not None and not attribution.stack and _current_task() < 0:
            self.memory.after_call(mode, module, args, kwargs, output)
        if mode.visiting and not attribution.stack:
            mode.visiting = False
            if not mode.entered:
                mode.__exit__(None, None, None)

    def _mode_in_new_thread(self) -> ThreadRecorder:
        """Autograd's own threads inherit the mode of the thread that called backward; others get one."""
        for mode in _get_current_dispatch_mode_stack():
            if isinstance(mode, ThreadRecorder) and mode.recorder is self:
                return mode
        mode = self._mode_of_thread()
        mode.visiting = self.visited = True
        mode.attribution.reset()
        mode.__enter__()  # type: ignore[no-untyped-call]
        return mode

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if self.stepping is not None:
            self.stepping.optimizer_begins(optimizer)
            if self.is_suspended:
                return
        self._had_state = has_state(optimizer)
        mode = self._mode_of_thread()
        self.visited |= not (mode.entered or mode.visiting)
        mode.attribution.begin_step("optimizer" if self._had_state else "optimizer_init")
        if self.memory is not None:
            self.memory.before_step(optimizer)

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if self.is_suspended:
            return
        has = has_state(optimizer)
        self._mode_of_thread().attribution.end_step(has)
        if self.memory is not None:
            self.memory.after_step(optimizer)
        if self.stepping is not None:
            self.stepping.optimizer_ended(self._had_state, has)

    # The trace

    def trace(self) -> Trace:
        """What was seen so far."""
        return written.trace_of(self)


def _is_running(outermost: int, entering: int, modules: Modules) -> bool:
    """Whether the outermost module of a stack is being called on this thread, beside the call now beginning."""
    calls = 0 if outermost == entering else 1
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "_call_impl" and modules.is_record(frame.f_locals.get("self"), outermost):
            calls += 1
            if calls == 2:
                return True
        frame = frame.f_back  # type: ignore[assignment]
    return False
