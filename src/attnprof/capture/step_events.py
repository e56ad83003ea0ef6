"""What torch's profiler has recorded of one step, and what the time of that step is made of. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from attnprof.core.trace import OUTSIDE

NODE = "autograd::engine::evaluate_function: "
ACCUMULATES = f"{NODE}torch::autograd::AccumulateGrad"

#: What an event is. ``node``: autograd runs one, ``body``: the part of it that has a number. ``block``: Python
#: code that somebody gave a name, which is no work of its own.
Kind = Literal["op", "node", "body", "module", "optimizer", "unseen", "step", "block"]
#: In place of a module: gradient accumulation, and what the profiler itself made the step do.
ACCUMULATION, UNSEEN = -1, -2


@dataclass(frozen=True, slots=True)
class Event:
    """One event, in whole nanoseconds. ``number`` is that of an op or body, -1 for none; ``module`` a scope's.

    ``made_in`` is the thread in which the node of a body was made. ``ident`` is what kernels name as the op that
    launched them.
    """

    kind: Kind
    name: str
    start: int
    end: int
    thread: int = 1
    number: int = -1
    made_in: int = 0
    module: int = OUTSIDE
    ident: int = 0


@dataclass(frozen=True, slots=True)
class Kernel:
    """Work of a device, and the op that launched it (:attr:`Event.ident`)."""

    start: int
    end: int
    launched_by: int


@dataclass(frozen=True, slots=True)
class Joined:
    """One step: its own duration, and the time of each (module, phase) in it."""

    total_ns: int
    layers: dict[tuple[int, str], int]
    accumulation_ns: int

    @property
    def unattributed_ns(self) -> int:
        """The time in which nothing was at work: Python between ops, on a device also waiting for them."""
        return self.total_ns - sum(self.layers.values()) - self.accumulation_ns
