"""Runs of a model at sizes: each once, on fake tensors where it needs no values, and what they counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from attnprof.api.running import fake_tensors, run
from attnprof.core.errors import AttnprofError
from attnprof.recovery.outcome import Sizes

if TYPE_CHECKING:
    from torch import nn

    from attnprof.api.report import Report

#: quantity, phase, path of the module ("" for the whole).
Key = tuple[str, str, str]
Counts = Mapping[Key, int]
Build = Callable[..., Any]
_PHASES = ("forward", "backward", "recompute")


@dataclass
class CountedPoints:
    """Counts of what ``build(**sizes, **fixed)`` makes, by sizes; every point is run once."""

    build: Build
    fixed: Mapping[str, Any]
    backward: bool
    memory: bool
    told: Callable[[Sizes, int], None] = lambda sizes, runs: None
    real: bool = False
    runs: int = 0
    known: dict[tuple[tuple[str, int], ...], Counts] = field(default_factory=dict)

    def __call__(self, sizes: Sizes) -> Counts:
        key = tuple(sorted(sizes.items()))
        if key not in self.known:
            self.told(sizes, self.runs)
            self.known[key] = self._counts(self._report(sizes))
            self.runs += 1
        return self.known[key]

    def _report(self, sizes: Sizes) -> Report:
        import torch
        from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

        if not self.real:
            try:
                with torch.random.fork_rng(devices=[]), fake_tensors():
                    model, args, kwargs = parts(self.build(**sizes, **self.fixed))
                return run(model, args, kwargs, backward=self.backward, fake=True, memory=self.memory)
            except (DataDependentOutputException, DynamicOutputShapeException):
                self.real = True
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model, args, kwargs = parts(self.build(**sizes, **self.fixed))
            return run(model, args, kwargs, backward=self.backward, memory=self.memory)

    def _counts(self, report: Report) -> Counts:
        found: dict[Key, int] = {}
        for phase in (*_PHASES, None):
            for path, cost in report.by_module(phase).items():
                label = phase or "all"
                found["flops", label, path] = cost.flops
                found["matmul", label, path] = cost.matmul_flops
                found["vector", label, path] = cost.vector_flops
                found["bytes", label, path] = cost.bytes
        if report.memory is not None:
            for path, size in report.memory.saved_by_module().items():
                found["saved", "all", path] = size
            found["peak", "all", ""] = report.memory.peak.bytes
        return found


def parts(made: Any) -> tuple[nn.Module, tuple[Any, ...], Mapping[str, Any]]:
    """What ``build`` returned: a module, (module, args) or (module, args, kwargs)."""
    from torch import nn

    found = made if isinstance(made, tuple) else (made,)
    if not 1 <= len(found) <= 3 or not isinstance(found[0], nn.Module):
        raise AttnprofError(
            f"build returned a {type(made).__name__}; it must return a module, (module, args) or (module, args, kwargs)."
        )
    args = found[1] if len(found) > 1 else ()
    kwargs = found[2] if len(found) > 2 else {}
    return found[0], tuple(args), kwargs or {}
