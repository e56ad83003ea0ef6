"""Runs of a model at sizes: each once, on fake tensors where it needs no values, and what they counted."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from attnprof.api.layers import CHECK, FEW, Stack, agree, extrapolated, stack_of
from attnprof.api.running import fake_tensors, run
from attnprof.core.errors import AttnprofError
from attnprof.recovery.outcome import DataDependent, Sizes
from attnprof.recovery.space import UnmeasurableError

if TYPE_CHECKING:
    from torch import nn

    from attnprof.analysis.memory import MemorySummary
    from attnprof.api.report import Report

#: quantity, phase, path of the module ("" for the whole).
Key = tuple[str, str, str]
Counts = dict[Key, int]
Build = Callable[..., Any]
_PHASES = ("forward", "backward", "recompute")
#: Calls of an op in one module that are told apart when the peak is looked for.
_CALLS_APART = 16
#: Runs of a model that looks at values, from different weights and inputs, to see whether they count the same.
_SEEDS = 2


@dataclass
class CountedPoints:
    """Counts of what ``build(**sizes, **fixed)`` makes, by sizes; every point is run once.

    With ``backward`` there are counts of all phases, with ``memory`` what is saved and the peak. ``told`` is called
    before each run with its sizes and how many runs there were. A model that needs values is run on real tensors, from
    several seeds; counts that differ are in ``spread``.
    """

    build: Build
    fixed: Mapping[str, Any]
    backward: bool
    memory: bool
    told: Callable[[Sizes, int], None] = lambda sizes, runs: None
    is_real: bool = False
    by_layers: bool | None = None  # whether few of many equal layers tell what all cost; None: not yet seen
    layers: int = 0  # that were not all run
    runs: int = 0
    known: dict[tuple[tuple[str, int], ...], Counts] = field(default_factory=dict)
    unpriced: set[str] = field(default_factory=set)
    spread: dict[Key, list[tuple[Sizes, int, int]]] = field(default_factory=lambda: defaultdict(list))

    def __call__(self, sizes: Sizes) -> Counts:
        """The counts; raises :class:`UnmeasurableError` with the model's error where it fails."""
        at = tuple(sorted(sizes.items()))
        if at not in self.known:
            self.known[at] = self._counts(sizes)
        return self.known[at]

    def data_dependent(self, key: Key) -> DataDependent | None:
        """That a count is not a function of the sizes, if runs at the same sizes came to different ones."""
        if key not in self.spread:
            return None
        sizes, least, most = self.spread[key][-1]
        where = ", ".join(f"{name}={size}" for name, size in sizes.items())
        reason = f"the count depends on data: at {where}, {_SEEDS} runs came to {least} and {most}."
        return DataDependent(reason, tuple(self.spread[key]))

    def _counts(self, sizes: Sizes) -> Counts:
        from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

        if not self.is_real:
            try:
                return self._run(sizes, fake=True)
            except UnmeasurableError as failure:
                if not isinstance(failure.error, DataDependentOutputException | DynamicOutputShapeException):
                    raise
                self.is_real = True
        seeds = [self._run(sizes, seed=seed) for seed in range(_SEEDS)]
        for key in sorted({key for counts in seeds for key in counts}):
            found = [counts.get(key, 0) for counts in seeds]
            if min(found) < max(found):
                self.spread[key].append((dict(sizes), min(found), max(found)))
        return seeds[0]

    def _run(self, sizes: Sizes, seed: int = 0, fake: bool = False) -> Counts:
        self.told(sizes, self.runs)
        self.runs += 1
        with _seeded(seed):
            try:
                if fake:
                    with fake_tensors():
                        made = self.build(**self.fixed, **sizes)
                else:
                    made = self.build(**self.fixed, **sizes)
            except Exception as error:  # of the user's code, whatever it raises
                raise UnmeasurableError(error) from error
            model, args, kwargs = parts(made)
            stack = stack_of(model) if fake and self.by_layers is not False else None
            try:
                if stack is None:
                    return self._counted(model, args, kwargs, fake)
                return self._by_layers(stack, lambda: self._counted(model, args, kwargs, fake))
            except Exception as error:
                raise UnmeasurableError(error) from error

    def _counted(self, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], fake: bool) -> Counts:
        report = run(model, args, kwargs, backward=self.backward, fake=fake, memory=self.memory)
        self.unpriced |= report.unpriced.keys()
        return counts_of(report)

    def _by_layers(self, stack: Stack, count: Callable[[], Counts]) -> Counts:
        """The counts from few of many equal layers, once that was seen to come to those of all."""
        few, more, check = [self._shortened(stack, layers, count) for layers in (*FEW, CHECK)]
        if few is None or more is None or check is None or not agree(extrapolated(few, more, stack.path, CHECK), check):
            return count()
        found = extrapolated(few, more, stack.path, stack.layers)
        if self.by_layers is None:
            whole = count()
            self.by_layers = agree(found, whole)
            return whole
        self.layers = stack.layers
        return found

    def _shortened(self, stack: Stack, layers: int, count: Callable[[], Counts]) -> Counts | None:
        """The counts with so many layers; None if the model cannot do with fewer than it has."""
        with stack.shortened(layers):
            try:
                return count()
            except Exception:  # of code that counts on all of them: it is run with all
                return None


