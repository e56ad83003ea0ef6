"""Signature in, verdict out: priced, free or unpriced."""

from __future__ import annotations

from dataclasses import replace

from attnprof.core.cost import ZERO, Cost, Engine
from attnprof.core.errors import AttnprofError
from attnprof.core.signature import Declared, OpSignature
from attnprof.core.work import PricedOp, Work
from attnprof.costs import formulas, registry
from attnprof.costs.traffic import default

formulas.load()


def price(op: OpSignature) -> PricedOp:
    """The verdict on one op call. Never raises for an unknown op; a formula that fails is an error."""
    if op.view:
        return PricedOp(op, "free")
    formula = registry.formula_of(op.op)
    if formula is not None:
        work, (read, written) = _evaluate(op, formula), _moved(op, registry.traffic_of(op.op) or default)
    elif registry.free_reason(op.op) is not None:
        return PricedOp(op, "free")
    elif op.declared is not None:
        work, (read, written) = _declared(op, op.declared)
    else:
        return PricedOp(op, "unpriced", unknown_bytes=sum(default(op)))
    useful = work.matmul if work.useful is None else work.useful
    cost = Cost(work.matmul, work.vector, useful, read, written, _split(op, work.matmul, work.vector, work))
    again = ZERO
    if work.recompute_matmul or work.recompute_vector:
        split = _split(op, work.recompute_matmul, work.recompute_vector, work)
        again = Cost(work.recompute_matmul, work.recompute_vector, work.recompute_matmul, split=split)
    return PricedOp(op, "priced", cost, again)


def with_user_prices(op: OpSignature) -> OpSignature:
    """The signature with its price written in, where that price is a user's formula.

    A trace that is read again elsewhere has no such formula at hand.
    """
    if not registry.is_user(op.op):
        return op
    priced = price(op)
    cost, again = priced.cost, priced.recompute
    return replace(
        op,
        declared=Declared(
            "attnprof.cost",
            cost.matmul_flops,
            cost.vector_flops,
            cost.useful_matmul_flops,
            again.matmul_flops,
            again.vector_flops,
            cost.read_bytes,
            cost.write_bytes,
        ),
    )


def _declared(op: OpSignature, declared: Declared) -> tuple[Work, tuple[int, int]]:
    read, written = default(op)
    if declared.read_bytes is not None:
        read = declared.read_bytes
    if declared.write_bytes is not None:
        written = declared.write_bytes
    work = Work(
        matmul=declared.matmul_flops,
        vector=declared.vector_flops,
        useful=declared.useful_matmul_flops,
        recompute_matmul=declared.recompute_matmul_flops,
        recompute_vector=declared.recompute_vector_flops,
    )
    return work, (read, written)


def _moved(op: OpSignature, rule: registry.Traffic) -> tuple[int, int]:
    try:
        return rule(op)
    except Exception as error:  # whatever a rule may raise on arguments it does not expect
        raise AttnprofError(
            f"the traffic rule for {op.op} ({rule.__module__}.{rule.__qualname__}) failed on "
            f"({', '.join(map(str, op.inputs))}): {type(error).__name__}: {error}"
        ) from error


def _evaluate(op: OpSignature, formula: registry.Formula) -> Work:
    try:
        work = formula(op)
    except Exception as error:
        raise AttnprofError(
            f"the formula for {op.op} ({formula.__module__}.{formula.__qualname__}) failed on "
            f"({', '.join(map(str, op.inputs))}): {type(error).__name__}: {error}"
        ) from error
    if not isinstance(work, Work):
        raise AttnprofError(f"the formula for {op.op} returned {work!r}; it must return attnprof.Work(...).")
    return work


def _split(op: OpSignature, matmul: int, vector: int, work: Work) -> tuple[tuple[Engine, str, int], ...]:
    """FLOPs by engine and dtype: contractions in their operands' dtype, the rest in the result's."""
    parts: list[tuple[Engine, str, int]] = []
    if matmul:
        operands = next((t.dtype for t in op.inputs if t.is_floating), _first(op))
        parts.append(("matmul", work.matmul_dtype or work.dtype or operands, matmul))
    if vector:
        floating = next((t.dtype for t in (*op.outs, *op.inputs) if t.is_floating), None)
        parts.append(("vector", work.dtype or floating or _first(op), vector))
    return tuple(parts)


def _first(op: OpSignature) -> str:
    return next((t.dtype for t in (*op.inputs, *op.outs)), "unknown")
