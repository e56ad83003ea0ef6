"""What the ops of a module amount to in one quantity, and which of them a residual is made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

from attnprof.analysis.tree import ModuleNode, again
from attnprof.analytic.prediction import Phase, Quantity
from attnprof.analytic.theory import PHASES
from attnprof.core.comparison import OpShare
from attnprof.core.work import PricedOp

#: How many ops are tried together to make up a residual, and among how many.
_TOGETHER, _AMONG = 3, 40


def own_shares(
    node: ModuleNode, priced: Sequence[PricedOp], quantity: Quantity = "matmul_flops"
) -> dict[Phase, list[OpShare]]:
    """The ops that a module ran itself, by phase, with what they amount to; those of nothing are left out."""
    found: dict[Phase, list[OpShare]] = {phase: [] for phase in PHASES}
    for (where, signature), calls in node.self_ops.items():
        op = priced[signature]
        for phase, cost in ((where, op.cost), (again(where), op.recompute)):
            amount = getattr(cost, quantity)
            if phase in found and amount:
                found[phase].append(OpShare(op.signature.op, node.fqn, calls, amount * calls))
    return found


def explaining(ops: Iterable[OpShare], residual: int) -> list[OpShare]:
    """The fewest ops that amount to the residual, where there are such; else all, dearest first."""
    if not residual:
        return []
    found = merged(ops)
    among = [op for op in found if op.amount <= residual][:_AMONG]
    for count in range(1, _TOGETHER + 1):
        for some in combinations(among, count):
            if sum(op.amount for op in some) == residual:
                return list(some)
    return found


def merged(ops: Iterable[OpShare]) -> list[OpShare]:
    """One entry for each op of a module, dearest first."""
    found: dict[tuple[str, str], OpShare] = {}
    for op in ops:
        before = found.get((op.module, op.op))
        calls, amount = (before.calls, before.amount) if before else (0, 0)
        found[op.module, op.op] = OpShare(op.op, op.module, calls + op.calls, amount + op.amount)
    return sorted(found.values(), key=lambda op: -op.amount)
