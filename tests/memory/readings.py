"""Numbers read off the memory of a trace, as the tests state them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from torch import nn

import attnprof
from attnprof.core.memory import KINDS, MemoryTrace, Saved
from attnprof.core.trace import Trace


@dataclass(frozen=True)
class Reading:
    """The memory of one capture, with the names that the trace gives it."""

    trace: Trace

    @property
    def memory(self) -> MemoryTrace:
        assert self.trace.memory is not None
        return self.trace.memory

    @property
    def saved(self) -> Saved:
        """What was saved by the only outermost call that saved or held something; nothing when there was none."""
        assert len(self.memory.saved) <= 1
        return self.memory.saved[0] if self.memory.saved else Saved(0, {})

    def saved_by_name(self, call: int = 0) -> dict[str, int]:
        """Saved bytes by module name, of one outermost call."""
        return {self.trace.modules[index].fqn: size for index, size in self.memory.saved[call].by_module.items()}

    def held_by_name(self, call: int = 0) -> dict[str, int]:
        return {self.trace.modules[index].fqn: size for index, size in self.memory.saved[call].held.items()}

    @property
    def live(self) -> list[int]:
        """Live bytes after each entry of the log."""
        size = self.memory.block_bytes
        return list(accumulate(size[entry] if entry >= 0 else -size[~entry] for entry in self.memory.log))

    @property
    def live_at_ops(self) -> list[int]:
        """Live bytes while each op call ran: what it made is there, what its end freed is too."""
        size, changes = self.memory.block_bytes, [0] * (len(self.trace) + 1)
        for entry, at in zip(self.memory.log, self.memory.log_at, strict=True):
            changes[at] += size[entry] if entry >= 0 else -size[~entry]
        return list(accumulate(changes[:-1]))

    @property
    def live_at_allocations(self) -> list[int]:
        """The same of the ops that are no views: what real and fake tensors have in common, view by view or not."""
        trace = self.trace
        return [live for live, op in zip(self.live_at_ops, trace.event_signatures, strict=True)
                if not trace.signatures[op].view]  # fmt: skip

    def as_bare(self, polled: Sequence[int]) -> list[int]:
        """A poll is a dispatch mode: where autograd adds up two gradients, it sees the first beside the sum."""
        found, live = list(polled), self.live_at_ops
        for event, (op, scope) in enumerate(self.trace.events()):
            is_sum = op.op == "aten.add.Tensor" and scope.phase == "backward" and op.out.shape == op.inputs[0].shape
            if is_sum and live[event] != polled[event]:
                found[event] -= op.out.bytes
        return found

    @property
    def peak(self) -> int:
        return max(self.live)

    @property
    def peak_event(self) -> int:
        """The op call at which the peak was first reached."""
        return self.memory.log_at[self.live.index(self.peak)]

    @property
    def peak_op(self) -> str:
        return self.trace.signatures[self.trace.event_signatures[self.peak_event]].op

    @property
    def given(self) -> int:
        """The bytes of all blocks that no op made."""
        memory = self.memory
        return sum(size for size, made in zip(memory.block_bytes, memory.block_made, strict=True) if not made)

    def alive_at_the_end(self, kind: str) -> int:
        memory = self.memory
        ended = {~entry for entry in memory.log if entry < 0}
        return sum(
            size
            for block, size in enumerate(memory.block_bytes)
            if block not in ended and KINDS[memory.block_kinds[block]] == kind
        )

    def of_kind(self, kind: str) -> list[int]:
        """The sizes of all blocks of a kind, in order of birth."""
        memory = self.memory
        return [size for size, own in zip(memory.block_bytes, memory.block_kinds, strict=True) if KINDS[own] == kind]


def read(run: Callable[[], Any], model: nn.Module | None = None) -> Reading:
    """What ``run()`` held."""
    with attnprof.profile(model) as prof:
        kept = run()  # alive until the capture has ended
    del kept
    return Reading(prof.trace)


def read_call(
    model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None, *, fake: bool = False
) -> Reading:
    """What one forward and backward of ``model`` held, on real tensors or on fake ones."""
    return Reading(attnprof.run(model, args, kwargs, backward=True, fake=fake).trace)
