"""The optimizers that steps step, and whether they had their state before."""

from __future__ import annotations

import weakref
from collections.abc import Hashable
from dataclasses import dataclass
from functools import partial

from torch.optim.optimizer import Optimizer

from attnprof.capture.states import has_state


@dataclass(slots=True)
class Stepped:
    """One optimizer, held weakly, with what it kept before its latest step."""

    optimizer: weakref.ref[Optimizer]
    before: Hashable


class Optimizers:
    """Steps of an optimizer are of one kind with equal states before them: of as many parameters."""

    def __init__(self) -> None:
        self._known: dict[int, Stepped] = {}  # by id
        self.made_state = False  # some did, since this was last set

    def met(self, optimizer: Optimizer) -> Stepped:
        """Its step begins."""
        known = self._known.get(id(optimizer))
        if known is None:
            alive = weakref.ref(optimizer, partial(_forget, self._known, id(optimizer)))
            known = self._known[id(optimizer)] = Stepped(alive, _kept(optimizer))
        return known

    def ended(self, stepped: Stepped) -> tuple[str, Hashable]:
        """The kind of a step that has ended: its class, which one it is, and what it had before."""
        optimizer, before = stepped.optimizer(), stepped.before
        if optimizer is None:
            return "an optimizer", before
        after = _kept(optimizer)
        if after != before:
            stepped.before = after
            self.made_state = True
        return type(optimizer).__name__, (id(optimizer), before)


def _kept(optimizer: Optimizer) -> Hashable:
    return len(optimizer.state), len(optimizer.param_groups), has_state(optimizer)


def _forget(known: dict[int, Stepped], key: int, _: object) -> None:
    known.pop(key, None)
