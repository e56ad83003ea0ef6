"""Why a backward is not twice its forward: frozen weights, plain inputs, calls without a backward, and the rest.

A contraction ``A @ B`` has two gradients, each a contraction of the same size: that is the factor 2. Each module's
own forward and backward are held against it, and what is missing or more is put down to a reason. The reasons
add up to the difference exactly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from attnprof.analysis.contractions import Contractions, flops
from attnprof.analysis.idle import idle
from attnprof.analysis.tree import ModuleNode
from attnprof.core.errors import ConservationError
from attnprof.core.trace import Trace
from attnprof.core.work import PricedOp

#: ``call``: forward calls without a backward. ``frozen``: weights that need no gradient. ``input``: inputs that
#: need none. ``either``: one of ``input`` and ``call``, where the trace cannot tell. ``unreached``: modules with
#: something to train that no backward ran through. ``less`` and ``more``: what is left, ops whose backward is not
#: two contractions of their size, or does not run once.
Cause = Literal["call", "frozen", "input", "either", "unreached", "less", "more"]
_CAUSES: tuple[Cause, ...] = ("call", "frozen", "input", "either", "unreached", "less", "more")


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
    modules = {id(record): index for index, record in enumerate(trace.modules)}
    works = {modules[id(node.record)]: Contractions.of(node, priced) for node in nodes}
    unused = idle(trace, lambda module, s: module in works and works[module].trains(s))
    for (module, s), calls in unused.calls.items():
        if module in works:
            works[module].take_off(s, flops(priced[s]) * calls)
    found: dict[Cause, dict[str, int]] = {cause: {} for cause in _CAUSES}
    doubt = not unused.all or any(work.is_short for work in works.values())
    for work in works.values():
        sure = unused.all and not work.is_short if work.trained else not doubt
        for cause, off in _causes(work, sure):
            if off:
                found[cause][work.fqn] = off
    training = Training(
        forward=sum(node.own("forward").matmul_flops for node in nodes),
        backward=backward,
        reasons=tuple(Reason(cause, modules) for cause, modules in found.items() if modules),
        rerun=_recomputed(root, priced, "recompute"),
        rebuilt=_recomputed(root, priced, "backward"),
    )
    training.check()
    return training


def _causes(work: Contractions, sure: bool) -> Iterator[tuple[Cause, int]]:
    """By how much a module's own backward is off twice its own forward, and why.

    ``sure`` says whether every call that is left had a backward.
    """
    missing = work.missing
    yield "call", -2 * work.idle
    if missing <= 0:
        yield "more", -missing
    elif not work.backward and work.trained:
        yield "unreached", -missing
    else:
        frozen = min(missing, int(work.frozen))
        inputs = min(missing - frozen, work.inputs)
        yield "frozen", -frozen
        if sure:
            yield "input", -inputs
            yield "less", -(missing - frozen - inputs)
        else:
            yield "either", -(missing - frozen)


def _recomputed(root: ModuleNode, priced: Sequence[PricedOp], phase: str) -> dict[str, int]:
    """Matmul FLOPs of the recompute that ops of one phase did, by module."""
    found: Counter[str] = Counter()
    for node in root.walk():
        for (where, s), calls in node.self_ops.items():
            if where == phase:
                op = priced[s]
                found[node.fqn] += (op.recompute.matmul_flops if phase == "backward" else flops(op)) * calls
    return {fqn: again for fqn, again in found.items() if again}