def counts_of(report: Report) -> Counts:
    """The counts of a run: every quantity in every phase and of every module, with what is below it.

    Layers have a sum of their own besides, under the path with their numbers as ``*``.
    """
    found: Counts = defaultdict(int)
    for phase in (*_PHASES, None):
        for path, cost in report.by_module(phase).items():
            quantities = {
                "flops": cost.flops,
                "matmul": cost.matmul_flops,
                "vector": cost.vector_flops,
                "bytes": cost.bytes,
            }
            for quantity, count in quantities.items():
                for name in {path, starred(path)}:
                    found[quantity, phase or "all", name] += count
    if report.memory is not None:
        for path, size in report.memory.saved_by_module().items():
            for name in {path, starred(path)}:
                found["saved", "all", name] += size
        found["peak", "all", ""] = report.memory.peak.bytes
        for place, size in _live(report, report.memory).items():
            found["live", "all", place] = size
    return dict(found)


def _live(report: Report, memory: MemorySummary) -> dict[str, int]:
    """The most bytes live at each place: an op of a module, of layers as of one, by itself and at the nth call there.

    The largest of them is the peak; which one that is depends on the sizes.
    """
    trace, found = report.trace, dict[str, int]()
    ends = _first_and_last([record.fqn for record in trace.modules])
    calls: Counter[tuple[int, int]] = Counter()
    places: list[tuple[str, str]] = []
    for signature, at in zip(trace.event_signatures, trace.event_scopes, strict=True):
        scope, op = trace.scopes[at], trace.signatures[signature].op
        path = trace.modules[scope.module].fqn
        place = f"{scope.phase} {ends.get(path, path)} {op}"
        calls[at, hash(op)] += 1
        places.append((place, f"{place} {min(calls[at, hash(op)], _CALLS_APART)}"))
    places.append(("end", "end"))
    timeline = memory.timeline
    for event, size in zip(timeline.events, timeline.totals, strict=True):
        for place in places[min(event, len(places) - 1)]:
            found[place] = max(found.get(place, 0), size)
    return found


def _first_and_last(names: Sequence[str]) -> dict[str, str]:
    """Paths with layers as ``first``, ``last`` or ``*``: what is live grows, or falls, from one layer to the next."""
    last: dict[str, int] = {}
    for name in names:
        parts = name.split(".")
        for i, part in enumerate(parts):
            if part.isdigit():
                above = starred(".".join(parts[:i]))
                last[above] = max(last.get(above, 0), int(part))
    found = {}
    for name in names:
        parts = name.split(".")
        for i, part in enumerate(parts):
            if part.isdigit():
                end = last[starred(".".join(name.split(".")[:i]))]
                parts[i] = "first" if part == "0" else "last" if int(part) == end else "*"
        found[name] = ".".join(parts)
    return found


def starred(path: str) -> str:
    """A path of modules with the numbers in it as ``*``: ``layers.*.attn``."""
    return re.sub(r"(?<![^.])\d+(?![^.])", "*", path)


def paths(points: Sequence[Mapping[Key, int]], quantity: str, phase: str) -> list[str]:
    """The modules there are at every point; layers as one where some points have more of them than others."""
    found = [{path for q, p, path in counts if (q, p) == (quantity, phase) and path} for counts in points]
    every, some = set.intersection(*found), set.union(*found)
    layers = {starred(path) for path in some - every}
    kept = {p for p in every if starred(p) not in layers and "*" not in p} | (layers & every)
    return [
        path for q, p, path in points[0] if (q, p) == (quantity, phase) and path in kept and not path.startswith("(")
    ]


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """The random state of the program stays as it is."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def parts(made: Any) -> tuple[nn.Module, tuple[Any, ...], Mapping[str, Any]]:
    """What ``build`` returned: a module, (module, args) or (module, args, kwargs)."""
    from torch import nn

    found = made if isinstance(made, tuple) else (made,)
    if not 1 <= len(found) <= 3 or not isinstance(found[0], nn.Module):
        kinds = ", ".join(type(part).__name__ for part in found)
        raise AttnprofError(
            f"build returned ({kinds}); it must return a module, (module, args) or (module, args, kwargs)."
        )
    args = found[1] if len(found) > 1 else ()
    kwargs = found[2] if len(found) > 2 else {}
    if not isinstance(args, tuple | list):
        hint = "(model, (), kwargs)" if isinstance(args, Mapping) else "(model, (x,))"
        raise AttnprofError(f"build returned args that are a {type(args).__name__}; args is a tuple: write {hint}.")
    return found[0], tuple(args), kwargs or {}
