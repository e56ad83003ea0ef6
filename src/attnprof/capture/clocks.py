"""How long a step takes, without standing in its way."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import nn

from attnprof.core.timing import SAMPLE, Durations

Told = Callable[[int], None]


class Times:
    """Durations as they come, of which at most a sample is kept: every one, then every second, every fourth, ..."""

    def __init__(self) -> None:
        self.count = self.total_ns = self.shortest_ns = 0
        self._sample: list[int] = []
        self._stride = 1

    def add(self, ns: int) -> None:
        if self.count % self._stride == 0:
            self._sample.append(ns)
            if len(self._sample) > SAMPLE:
                self._stride *= 2
                del self._sample[1::2]
        if ns < self.shortest_ns or not self.count:
            self.shortest_ns = ns
        self.count += 1
        self.total_ns += ns

    def latest(self, number: int) -> list[int]:
        """The last few of the sample."""
        return self._sample[-number:]

    def durations(self) -> Durations:
        return Durations(self.count, self.total_ns, tuple(self._sample[:SAMPLE]))


class Clock(Protocol):
    """Begun and ended at a step's ends; ``tell`` passes the duration on, perhaps later, when it is known."""

    name: str

    def begin(self) -> None: ...
    def end(self) -> None: ...
    def tell(self, told: Told) -> None: ...
    def flush(self, *, wait: bool) -> None: ...


class HostClock:
    """The host's own clock; work of another device is waited for at the step's end."""

    name = "perf_counter"

    def __init__(self, wait: Callable[[], Any] | None = None) -> None:
        self._wait = wait
        self._began = self._took = 0

    def begin(self) -> None:
        self._began = time.perf_counter_ns()

    def end(self) -> None:
        if self._wait is not None:
            self._wait()
        self._took = time.perf_counter_ns() - self._began

    def tell(self, told: Told) -> None:
        told(self._took)

    def flush(self, *, wait: bool) -> None:
        """Every duration was told at once."""


class CudaClock:
    """Events in the current stream: the host never waits, until a report is asked for."""

    name = "cuda events"

    def __init__(self) -> None:
        self._ends: list[torch.cuda.Event] = []
        self._told: deque[tuple[torch.cuda.Event, torch.cuda.Event, Told]] = deque()

    def begin(self) -> None:
        self._ends = [_event()]

    def end(self) -> None:
        self._ends.append(_event())

    def tell(self, told: Told) -> None:
        began, ended = self._ends
        self._told.append((began, ended, told))
        self.flush(wait=False)

    def flush(self, *, wait: bool) -> None:
        """Tell the durations of steps that the device has finished, or of all."""
        while self._told:
            began, ended, told = self._told[0]
            if wait:
                ended.synchronize()
            elif not ended.query():
                return
            self._told.popleft()
            told(round(began.elapsed_time(ended) * 1e6))  # torch gives milliseconds


def clock_for(model: nn.Module) -> Clock:
    """The clock for the device that the model is on."""
    kinds = {p.device.type for p in model.parameters()} - {"cpu", "meta"}
    if "cuda" in kinds:
        return CudaClock()
    return HostClock(torch.accelerator.synchronize if kinds and torch.accelerator.is_available() else None)


def _event() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event
