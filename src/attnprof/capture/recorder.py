"""The capture of one run: a dispatch mode per thread for the ops, global module hooks for the scope."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.compiler import is_compiling
from torch.nn.modules.module import (
    _global_forward_hooks_with_kwargs,
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.optim.optimizer import (
    Optimizer,
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils._python_dispatch import (
    _get_current_dispatch_mode,
    _get_current_dispatch_mode_stack,
    _pop_mode,
    _push_mode,
)

from attnprof.capture import calls
from attnprof.capture.attribution import Scopes, numbers_work
from attnprof.capture.memory import Memory
from attnprof.capture.mode import Retired, ThreadRecorder
from attnprof.capture.modules import Modules
from attnprof.capture.process import PROCESS
from attnprof.capture.shape_inference import without_shape_inference
from attnprof.capture.signatures import Signatures
from attnprof.capture.states import states_of
from attnprof.core.trace import ROOT, Trace

_current_task = torch._C._current_graph_task_id


class Recorder:
    """Everything one capture installs, and removes again, and the trace it makes.

    Entering pushes a dispatch mode on this thread, registers global module and optimizer hooks (hooks on
    the modules themselves would switch off native fast paths) and puts ``torch.compile`` into eager
    stance. Another thread may enter as well, for a mode of its own. One that does not, but runs modules,
    has a mode for the time of each outermost call; the trace then has a note of what was not seen.
    """

    def __init__(self, model: nn.Module | None = None, *, memory: bool = True) -> None:
        self.signatures = Signatures()
        self.scopes = Scopes()
        self.modules = Modules(model)
        self.numbers_trusted = numbers_work()
        self.fake_modes: set[int] = set()  # those that the local parts of DTensors are made in
        self.steps: list[int] = []
        self.step_labels: dict[int, str] = {}
        self.memory = Memory(self.modules) if memory else None
        self._modes: list[ThreadRecorder] = []
        self._local = threading.local()
        self._installed = ExitStack()
        self._lock = threading.Lock()
        self._threads = 0  # that are inside
        self._visited = False
        self._grad = torch.is_grad_enabled()

    # Entering and leaving

    def __enter__(self) -> Recorder:
        mode = self._mode_of_thread()
        if mode.entered == 0:
            with self._lock:
                if self._threads == 0:
                    self._install()
                self._threads += 1
            if not mode.visiting:
                mode.attribution.reset()
                mode.__enter__()  # type: ignore[no-untyped-call]
        mode.entered += 1
        return self

    def __exit__(self, *error: Any) -> None:
        mode = self._mode_of_thread()
        mode.entered -= 1
        if mode.entered:
            return
        if not mode.visiting:
            _take_off(mode)
        with self._lock:
            self._threads -= 1
            if self._threads == 0:
                self._installed.close()
                self.modules.refresh()
                if self.memory is not None:
                    self.memory.close()
                for visitor in self._modes:
                    if visitor.visiting:  # its thread is inside a module, and no hook will take it off
                        visitor.__class__ = Retired

    @property
    def is_open(self) -> bool:
        """Whether any thread is inside."""
        return self._threads > 0

    def _install(self) -> None:
        for visitor in self._modes:
            if type(visitor) is Retired:  # asked first: a class that is set makes every attribute slower
                visitor.__class__ = ThreadRecorder  # type: ignore[assignment]
        with ExitStack() as stack:
            PROCESS.enter()
            stack.callback(PROCESS.leave)
            hook = register_module_forward_hook(self._after_forward, with_kwargs=True, always_call=True)
            stack.callback(_global_forward_hooks_with_kwargs.pop, hook.id, None)  # which torch forgets to remove
            for handle in (
                hook,
                register_module_forward_pre_hook(self._before_forward),
                register_optimizer_step_pre_hook(self._before_step),
                register_optimizer_step_post_hook(self._after_step),
            ):
                stack.callback(handle.remove)
            if self.memory is not None:
                self.memory.open()
            self._installed = stack.pop_all()

    def _mode_of_thread(self) -> ThreadRecorder:
        mode: ThreadRecorder | None = getattr(self._local, "mode", None)
        if mode is None:
            mode = self._local.mode = ThreadRecorder(self)
            self._modes.append(mode)
        return mode

    def step(self, label: str | None = None) -> None:
        """The end of one step, which may have a name."""
        mode = self._mode_of_thread()
        mode.attribution.reset()
        if label is not None:
            self.step_labels[len(self.steps)] = label
        self.steps.append(len(mode.events))

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
            mode.calls.note(index, args, kwargs, output, span)
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
        mode.visiting = self._visited = True
        mode.attribution.reset()
        mode.__enter__()  # type: ignore[no-untyped-call]
        return mode

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        phase = "optimizer" if _has_state(optimizer) else "optimizer_init"
        mode = self._mode_of_thread()
        self._visited |= not (mode.entered or mode.visiting)
        mode.attribution.begin_step(phase)
        if self.memory is not None:
            self.memory.before_step(optimizer)

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._mode_of_thread().attribution.end_step(_has_state(optimizer))
        if self.memory is not None:
            self.memory.after_step(optimizer)

    # The trace

    def trace(self) -> Trace:
        """What was seen so far."""
        if not self.is_open:  # else a thread may be between the two
            for mode in self._modes:
                mode.drop_half_an_event()
        calls.write(((mode.calls, mode.attribution.ran) for mode in self._modes), self.modules.records)
        notes = []
        if not self.numbers_trusted:
            notes.append(
                "This torch numbers autograd nodes in a way attnprof does not know: every backward op is "
                "booked to (outside); totals are right."
            )
        if self._visited:
            notes.append(
                "Modules ran in threads that did not enter the profile: what those threads did outside of modules, "
                "backward and optimizer steps included, was not counted. Enter the same profile in each thread."
            )
        if self.memory is not None and self.memory.ledger.hidden:
            notes.append(
                "Some tensors have a layout that hides their storage (mkldnn): bytes of memory are lower bounds."
            )
        trace = Trace(
            signatures=list(self.signatures.known),
            scopes=list(self.scopes.known),
            event_signatures=[event for mode in self._modes for event in mode.events],
            event_scopes=[scope for mode in self._modes for scope in mode.scopes],
            modules=self.modules.records,
            steps=list(self.steps),
            step_labels=dict(self.step_labels),
            meta={"torch": torch.__version__, "grad": self._grad},
            notes=notes,
            memory=None if self.memory is None else self.memory.trace(mode.events for mode in self._modes),
        )
        return trace if self.modules.on_meta else without_shape_inference(trace)


def _take_off(mode: ThreadRecorder) -> None:
    """Take a mode off this thread's stack, also from below modes that were pushed later and stay on."""
    above = []
    while (top := _get_current_dispatch_mode()) is not mode:
        if top is None:
            break
        above.append(_pop_mode())
    if top is mode:
        mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]
    for other in reversed(above):
        _push_mode(other)


def _has_state(optimizer: Optimizer) -> bool:
    return any(value is not None for _, value in states_of(optimizer))


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
