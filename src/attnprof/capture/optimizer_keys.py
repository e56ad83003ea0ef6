"""What a step of an optimizer is known by: two with the same key are taken to do the same work."""

from __future__ import annotations

import weakref
from collections.abc import Hashable, Mapping
from typing import Any

import torch
from torch.optim.optimizer import Optimizer

#: Options that change no op.
_NO_MATTER = {"params", "lr", "initial_lr"}
#: Steps of RAdam that are told apart: it rectifies from the sixth on.
_FIRST = 8


class OptimizerKeys:
    """Of the optimizers of a run."""

    def __init__(self) -> None:
        self._steps: weakref.WeakKeyDictionary[Optimizer, int] = weakref.WeakKeyDictionary()

    def key(self, optimizer: Optimizer) -> tuple[Hashable, Hashable]:
        """Which one it is; and its options, which parameters have a gradient and of how many it has a state."""
        with torch._C.DisableTorchFunction():
            groups = tuple([_group(group) for group in optimizer.param_groups])
            which = type(optimizer), _first_of(optimizer.param_groups[0]) if groups else 0
            first = next(iter(optimizer.state.values()), None)
        kept = tuple([len(v) for v in first.values() if type(v) is list]) if isinstance(first, Mapping) else ()
        return which, (groups, len(optimizer.state), kept, self._step_of(optimizer))

    def _step_of(self, optimizer: Optimizer) -> int:
        if not isinstance(optimizer, torch.optim.RAdam):
            return 0
        steps = self._steps[optimizer] = min(self._steps.get(optimizer, 0) + 1, _FIRST)
        return steps


def _first_of(group: dict[str, Any]) -> int:
    return id(group["params"][0]) if group["params"] else 0


def _group(group: dict[str, Any]) -> Hashable:
    return (
        tuple([p.grad is None for p in group["params"]]),
        tuple([_option(value) for name, value in group.items() if name not in _NO_MATTER]),
    )


def _option(value: Any) -> Hashable:
    """A flag as it is; of a number, whether there is any."""
    kind: type = type(value)
    if kind is float or kind is int:
        return bool(value)
    if kind is bool or kind is str or value is None:
        return (value,)
    return kind
