"""What a step of an optimizer is known by: two with the same key are taken to do the same work."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch.optim.optimizer import Optimizer

from attnprof.capture.sampling import STRIDE, Sampled

_Plainly = torch._C.DisableTorchFunction
#: Options that change no op.
_NO_MATTER = {"params", "lr", "initial_lr"}
#: Steps of RAdam that are told apart: it rectifies from the sixth on.
_FIRST = 8


class OptimizerKeys:
    """Of the optimizers of a run. ``late`` is told of changes that were seen late, see :class:`Sampled`."""

    def __init__(self, late: Callable[[], None]) -> None:
        self._late = late
        self._states: weakref.WeakKeyDictionary[Optimizer, OptimizerState] = weakref.WeakKeyDictionary()
        self._numbers: dict[Hashable, int] = {}
        self._latest: tuple[weakref.ref[Optimizer], OptimizerState] | None = None

    def key(self, optimizer: Optimizer, step_ns: int) -> tuple[Hashable, Hashable]:
        """Which one it is; and the state that it is in, where a step takes so long (0: not known)."""
        latest = self._latest
        if latest is None or latest[0]() is not optimizer:
            latest = self._latest = weakref.ref(optimizer), self._state_of(optimizer)
        state = latest[1]
        if state.is_slow_to_start and state.steps < _FIRST:
            state.steps += 1
        return state.which, (state.which, state.number(optimizer, step_ns), state.steps)

    def _state_of(self, optimizer: Optimizer) -> OptimizerState:
        if optimizer not in self._states:
            self._states[optimizer] = OptimizerState(self._numbers, self._late, optimizer)
        return self._states[optimizer]

    def begin_anew(self) -> None:
        """They will be in other states than so far."""
        for state in self._states.values():
            state.begin_anew()


class OptimizerState(Sampled[Optimizer]):
    """Its options, which parameters have a gradient, of how many it has a state, and what grows in that (the history of
    L-BFGS, which is always looked at as a whole).
    """

    def __init__(self, numbers: dict[Hashable, int], late: Callable[[], None], optimizer: Optimizer) -> None:
        super().__init__(numbers, late)
        self.is_slow_to_start, self.steps = isinstance(optimizer, torch.optim.RAdam), 0
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.which = type(optimizer), id(parameters[0]) if parameters else 0

    def whole(self, subject: Optimizer) -> tuple[Hashable, int]:
        options = [_option(v) for group in subject.param_groups for k, v in group.items() if k not in _NO_MATTER]
        parameters = [p for group in subject.param_groups for p in group["params"]]
        sizes = [len(group["params"]) for group in subject.param_groups]
        with _Plainly():
            ungrown = [p.grad is None for p in parameters]
            first = next(iter(subject.state.values()), None)
        grown = [len(v) for v in first.values() if type(v) is list] if isinstance(first, dict) else []
        whole = tuple(options), tuple(ungrown), tuple(sizes), len(subject.state), tuple(grown)
        in_every_sample = min(sizes, default=0) >= STRIDE
        return whole, len(parameters) if in_every_sample and not grown else 0

    def sample(self, subject: Optimizer, which: int) -> Hashable:
        """Of the parameters; of the options, all in one sample."""
        found: list[Hashable] = []
        with _Plainly():
            for group in subject.param_groups:
                found.append(len(group["params"]))
                for parameter in group["params"][which::STRIDE]:
                    found.append(parameter.grad is None)
                if not which:
                    found += [_option(v) for k, v in group.items() if k not in _NO_MATTER]
        found.append(len(subject.state))
        return tuple(found)


def _option(value: Any) -> Hashable:
    """A flag as it is; of a number, whether there is any."""
    kind: type = type(value)
    if kind is float or kind is int:
        return bool(value)
    if kind is bool or kind is str or value is None:
        return (value,)
    return kind
