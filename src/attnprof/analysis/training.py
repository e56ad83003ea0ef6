"""Why a backward is not twice its forward: frozen weights, plain inputs, calls without a backward, and the rest.

A contraction ``A @ B`` has two gradients, each a contraction of the same size: that is the factor 2. Each module's
own forward and backward are held against it, and what is missing or more is put down to a reason. The reasons
add up to the difference exactly.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from attnprof.analysis.idle import idle
from attnprof.analysis.tree import ModuleNode
from attnprof.analysis.weights import Weights
from attnprof.core.errors import ConservationError
from attnprof.core.trace import Trace
from attnprof.core.work import PricedOp

#: ``call``: forward calls without a backward. ``frozen``: weights that need no gradient. ``input``: inputs that
#: need none. ``either``: one of ``input`` and ``call``, where the trace cannot tell. ``unreached``: modules with
#: something to train that no backward ran through. ``less`` and ``more``: what is left, ops whose backward is not
#: two contractions of their size, or does not run once.
Cause = Literal["call", "frozen", "input", "either", "unreached", "less", "more"]
_CAUSES: tuple[Cause, ...] = ("call", "frozen", "input", "either", "unreached", "less", "more")

#: By signature: how much of an op's weight is frozen; None for an op without a weight.
Parts = Mapping[int, Fraction | None]


@dataclass(frozen=True, slots=True)
class Reason:
    """One cause and its modules, each with the matmul FLOPs by which its backward is off twice its forward."""

    cause: Cause
    modules: Mapping[str, int]

    @property
    def flops(self) -> int:
        return sum(self.modules.values())


@dataclass(frozen=True, slots=True)
class Training:
    """Matmul FLOPs of a training run: ``backward`` is twice ``forward`` and the sum of the ``reasons``.

    ``rerun`` are forward FLOPs done again under activation checkpointing, by module; ``rebuilt`` those that
    fused attention backwards do to rebuild the scores. Together they are ``recompute``.
    """

    forward: int
    backward: int
    reasons: tuple[Reason, ...]
    rerun: Mapping[str, int]
    rebuilt: Mapping[str, int]

    @property
    def recompute(self) -> int:
        return sum(self.rerun.values()) + sum(self.rebuilt.values())

    @property
    def ratio(self) -> Fraction | None:
        """Backward over forward; None when no contraction of the forward was seen."""
        return Fraction(self.backward, self.forward) if self.forward else None

    def check(self) -> None:
        """Raise unless the reasons add up to the difference."""
        difference = self.backward - 2 * self.forward
        explained = sum(reason.flops for reason in self.reasons)
        if explained != difference:
            raise ConservationError(
                f"the backward is {difference} FLOPs off twice the forward, of which {explained} have a reason: "
                "a defect in attnprof, please report it."
            )


def explain(trace: Trace, priced: Sequence[PricedOp], root: ModuleNode) -> Training | None:
    """The training of a run; None when no contraction ran in a backward."""
    nodes = [node for node in root.walk() if node.own("forward").matmul_flops or node.own("backward").matmul_flops]
    backward = sum(node.own("backward").matmul_flops for node in nodes)
    if not backward:
        return None
    parts = {id(node.record): _frozen_parts(node, priced) for node in nodes}
    trained = {(module, s) for module, found in parts.items() for s, part in found.items() if part not in (None, 1)}
    unused = idle(trace, lambda module, s: (id(trace.modules[module]), s) in trained)
    alone: dict[int, dict[int, int]] = defaultdict(dict)
    for (module, s), calls in unused.calls.items():
        alone[id(trace.modules[module])][s] = calls
    found: dict[Cause, dict[str, int]] = {cause: {} for cause in _CAUSES}
    for node in nodes:
        index = id(node.record)
        for cause, flops in _causes(node, priced, parts[index], alone[index], unused.all):
            if flops:
                found[cause][node.fqn] = flops
    training = Training(
        forward=sum(node.own("forward").matmul_flops for node in nodes),
        backward=backward,
        reasons=tuple(Reason(cause, modules) for cause, modules in found.items() if modules),
        rerun=_recomputed(root, priced, "recompute"),
        rebuilt=_recomputed(root, priced, "backward"),
    )
    training.check()
    return training


def _causes(
    node: ModuleNode, priced: Sequence[PricedOp], parts: Parts, alone: Mapping[int, int], sure: bool
) -> Iterator[tuple[Cause, int]]:
    """By how much a module's own backward is off twice its own forward, and why.

    The op calls ``alone`` had no backward, and ``sure`` says whether these are all.
    """
    calls = {s: n - alone.get(s, 0) for (phase, s), n in node.self_ops.items() if phase == "forward"}
    flops = {s: _flops(priced[s]) * n for s, n in calls.items() if _flops(priced[s]) * n}
    backward = node.own("backward").matmul_flops
    missing = 2 * sum(flops.values()) - backward
    yield "call", -2 * sum(_flops(priced[s]) * n for s, n in alone.items())
    if missing <= 0:
        yield "more", -missing
        return
    if not backward and any(parts[s] is not None and parts[s] != 1 for s in flops):
        yield "unreached", -missing
        return
    frozen = min(missing, int(sum(flops[s] * (parts[s] or 0) for s in flops)))
    yield "frozen", -frozen
    if not sure:
        yield "either", -(missing - frozen)
        return
    # An op with a weight has one other operand; one without can miss the gradients of both.
    inputs = min(missing - frozen, sum(flops[s] * (2 if parts[s] is None else 1) for s in flops))
    yield "input", -inputs
    yield "less", -(missing - frozen - inputs)


def _frozen_parts(node: ModuleNode, priced: Sequence[PricedOp]) -> Parts:
    """How much of its weight is frozen, for each contraction of a module's own forward; None: it has no weight."""
    signatures = [s for phase, s in node.self_ops if phase == "forward" and _flops(priced[s])]
    weights = Weights(node, [priced[s].signature for s in signatures])
    return {s: weights.frozen_part(priced[s].signature) for s in signatures}


def _flops(op: PricedOp) -> int:
    """What a forward call of an op adds to the matmul FLOPs of the forward."""
    return op.cost.matmul_flops + op.recompute.matmul_flops


def _recomputed(root: ModuleNode, priced: Sequence[PricedOp], phase: str) -> dict[str, int]:
    """Matmul FLOPs of the recompute that ops of one phase did, by module."""
    found: Counter[str] = Counter()
    for node in root.walk():
        for (where, s), calls in node.self_ops.items():
            if where == phase:
                op = priced[s]
                found[node.fqn] += (op.recompute.matmul_flops if phase == "backward" else _flops(op)) * calls
    return {fqn: flops for fqn, flops in found.items() if flops}
