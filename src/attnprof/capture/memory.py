"""What a run holds in memory: names for the ledger's blocks, and what autograd keeps at the end of a forward.

The ledger sees storages; here the model, its optimizers and the autograd graph say what they are: at the
beginning and the end of a capture, before and after each outermost module call, after each backward (a
callback that autograd runs at its end) and around each optimizer step.
"""

from __future__ import annotations

import weakref
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim.optimizer import Optimizer

from attnprof.capture import saved
from attnprof.capture.ledger import BUFFER, GRADIENT, INPUT, OPTIMIZER, PARAMETER, SAVED, Ledger
from attnprof.core.memory import MemoryTrace, Saved

if TYPE_CHECKING:
    from attnprof.capture.modules import Modules

_is_wrapped: Callable[[Tensor], bool] = torch._C._functorch.is_functorch_wrapped_tensor
_task: Callable[[], int] = torch._C._current_graph_task_id
_engine: Any = torch.autograd.Variable._execution_engine
#: How deep an output is searched for tensors that it carries: fields of objects in lists of objects ...
_DEPTH = 6


class Memory:
    """Everything that one capture knows of memory."""

    def __init__(self, modules: Modules, events: list[int]) -> None:
        self.ledger = Ledger(events)
        self.note = self.ledger.note
        self._modules = modules
        self._parameters: list[weakref.ref[Tensor]] = []
        self._records = -1  # how many modules there were when their parameters were last looked at
        self._sizes: dict[str, int] = defaultdict(int)
        self._optimizers: weakref.WeakKeyDictionary[Optimizer, dict[str, int]] = weakref.WeakKeyDictionary()
        self._optimizer_bytes: dict[str, int] = {}
        self._masters: list[weakref.ref[Tensor]] = []  # parameters of optimizers that are no module's
        self._saved: list[tuple[list[int], Saved]] = []
        self._watched: set[int] = set()  # the graph tasks whose end will be told
        self._end: int | None = None  # of the log, while the capture is closed

    # The capture

    def open(self) -> None:
        """The capture begins, or goes on."""
        self._end = None
        self._look_at_modules()
        self._look_at_gradients()

    def close(self) -> None:
        """It ends: what happens to storages from now on is not part of it."""
        self._look_at_modules()
        self._look_at_gradients()
        self._end = len(self.ledger)

    # Module calls

    def before_call(self, args: Any) -> int:
        """A module is called from outside any module; the number of the first block that it can make."""
        if len(self._modules.records) != self._records:
            self._look_at_modules()
        self.ledger.give(args, INPUT)
        return len(self.ledger.bytes)

    def after_call(
        self, events: list[int], owner: Callable[[Any], int], frames: Mapping[Any, int], maker: Callable[[int], int],
        inputs: Any, output: Any, since: int,
    ) -> None:  # fmt: skip
        """Its forward has returned.

        ``owner`` and ``maker`` give the module of an autograd node and of the op call with this number;
        ``frames`` the module that called each checkpoint; ``since`` what :meth:`before_call` returned.
        """
        ledger = self.ledger
        size, kinds = ledger.bytes, ledger.kinds
        by_block: dict[int, int] = {}  # the module whose op was the first to save it
        with torch._C.DisableTorchFunction():
            carried = list(_carried(output))
            nodes = saved.nodes_behind(t for t in carried if t.requires_grad)
            for value, module in saved.kept_by_graph(nodes, owner, frames):
                for block in ledger.blocks(value):
                    if kinds[block] > BUFFER:
                        by_block.setdefault(block, module)
        given = ledger.blocks(list(_carried(inputs)))
        rest = ledger.alive(since) - by_block.keys() - given - ledger.blocks(carried)
        if any(kinds[block] > GRADIENT for block in rest):
            self._look_at_modules()  # a buffer may have been made anew
        kept = {b: maker(ledger.born[b]) for b in sorted(rest) if kinds[b] > GRADIENT and ledger.made[b]}
        if not all(map(saved.is_readable, nodes)):
            by_block |= kept
            kept = {}
        for block in by_block:
            kinds[block] = min(kinds[block], SAVED)
        found = Saved(
            at=len(events),
            by_module=_by_module(by_block, size),
            input_bytes=sum(size[block] for block in by_block.keys() & given),
            weight_copy_bytes=sum(size[block] for block in by_block.keys() & ledger.weight_copies),
            held=_by_module(kept, size),
        )
        if found.by_module or found.held:
            self._saved.append((events, found))

    # Backward and optimizer

    def watch_backward(self) -> None:
        """Called from inside a backward: look at the gradients when it ends."""
        task = _task()
        if task in self._watched:
            return
        self._watched.add(task)

        def ended() -> None:
            self._watched.discard(task)
            self._look_at_gradients()

        _engine.queue_callback(ended)

    def before_step(self, optimizer: Optimizer) -> None:
        """``optimizer.step`` begins: its state has been there before this, unless an op was seen to make it."""
        known = {id(reference()) for reference in self._parameters}
        owned = (p for group in optimizer.param_groups for p in group["params"] if isinstance(p, Tensor))
        self._masters = [weakref.ref(p) for p in owned if id(p) not in known]
        self._look_at_gradients()
        self.after_step(optimizer)

    def after_step(self, optimizer: Optimizer) -> None:
        """It ended: what it keeps."""
        with torch._C.DisableTorchFunction():
            tensors: dict[str, list[Any]] = defaultdict(list)
            for state in optimizer.state.values():
                for name, value in state.items():
                    tensors[str(name)].append(value)
            masters = [p for reference in self._masters if (p := reference()) is not None]
            found = {name: self.ledger.classify(values, OPTIMIZER) for name, values in tensors.items()}
            if masters:
                found["parameters"] = self.ledger.classify(masters, OPTIMIZER if self._parameters else PARAMETER)
        self._optimizers[optimizer] = {name: size for name, size in found.items() if size}
        together: dict[str, int] = defaultdict(int)
        for sizes in self._optimizers.values():
            for name, size in sizes.items():
                together[name] += size
        if sum(together.values()) >= sum(self._optimizer_bytes.values()):
            self._optimizer_bytes = dict(together)

    # The model

    def _look_at_modules(self) -> None:
        self._records = len(self._modules.records)
        self.ledger.on_meta = self._modules.on_meta
        with torch._C.DisableTorchFunction():
            parameters, buffers = [], []
            for module in self._modules.alive():
                parameters += [p for p in module._parameters.values() if p is not None and not is_lazy(p)]
                buffers += [b for b in module._buffers.values() if b is not None and not is_lazy(b)]
            self._parameters = [weakref.ref(p) for p in {id(p): p for p in parameters}.values()]
            trainable = [p for p in parameters if p.requires_grad]
            for name, values, kind in (
                ("parameter", parameters, PARAMETER),
                ("trainable", trainable, PARAMETER),
                ("buffer", buffers, BUFFER),
            ):
                self._sizes[name] = max(self._sizes[name], self.ledger.classify(values, kind))

    def _look_at_gradients(self) -> None:
        with torch._C.DisableTorchFunction():
            owners = (reference() for reference in (*self._parameters, *self._masters))
            gradients = [p.grad for p in owners if p is not None and p.is_leaf]
            self._sizes["gradient"] = max(self._sizes["gradient"], self.ledger.classify(gradients, GRADIENT))

    # The result

    def trace(self, threads: Iterable[list[int]]) -> MemoryTrace:
        """What was seen so far; ``threads`` are the events of each, in the order of the whole trace."""
        offsets: dict[int, int] = {}
        total = 0
        for events in threads:
            offsets[id(events)] = total
            total += len(events)
        ledger = self.ledger
        starts = [(first, offsets.get(id(events), 0)) for first, events in ledger.threads]
        log, log_at = [], []
        first = len(ledger.initial)
        for number, (position, entry) in enumerate(ledger.entries(self._end)):
            while len(starts) > 1 and number - first >= starts[1][0]:
                del starts[0]
            log.append(entry)
            log_at.append(0 if number < first else min(position + starts[0][1], total))
        return MemoryTrace(
            block_bytes=list(ledger.bytes),
            block_kinds=list(ledger.kinds),
            block_made=[bool(made) for made in ledger.made],
            log=log,
            log_at=log_at,
            saved=[replace(found, at=found.at + offsets[id(events)]) for events, found in self._saved],
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


def _carried(value: Any, depth: int = _DEPTH) -> Iterable[Tensor]:
    """The tensors that an output carries: itself, in containers, in the fields of objects; and in transforms."""
    if isinstance(value, Tensor):
        yield value
        while _is_wrapped(value):  # by vmap or grad, which have a graph each
            value = torch._C._functorch.get_unwrapped(value)
            yield value
    elif depth and not isinstance(value, str | int | float | type | nn.Module | torch.dtype | torch.device):
        if isinstance(value, Mapping):
            items: Iterable[Any] = list(value.values())
        elif isinstance(value, list | tuple | set):
            items = value
        else:
            items = list(getattr(value, "__dict__", {}).values())
        for item in items:
            yield from _carried(item, depth - 1)
