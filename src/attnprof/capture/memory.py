"""What a run holds in memory: names for the ledger's blocks, and what autograd keeps at the end of a forward.

The ledger sees storages; here the model, its optimizers and the autograd graph say what they are: at the
beginning and the end of a capture, before and after each outermost module call, after each backward (a
callback that autograd runs at its end) and around each optimizer step.
"""

from __future__ import annotations

import sys
import weakref
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim.optimizer import Optimizer

from attnprof.capture import kv_cache, resizing, saved
from attnprof.capture.carried import carried, keywords_of_call
from attnprof.capture.ledger import BUFFER, CACHE, GRADIENT, INPUT, OPTIMIZER, PARAMETER, SAVED, Ledger
from attnprof.capture.states import states_of
from attnprof.core.memory import KVCache, MemoryTrace, Saved

if TYPE_CHECKING:
    from attnprof.capture.mode import ThreadRecorder
    from attnprof.capture.modules import Modules

_task: Callable[[], int] = torch._C._current_graph_task_id
_engine: Any = torch.autograd.Variable._execution_engine


class Memory:
    """Everything that one capture knows of memory."""

    def __init__(self, modules: Modules) -> None:
        self.ledger = Ledger()
        self.note, self.clock = self.ledger.note, self.ledger.clock
        self._modules = modules
        self._parameters: dict[int, weakref.ref[Tensor]] = {}  # by id
        self._met = 0  # how many modules were known when they were last looked at
        self._read = 0  # how much of the log was
        self._sizes: dict[str, int] = defaultdict(int)
        #: The same at the last look, and the blocks that they are the sum of.
        self._now: dict[str, int] = defaultdict(int)
        self._held: dict[str, set[int]] = defaultdict(set)
        self._optimizers: weakref.WeakKeyDictionary[Optimizer, dict[str, int]] = weakref.WeakKeyDictionary()
        self._optimizer_bytes: dict[str, int] = {}
        #: Parameters of optimizers that are no module's.
        self._masters: weakref.WeakKeyDictionary[Optimizer, list[weakref.ref[Tensor]]] = weakref.WeakKeyDictionary()
        self._saved: list[tuple[list[int], Saved]] = []
        self._caches: list[tuple[list[int], KVCache]] = []
        self._walked: dict[int, saved.Walked] = {}  # by id of the thread's clock
        self._watched: set[int] = set()  # the graph tasks whose end will be told
        self._open = ExitStack()
        self._end: int | None = None  # of the log, while the capture is closed

    # The capture

    def open(self) -> None:
        """The capture begins, or goes on."""
        self._end = None
        self._look_at_modules()
        self._look_at_gradients()
        self._open.enter_context(resizing.tells(self.ledger.resized))

    def close(self) -> None:
        """It ends: what happens to storages from now on is not part of it."""
        self._open.close()
        self._look_at_modules()
        self._look_at_gradients()
        self._end = len(self.ledger)

    # Module calls

    def before_call(self, args: Any) -> int:
        """A module is called from outside any module; the number of the first block that it can make."""
        if len(self._modules.met) != self._met:
            self._look_at_modules(self._met)
        self.ledger.give((args, keywords_of_call(sys._getframe(1))), INPUT)
        return len(self.ledger.bytes)

    def after_call(self, thread: ThreadRecorder, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        """Its forward has returned, in this thread."""
        ledger = self.ledger
        size, kinds = ledger.bytes, ledger.kinds
        with torch._C.DisableTorchFunction():
            returned = carried(output)
            by_block, is_all = self._saved_blocks(thread, [t for t in returned if t.requires_grad])
        given = ledger.blocks(carried((args, kwargs)))
        made = ledger.made_by(thread.clock, thread.since)
        rest = made.keys() - by_block.keys() - given - ledger.blocks(returned)
        if any(kinds[block] > GRADIENT for block in rest):
            self._look_at_modules()  # a buffer may have been made anew
        kept = {block: thread.module_of(made[block]) for block in sorted(rest) if kinds[block] > GRADIENT}
        if not is_all:
            by_block |= kept
            kept = {}
        for block in by_block:
            kinds[block] = min(kinds[block], SAVED)
        found = Saved(
            at=len(thread.events),
            by_module=_by_module(by_block, size),
            input_bytes=sum(size[block] for block in by_block.keys() & given),
            weight_copy_bytes=sum(size[block] for block in by_block.keys() & ledger.weight_copies),
            held=_by_module(kept, size),
        )
        if found.by_module or found.held:
            self._saved.append((thread.events, found))
        self._look_at_cache(thread, module, args, kwargs, output)

    def _saved_blocks(self, thread: ThreadRecorder, roots: list[Tensor]) -> tuple[dict[int, int], bool]:
        """What autograd keeps, each with the module whose op was the first to save it; and whether that is all."""
        ledger, attribution = self.ledger, thread.attribution
        kinds, walked = ledger.kinds, self._walked.setdefault(id(thread.clock), saved.Walked())
        walked.begin()
        nodes, behind = saved.nodes_behind(roots, walked.call_of)
        unknown = [p for p in saved.parameters_among(nodes) if not ledger.is_parameter(p)]
        ledger.classify(unknown, PARAMETER, from_the_beginning=False)
        found: dict[int, int] = {}
        for value, saver in saved.kept_by_graph(nodes, attribution.owner_of, attribution.checkpoints):
            for block in ledger.blocks(value):
                if kinds[block] > BUFFER:
                    found.setdefault(block, saver)
        walked.add(nodes.values(), found, behind)
        if behind:
            alive = ledger.alive()
            earlier = {block: module for block, module in walked.saved_by(behind).items() if block in alive}
            found = found | earlier
        return found, saved.are_readable(nodes)

    def _look_at_cache(self, thread: ThreadRecorder, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        size = kv_cache.cache_of(module, args, kwargs, output)
        if size is not None:
            self.ledger.classify(kv_cache.layers(kv_cache.find(module, args, kwargs, output)), CACHE)
            self._caches.append((thread.events, KVCache(len(thread.events), size.layer_bytes, size.tokens)))

    # Backward and optimizer

    def watch_backward(self, node: Any) -> None:
        """Called from inside a backward, by the ops of this node: look at the gradients when it ends."""
        self.ledger.sums.in_node(node, len(self.ledger.bytes))
        task = _task()
        if task in self._watched:
            return
        self._watched.add(task)

        def ended() -> None:
            self._watched.discard(task)
            for walked in list(self._walked.values()):
                walked.forget()
            if self._end is None:
                self._look_at_gradients()

        _engine.queue_callback(ended)

    def before_step(self, optimizer: Optimizer) -> None:
        """``optimizer.step`` begins: its state has been there before this, unless an op was seen to make it."""
        known = {id(reference()) for reference in self._parameters.values()}
        owned = (p for group in optimizer.param_groups for p in group["params"] if isinstance(p, Tensor))
        self._masters[optimizer] = [weakref.ref(p) for p in owned if id(p) not in known]
        self._look_at_gradients()
        self._look_at_state(optimizer, from_the_beginning=True)

    def after_step(self, optimizer: Optimizer) -> None:
        """It ended: what it keeps."""
        self._look_at_state(optimizer, from_the_beginning=False)

    def _look_at_state(self, optimizer: Optimizer, *, from_the_beginning: bool) -> None:
        ledger = self.ledger
        with torch._C.DisableTorchFunction():
            tensors: dict[str, list[Any]] = defaultdict(list)
            for name, value in states_of(optimizer):
                tensors[name].append(value)
            masters = [p for reference in self._masters.get(optimizer, ()) if (p := reference()) is not None]
            if self._parameters:
                tensors["parameters"] = [p for p in masters if not ledger.is_parameter(p)]
            elif masters:  # of no module: the parameters of the run
                size = sum(ledger.classify(masters, PARAMETER).values())
                self._sizes["parameter"] = self._sizes["trainable"] = max(self._sizes["parameter"], size)
            found = {
                name: sum(ledger.classify(values, OPTIMIZER, from_the_beginning=from_the_beginning).values())
                for name, values in tensors.items()
            }
        self._optimizers[optimizer] = {name: size for name, size in found.items() if size}
        together: dict[str, int] = defaultdict(int)
        for sizes in self._optimizers.values():
            for name, size in sizes.items():
                together[name] += size
        if sum(together.values()) >= sum(self._optimizer_bytes.values()):
            self._optimizer_bytes = dict(together)

    # The model

    def _look_at_modules(self, since: int = 0) -> None:
        """What the modules hold that became known from this number on; of the others, only what has ended since."""
        self._met = len(self._modules.met)
        ledger = self.ledger
        ledger.on_meta = self._modules.on_meta
        with torch._C.DisableTorchFunction():
            parameters, buffers = [], []
            for module in self._modules.alive(since):
                parameters += [p for p in module._parameters.values() if p is not None and not is_lazy(p)]
                buffers += [b for b in module._buffers.values() if b is not None and not is_lazy(b)]
            trainable = [p for p in parameters if p.requires_grad]
            read, self._read = self._read, len(ledger)
            ended = ledger.ended_in(read, self._read)
            if not since:
                self._parameters, self._held, self._now = {}, defaultdict(set), defaultdict(int)
            self._parameters |= {id(p): weakref.ref(p) for p in parameters}
            for name, values, kind in (
                ("parameter", parameters, PARAMETER),
                ("trainable", trainable, PARAMETER),
                ("buffer", buffers, BUFFER),
            ):
                found, held = ledger.classify(values, kind), self._held[name]
                new, gone = found.keys() - held, ended & held
                self._now[name] += sum(map(ledger.bytes.__getitem__, new)) - sum(map(ledger.bytes.__getitem__, gone))
                held ^= new | gone
                self._sizes[name] = max(self._sizes[name], self._now[name])

    def _look_at_gradients(self) -> None:
        with torch._C.DisableTorchFunction():
            masters = [reference for found in self._masters.values() for reference in found]
            owners = (reference() for reference in (*self._parameters.values(), *masters))
            gradients = [p.grad for p in owners if p is not None and p.is_leaf]
            size = sum(self.ledger.classify(gradients, GRADIENT).values())
            self._sizes["gradient"] = max(self._sizes["gradient"], size)

    # The result

    def trace(self, threads: Iterable[list[int]]) -> MemoryTrace:
        """What was seen so far; ``threads`` are the events of each, in the order of the whole trace."""
        offsets: dict[int, int] = {}
        total = 0
        for events in threads:
            offsets[id(events)] = total
            total += len(events)
        ledger = self.ledger
        entries = list(ledger.entries(offsets, self._end))
        sizes = list(ledger.bytes)
        for block in set(range(len(sizes))).difference(entry for _, entry in entries):
            sizes[block] = 0  # an interrupt kept it out of the log
        return MemoryTrace(
            block_bytes=sizes,
            block_kinds=list(ledger.kinds),
            block_made=[bool(made) for made in ledger.made],
            log=[entry for _, entry in entries],
            log_at=[min(position, total) for position, _ in entries],
            saved=[replace(found, at=found.at + offsets[id(events)]) for events, found in self._saved],
            caches=[replace(found, at=found.at + offsets[id(events)]) for events, found in self._caches],
            state_bytes=dict(self._sizes),
            optimizer_bytes=dict(self._optimizer_bytes),
        )


def on_kept_events(memory: MemoryTrace, kept: list[int]) -> MemoryTrace:
    """The memory of a trace of which only the events in ``kept`` remain."""
    return replace(
        memory,
        log_at=[bisect_left(kept, at) for at in memory.log_at],
        saved=[replace(found, at=bisect_left(kept, found.at)) for found in memory.saved],
        caches=[replace(found, at=bisect_left(kept, found.at)) for found in memory.caches],
    )


def _by_module(modules: Mapping[int, int], size: Sequence[int]) -> dict[int, int]:
    """Bytes by module, of blocks by module."""
    found: dict[int, int] = defaultdict(int)
    for block, module in modules.items():
        found[module] += size[block]
    return dict(found)
