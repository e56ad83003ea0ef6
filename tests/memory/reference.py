"""Two other ways to know what is in memory, that share nothing with the profiler's.

``Allocator`` adds up what torch's own profiler saw the CPU allocator do: every byte, those inside of kernels
too, and none that was there before. ``Poll`` is a dispatch mode that remembers every storage it meets and asks
after each op which are still alive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass(frozen=True)
class Allocator:
    """Bytes beyond those that were there before: at most, and at the end."""

    peak: int
    live: int


def allocator(run: Callable[[], Any]) -> Allocator:
    """What ``run()`` had allocated; the tensors it returns are alive at the end."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as prof:
        kept = run()
    del kept
    events = [event for event in prof.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return Allocator(peak, live)


class Poll(TorchDispatchMode):
    """After each op, the bytes of all storages seen so far that are still alive; of ``given`` ones from the start."""

    def __init__(self, given: Iterable[torch.Tensor] = ()) -> None:
        super().__init__()
        self.live: list[int] = []
        self._seen: list[tuple[StorageWeakRef, int]] = []
        for tensor in given:
            self._see(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            for tensor in tree_leaves((args, kwargs, out)):
                if isinstance(tensor, torch.Tensor):
                    self._see(tensor)
        self._seen = [(reference, size) for reference, size in self._seen if not reference.expired()]
        self.live.append(sum(size for _, size in self._seen))
        return out

    def _see(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        reference = StorageWeakRef(storage)
        if all(known.cdata != reference.cdata or known.expired() for known, _ in self._seen):
            self._seen.append((reference, storage.nbytes()))


def poll(run: Callable[[], Any], given: Iterable[torch.Tensor] = ()) -> list[int]:
    """The live bytes while each op of ``run()`` ran, without the profiler."""
    with Poll(given) as mode:
        kept = run()
    del kept
    return mode.live
