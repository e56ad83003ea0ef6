"""torch's ``FlopCounterMode``: run as it is, with a log of what it says of each op beside its own numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from attnprof.core.crosscheck import Reading, Said
from attnprof.counters.naming import without_wrappers

#: The name under which it has the whole run.
_WHOLE = "Global"
#: Wrappers that hold a model as their ``module``.
_PARALLEL = ("DistributedDataParallel", "DataParallel")


class _Logging(FlopCounterMode):
    """The counter, with a log: for each op that it has a formula for, the number and the modules it goes to."""

    def __init__(self) -> None:
        super().__init__(display=False)
        self.said: list[Said] = []

    def _count_flops(self, func_packet: Any, out: Any, args: Any, kwargs: Any) -> Any:
        whole = self.flop_counts[_WHOLE]
        before = whole.get(func_packet, 0)
        result = super()._count_flops(func_packet, out, args, kwargs)  # type: ignore[no-untyped-call]
        if func_packet in self.flop_registry:
            added = int(whole[func_packet] - before)
            self.said.append(Said(str(func_packet), added, frozenset(self.mod_tracker.parents)))
        return result


class TorchCounter:
    """A context in which ``FlopCounterMode`` counts; what is run in it again after :meth:`restart` is counted anew."""

    def __init__(self, model: nn.Module) -> None:
        self._root = type(model).__name__
        self._amounts: dict[str, Counter[str]] = {}
        self._said: list[Said] = []
        self._mode: _Logging | None = None

    def __enter__(self) -> TorchCounter:
        self._mode = _Logging()
        self._mode.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        mode, self._mode = self._mode, None
        assert mode is not None
        mode.__exit__(*error)  # type: ignore[no-untyped-call]
        for module, ops in mode.flop_counts.items():
            self._amounts.setdefault(module, Counter()).update({str(op): int(n) for op, n in ops.items()})
        self._said += mode.said

    def step(self, label: str | None = None) -> None:
        """The end of a step, of which this counter knows nothing."""

    @contextmanager
    def unseen(self) -> Iterator[None]:
        """Ops in here are not of the run. They contract nothing, so that the counter has no formula for them."""
        yield

    def restart(self, model: nn.Module) -> None:
        """Forget what was counted."""
        self._amounts.clear()
        self._said.clear()

    def reading(self) -> Reading:
        """What it said."""
        names = {name: dotted(name, self._root) for name in self._amounts}
        amounts = {names[name]: dict(ops) for name, ops in self._amounts.items() if name != self._root}
        return Reading(
            "torch",
            f"FlopCounterMode of torch {torch.__version__.split('+')[0]}",
            {"": {}} | amounts,
            said=tuple(Said(s.op, s.amount, frozenset(names[name] for name in s.modules)) for s in self._said),
        )


def dotted(name: str, root: str) -> str:
    """``h.0`` for ``GPT.h.0``: names begin with a class there, and those of the model leave it out here.

    A class other than the model's is a module that is not part of it: ``(CrossEntropyLoss)``.
    """
    first, *rest = name.split(".")
    if first == _WHOLE or name == root:
        return ""
    if first == root:
        return without_wrappers(rest, parallel=root in _PARALLEL)
    return ".".join([f"({first})", *rest])
