"""Where an op belongs, module and phase: everything that leans on how autograd numbers its nodes.

Torch numbers autograd nodes per thread, in order of creation. A node exists before its op reaches the
dispatch mode, so the nodes made between two module boundaries belong to the module that was running.
That gives an interval map, number -> module, written at module boundaries only; in the backward, the
node being run names its number, and the map its module.

The rules of the backward, in order:

1. a module frame pushed within this graph task is a module being run again: recompute, that module;
2. grad mode on, and the innermost saved-tensor hooks are those of a checkpoint being recomputed:
   recompute, the module that called the checkpoint;
3. grad mode on although this graph task runs its own nodes with it off (no ``create_graph``): a
   checkpoint made by hand, recompute, the module of the node;
4. otherwise: backward, the module of the node. A gradient accumulation belongs to its parameter's module.
"""

from __future__ import annotations

import threading
import weakref
from bisect import bisect_right
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch

from attnprof.capture import checkpoints
from attnprof.core.trace import OPTIMIZER, OUTSIDE, PHASES, Scope

_number: Callable[[], int] = torch.autograd._get_sequence_nr  # type: ignore[attr-defined]
_node: Callable[[], Any] = torch._C._current_autograd_node
_task: Callable[[], int] = torch._C._current_graph_task_id
_hooks: Callable[[bool], Any] = torch._C._autograd._top_saved_tensors_default_hooks
_grad_enabled = torch.is_grad_enabled

_UNNUMBERED = 2**64 - 1  # AccumulateGrad has no number of its own
NO_TASK = -1


class Scopes:
    """Scopes as small ints, shared by every thread of a capture."""

    def __init__(self) -> None:
        self.known: list[Scope] = []
        self.ids: dict[str, dict[int, int]] = {phase: {} for phase in PHASES}  # by phase, then by module
        self._lock = threading.Lock()

    def id_of(self, module: int, phase: str) -> int:
        ids = self.ids[phase]
        found = ids.get(module)
        if found is None:
            with self._lock:
                found = ids.get(module)
                if found is None:
                    self.known.append(Scope(module, phase))
                    found = ids[module] = len(self.known) - 1
        return found


class OptimizerStep(NamedTuple):
    """A running ``Optimizer.step``."""

    phase: str
    task: int  # the graph task it was called in
    depth: int  # how many modules were running: those it runs itself (a closure) are above
    first_event: int
    markers: int  # the blocks that were open, its own included


