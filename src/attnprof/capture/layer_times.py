"""How long the layers of a step take: bare steps as wholes, then the same under torch's profiler.

Nothing is counted meanwhile: a dispatch mode would be timed, too. Bare steps run without any hook of ours; the
profiled ones with global module hooks that open the profiler's scopes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import chain, count
from typing import Any, Protocol

import torch
from torch import nn

from attnprof.capture.modules import Modules
from attnprof.capture.process import PROCESS
from attnprof.capture.profiled_step import Recording, check_is_free, silent
from attnprof.capture.scope_marks import STEP, UNSEEN, ScopeMarks
from attnprof.capture.step_events import Joined
from attnprof.core.errors import AttnprofError
from attnprof.core.timing import SAMPLE, Durations, LayerTime, LayerTimes

#: Steps that run before any is timed; and steps of each kind that are, where nobody says how many.
WARM_UP, STEPS = 2, 5


class Around(Protocol):
    """What goes around a step: entered where it begins, with a way to leave out what is not the model's."""

    def __enter__(self) -> Any: ...
    def __exit__(self, *error: Any) -> None: ...
    def unseen(self) -> AbstractContextManager[None]: ...


Step = Callable[[Around], None]
#: Told of each step that has run: the how-manieth, of how many.
Told = Callable[[int, int], None]


def check(steps: bool | int, *, fake: bool, generate: bool) -> int:
    """How many steps to time, 0 for none; raises :class:`AttnprofError` where there is none to time."""
    if isinstance(steps, bool):
        steps = STEPS if steps else 0
    elif not isinstance(steps, int) or not 1 <= steps <= SAMPLE:
        raise AttnprofError(f"time {steps!r} is no number of steps to time: give 1 to {SAMPLE:,}.")
    if steps and fake:
        raise AttnprofError(
            "fake tensors compute nothing, so there is no time to measure: run on real ones, or leave out time."
        )
    if steps and generate:
        raise AttnprofError(
            "time is measured of a forward or a training step, not of generation: leave out one or the other."
        )
    if steps:
        check_is_free()
    return steps


def measure(step: Step, device: str, modules: Modules, steps: int, told: Told | None = None) -> LayerTimes:
    """Run ``step`` again and again: warm-up steps, then so many bare ones, and as many under the profiler.

    ``step`` runs one whole step inside what it is given. ``modules`` are those of the trace, so that layers
    have the same names. On ``device`` ``cuda`` the time of layers is that of their kernels; on ``cpu`` that of
    their ops.
    """
    if told is not None:
        step = _telling(step, told, WARM_UP + steps + 1 + steps)
    cuda = device == "cuda"
    wait = torch.cuda.synchronize if cuda else _nothing
    bare: list[int] = []
    profiled: list[Joined] = []
    PROCESS.enter()
    try:
        for _ in range(WARM_UP):
            step(_Stopwatch(wait))
        if cuda:  # where a profiler that was on once may slow what comes after it
            bare += [_bare(step, wait) for _ in range(steps)]
        with silent():
            _profiled(step, modules, cuda)  # the profiler's own beginnings
        for _ in range(steps):  # in turn: what else the machine does is the same for both
            if not cuda:
                bare.append(_bare(step, wait))
            profiled.append(_profiled(step, modules, cuda))
    finally:
        PROCESS.leave()
    return _gathered(bare, profiled, device)


def _telling(step: Step, told: Told, total: int) -> Step:
    done = count(1)

    def run(around: Around) -> None:
        step(around)
        told(next(done), total)

    return run


def _gathered(bare: list[int], profiled: list[Joined], device: str) -> LayerTimes:
    where = sorted(set(chain.from_iterable(step.layers for step in profiled)))
    return LayerTimes(
        step=Durations.of(bare),
        profiled=Durations.of([step.total_ns for step in profiled]),
        layers=tuple(
            LayerTime(module, phase, Durations.of([step.layers.get((module, phase), 0) for step in profiled]))
            for module, phase in where
        ),
        accumulation=Durations.of([step.accumulation_ns for step in profiled]),
        unattributed=Durations.of([step.unattributed_ns for step in profiled]),
        clock=device,
    )


class _Stopwatch:
    """The time of a step, but for what is unseen in it."""

    def __init__(self, wait: Callable[[], None]) -> None:
        self._wait = wait
        self._began = self._unseen = 0
        self.ns = 0

    def __enter__(self) -> None:
        self._wait()
        self._began = time.perf_counter_ns()

    def __exit__(self, *error: Any) -> None:
        self._wait()
        self.ns = time.perf_counter_ns() - self._began - self._unseen

    @contextmanager
    def unseen(self) -> Iterator[None]:
        began = time.perf_counter_ns()
        yield
        self._unseen += time.perf_counter_ns() - began


def _bare(step: Step, wait: Callable[[], None]) -> int:
    watch = _Stopwatch(wait)
    step(watch)
    return watch.ns


class _Profiling:
    """A step under the profiler, with scopes around its modules."""

    def __init__(self, modules: Modules, cuda: bool) -> None:
        self.recording = Recording(cuda)
        self._cuda = cuda
        self._marks = ScopeMarks(modules)
        self._opened = ExitStack()

    def __enter__(self) -> None:
        with ExitStack() as stack:
            stack.enter_context(self.recording.running())
            stack.enter_context(self._marks.installed())
            if self._cuda:
                torch.cuda.synchronize()
            stack.enter_context(self._marks.scope(STEP))
            if self._cuda:
                stack.callback(torch.cuda.synchronize)  # its kernels end within the step
            self._opened = stack.pop_all()

    def __exit__(self, *error: Any) -> None:
        self._opened.__exit__(*error)

    def unseen(self) -> AbstractContextManager[None]:
        return self._marks.scope(UNSEEN)


def _profiled(step: Step, modules: Modules, cuda: bool) -> Joined:
    profiling = _Profiling(modules, cuda)
    step(profiling)
    return profiling.recording.joined()


def device_of(model: nn.Module) -> str:
    """``cpu`` or ``cuda``; raises :class:`AttnprofError` for a model on anything else."""
    tensors: Iterable[torch.Tensor] = chain(model.parameters(), model.buffers())
    kinds = {tensor.device.type for tensor in tensors} - {"cpu"}
    if not kinds:
        return "cpu"
    if kinds != {"cuda"}:
        raise AttnprofError(f"layers are timed on the CPU and on CUDA; the model is on {', '.join(sorted(kinds))}.")
    return "cuda"


def name_of(device: str) -> str:
    """``cpu``, or the GPU as its driver names it."""
    return torch.cuda.get_device_name() if device == "cuda" else device


def _nothing() -> None:
    """The CPU has done what it was asked when it returns."""
