"""One step under torch's profiler, and its events as :mod:`attnprof.capture.joining` takes them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from attnprof.capture import scope_marks
from attnprof.capture.joining import join
from attnprof.capture.step_events import NODE, Event, Joined, Kernel, Kind
from attnprof.core.errors import AttnprofError

#: What the profiler's library reads once, when it begins: from this level on it says nothing on its own.
_LOG_LEVEL, _SILENT = "KINETO_LOG_LEVEL", "6"
_CPU = torch._C._autograd.DeviceType.CPU
_BODY = 1  # torch's scope of what a node runs
_KINDS: dict[str, Kind] = {
    scope_marks.STEP: "step",
    scope_marks.UNSEEN: "unseen",
    scope_marks.OPTIMIZER_STEP: "optimizer",
}


def check_is_free() -> None:
    """Raise :class:`AttnprofError` where something would be timed with the step.

    That is a profiler of torch's that runs already, of which there is one per process, or a dispatch mode (an
    open profile of ours is one).
    """
    if torch._C._autograd._profiler_enabled():
        raise AttnprofError(
            "layers are timed with torch's profiler, and one is running already: time them outside of it."
        )
    modes = _get_current_dispatch_mode_stack()
    if modes:
        raise AttnprofError(
            f"layers are timed bare, and {type(modes[-1]).__name__}, a dispatch mode, is on: time them outside of it."
        )


class Recording:
    """What the profiler recorded while :meth:`running` was open."""

    def __init__(self, cuda: bool) -> None:
        self._cuda = cuda
        self._profile: Any = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Inside, torch's profiler runs. What it records is read afterwards."""
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self._cuda else [])]
        check_is_free()
        with profile(activities=activities) as self._profile:
            yield

    def joined(self) -> Joined:
        """The time of the one step in it, by module and phase."""
        return join(self.events(), self._kernels() if self._cuda else None)

    def events(self) -> list[Event]:
        """What ran on the host: ops, nodes of autograd, and scopes; calls of the CUDA runtime are in their ops."""
        found = self._profile.profiler.kineto_results.events()
        return [
            _event(event)
            for event in found
            if event.device_type() == _CPU and event.linked_correlation_id() <= 0 and not event.is_async()
        ]

    def _kernels(self) -> list[Kernel]:
        found = self._profile.profiler.kineto_results.events()
        return [
            Kernel(event.start_ns(), event.end_ns(), event.linked_correlation_id())
            for event in found
            if event.device_type() != _CPU and event.linked_correlation_id() > 0 and not _is_annotation(event)
        ]


@contextmanager
def silent() -> Iterator[None]:
    """Inside, the profiler's library may begin, and writes nothing to the terminal, unless somebody wants it to."""
    if _LOG_LEVEL in os.environ:
        yield
        return
    os.environ[_LOG_LEVEL] = _SILENT
    try:
        yield
    finally:
        os.environ.pop(_LOG_LEVEL, None)


def _event(event: Any) -> Event:
    name: str = event.name()
    module = scope_marks.module_of(name)
    return Event(
        _kind(event, name) if module is None else "module",
        name,
        event.start_ns(),
        event.end_ns(),
        event.start_thread_id(),
        event.sequence_nr(),
        event.fwd_thread_id(),
        -1 if module is None else module,
        event.correlation_id(),
    )


def _kind(event: Any, name: str) -> Kind:
    found = _KINDS.get(name)
    if found is not None:
        return found
    if name.startswith(NODE):
        return "node"
    if event.scope() == _BODY:
        return "body"
    return "block" if _is_annotation(event) else "op"


def _is_annotation(event: Any) -> bool:
    return bool(event.is_user_annotation())