class Attribution:
    """The state of one thread: the modules running, the numbers they own, the phase."""

    def __init__(
        self, scopes: Scopes, events: list[int], owner_of: Callable[[torch.Tensor], int], trusted: bool
    ) -> None:
        self._scopes = scopes
        self._id_of = scopes.id_of
        self._backward_ids = scopes.ids["backward"]
        self._events = events  # the scope of every event so far
        self._owner_of = owner_of
        self._trusted = trusted
        self.stack: list[int] = []
        self._tasks: list[int] = []  # the graph task each frame was pushed in
        self._starts: list[int] = []  # the number before which no node is of each frame
        self.ran: set[int] = set()  # the numbers of nodes that a backward ran
        self._numbers = [0]  # from this number on ...
        self._owners = [OUTSIDE]  # ... nodes belong to this module
        self.last = _number()  # the next number after the latest op: nodes below it have an owner
        self._steps: list[OptimizerStep] = []  # those running, the innermost last
        self._markers = 0  # record_function blocks open, those of before the capture not counted
        #: The scope of an op outside any backward, or None when each op must be looked at.
        self.scope: int | None = None
        self._task_grad: tuple[int, bool] = (NO_TASK, False)  # the task, and the grad mode of its nodes
        #: The node that ran the latest op and the scope of its next one, if no module or step runs; else -1.
        self.latest, self.latest_scope = -1, 0
        #: The module that called each live checkpoint, by the checkpoint's own frame.
        self.checkpoints: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._undecided: list[int] = []  # events booked by rule 3 before the task's grad mode was known

    # Module boundaries

    def enter(self, module: int) -> None:
        """A module's forward begins."""
        self._mark(_number(), module)
        hooks = _hooks(False)
        if hooks is not None:
            self._remember_checkpoint(hooks[0])
        self.stack.append(module)
        self._tasks.append(_task())
        self._starts.append(self._numbers[-1])
        self.latest = -1
        self._settle(module, hooks)

    def leave(self, module: int) -> tuple[int, int]:
        """A module's forward ended, also by an exception; frames lost to a KeyboardInterrupt go too.

        Gives the first number it could own, with the modules that it called, and the first after them.
        """
        stack = self.stack
        if module not in stack:
            return 0, 0
        while stack.pop() != module:
            self._tasks.pop()
            self._starts.pop()
        self._tasks.pop()
        start = self._starts.pop()
        below = stack[-1] if stack else OUTSIDE
        self._mark(_number(), below)
        self._settle(below, _hooks(False))
        return start, self._numbers[-1]

    def reset(self) -> None:
        """Nothing is running: drop frames that an interrupt left behind."""
        self.stack.clear()
        self._tasks.clear()
        self._starts.clear()
        self._steps.clear()
        self._mark(_number(), OUTSIDE)
        self.scope, self.latest = None, -1

    def _settle(self, module: int, hooks: Any) -> None:
        """What a module that runs outside any backward does: forward, unless a saved tensor is asked for.

        A training loop may be a module itself: in a step that it calls, each op is looked at.
        """
        if module == OUTSIDE or (self._steps and self._steps[-1].depth == len(self.stack)):
            self.scope = None
        elif hooks is None or checkpoints.recomputed(hooks[0]) is None:
            self.scope = self._id_of(module, "forward")
        else:
            self.scope = self._id_of(module, "recompute")

    def _mark(self, number: int, module: int) -> None:
        """From ``number`` on, nodes belong to ``module``."""
        del self._numbers[len(self._owners) :]  # half of an earlier one, after an interrupt
        if self._numbers[-1] == number:
            self._owners[-1] = module
        else:
            self._numbers.append(number)
            self._owners.append(module)
        self.last = number

    # Optimizer steps

    def begin_step(self, phase: str) -> None:
        """``Optimizer.step`` begins; modules and backwards that it runs (a closure) keep their own phase."""
        self._steps.append(OptimizerStep(phase, _task(), len(self.stack), len(self._events), self._markers))
        self.scope, self.latest = None, -1

    def end_step(self, has_state: bool) -> None:
        """It ended. One that keeps no state created none: it was a step like any other."""
        if not self._steps:
            return
        step = self._steps.pop()
        if step.phase == "optimizer_init" and not has_state:
            init, steady = self._id_of(OPTIMIZER, step.phase), self._id_of(OPTIMIZER, "optimizer")
            for event in range(step.first_event, len(self._events)):
                if self._events[event] == init:
                    self._events[event] = steady
        self.scope = None

    def mark_block(self, change: int) -> None:
        """A ``record_function`` block begins (1) or ends (-1).

        Torch runs each step inside one, which ends also when the step raises and its hooks do not run.
        """
        self._markers += change
        while self._steps and self._steps[-1].markers > self._markers:
            self.end_step(has_state=True)

    # Ops

    def forward(self) -> int:
        """The scope of an op outside any backward, where ``scope`` does not say.

        An optimizer step's is the optimizer's, but a closure's loss is forward. In no module and no step: forward if
        it made an autograd node (a loss), other if not.
        """
        number, last = _number(), self.last
        module = self.stack[-1] if self.stack else OUTSIDE
        if self._owners[-1] != module:
            self._mark(last, module)  # a backward made nodes meanwhile
        self.last = number
        hooks = _hooks(False)
        self._settle(module, hooks)
        if self.scope is not None:
            return self.scope
        if self._steps and not (number > last and _grad_enabled()):
            return self._id_of(OPTIMIZER, self._steps[-1].phase)
        frame = None if hooks is None else checkpoints.recomputed(hooks[0])
        if frame is not None:
            return self._id_of(self.checkpoints.get(frame, OUTSIDE), "recompute")
        return self._id_of(module, "forward" if number > last else "other")

    def backward(self, node: Any) -> int:
        """The scope of an op that ``node``'s backward runs."""
        number, grad = node._sequence_nr(), _grad_enabled()
        if number == self.latest and not grad:
            return self.latest_scope
        task, stack, steps = _task(), self.stack, self._steps
        if stack and self._tasks[-1] == task:
            return self._id_of(stack[-1], "recompute")
        if steps and steps[-1].task == task:
            return self._id_of(OPTIMIZER, steps[-1].phase)
        owner = self.owner_of(node, number)
        if number != _UNNUMBERED:
            self.ran.add(number)
        if grad:
            return self._with_grad(node, task, owner)
        if self._task_grad[0] != task and not _is_python(node):
            self._task_grad = (task, False)
            self._undecided.clear()
        scope = self._backward_ids.get(owner)
        if scope is None:
            scope = self._id_of(owner, "backward")
        if not stack and not steps and number != _UNNUMBERED:
            self.latest, self.latest_scope = number, scope
        return scope

    def _with_grad(self, node: Any, task: int, owner: int) -> int:
        hooks = _hooks(False)
        frame = None if hooks is None else checkpoints.recomputed(hooks[0])
        phase = "backward"
        if frame is not None:
            owner = self.checkpoints.get(frame, owner)
            phase = "recompute"
        elif self._task_grad[0] == task:
            phase = "backward" if self._task_grad[1] else "recompute"
        elif not _is_python(node):  # this task runs its C++ nodes with grad on: create_graph
            self._task_grad = (task, True)
            self._were_backward()
        else:
            self._undecided.append(len(self._events))
            phase = "recompute"
        number = _number()
        if number > self.last:  # nodes made here are this module's
            self._mark(self.last, owner)
            self.last = number
        self.scope = None  # whoever runs next must see that numbers have moved
        return self._id_of(owner, phase)

    def _were_backward(self) -> None:
        """Events taken for recompute before their task turned out to build a graph."""
        for event in self._undecided:
            module = self._scopes.known[self._events[event]].module
            self._events[event] = self._id_of(module, "backward")
        self._undecided.clear()

    def owner_of(self, node: Any, number: int) -> int:
        """The module whose op made a node, which has this number."""
        if not self._trusted:
            return OUTSIDE
        if number == _UNNUMBERED:
            variable = getattr(node, "variable", None)
            return OUTSIDE if variable is None else self._owner_of(variable)
        return self._owners[bisect_right(self._numbers, number) - 1]

    def _remember_checkpoint(self, pack: Any) -> None:
        frame = checkpoints.checkpointed(pack)
        if frame is not None and frame not in self.checkpoints:
            self.checkpoints[frame] = self.stack[-1] if self.stack else OUTSIDE


def _is_python(node: Any) -> bool:
    """Whether a node is a user's ``autograd.Function``, whose backward may switch grad mode itself."""
    return isinstance(node, torch.autograd.function.BackwardCFunction)


@cache
def numbers_work() -> bool:
    """Whether torch still numbers nodes as this file assumes: tried on a graph of two nodes."""
    with torch.inference_mode(False), torch.enable_grad():
        x = torch.zeros((), requires_grad=True)
        first = _number()
        y = x.cos()
        second = _number()
        z = y.sin()
    numbers = [getattr(t.grad_fn, "_sequence_nr", lambda: None)() for t in (y, z)]
    return numbers == [first, second] and second == first + 1
