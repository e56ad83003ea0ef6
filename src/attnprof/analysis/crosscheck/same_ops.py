"""A counter that sees the very ops that attnprof does: its calls and ours, one to one."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence

from attnprof.analysis.crosscheck import formulas as known
from attnprof.analysis.crosscheck.places import Entries, Entry, Places
from attnprof.core.crosscheck import Kind, Reading, Said
from attnprof.core.trace import Trace
from attnprof.core.work import PricedOp

_NO_FORMULA = "no formula there, so it counts as 0"
_SCALAR = "scalar arithmetic is not counted there"
_OTHER_CALLS = "the ops of its run are not those of ours"

#: (signature, module) of a call.
_Call = tuple[int, int]


def entries(
    trace: Trace, priced: Sequence[PricedOp], formulas: Sequence[int | None], reading: Reading, places: Places
) -> Entries:
    """Every op call with what the other counter says of it.

    ``formulas`` is what its formula gives for each signature of the trace, found apart from its run; None where it
    has none. Calls of an op are paired in order. Where its run had others, those are named.
    """
    said: dict[str, list[Said]] = defaultdict(list)
    for one in reading.said:
        said[one.op].append(one)
    found: Entries = Counter()
    ours: dict[str, list[_Call]] = defaultdict(list)
    for signature, scope in zip(trace.event_signatures, trace.event_scopes, strict=True):
        op = trace.signatures[signature]
        call = (signature, trace.scopes[scope].module)
        if op.packet in said or formulas[signature] is not None:
            ours[op.packet].append(call)
        else:
            found[_alone(call, trace, priced)] += 1
    for packet in dict.fromkeys((*ours, *said)):
        for mine, other in _pairs(ours[packet], said[packet], formulas):
            found[_entry(mine, other, packet, trace, priced, places)] += 1
    return found


def _pairs(
    ours: Sequence[_Call], said: Sequence[Said], formulas: Sequence[int | None]
) -> Iterator[tuple[_Call | None, Said | None]]:
    """Calls of one op in pairs; alone where the other run has no such call."""
    pairs = list(zip(ours, said, strict=False))
    if len(ours) == len(said) and all(formulas[call[0]] in (None, one.amount) for call, one in pairs):
        yield from pairs
        return
    by_amount: dict[int | None, deque[Said]] = defaultdict(deque)
    for one in said:
        by_amount[one.amount].append(one)
    for call in ours:
        equal = by_amount[formulas[call[0]]]
        yield call, equal.popleft() if equal else None
    for rest in by_amount.values():
        for one in rest:
            yield None, one


def _entry(
    call: _Call | None, said: Said | None, packet: str, trace: Trace, priced: Sequence[PricedOp], places: Places
) -> Entry:
    if call is None:
        assert said is not None
        there = places.known(said.modules)
        inmost = max(there, key=lambda name: len(places.around[name]), default="")
        return Entry(inmost, packet, (("path", _OTHER_CALLS, said.amount),), said.amount, there | {""})
    signature, module = call
    op, name = trace.signatures[signature], trace.modules[module].fqn
    matmul, vector = _flops(priced[signature])
    if said is None:
        return Entry(name, op.op, (("path", _OTHER_CALLS, -matmul - vector),))
    causes: list[tuple[Kind, str, int]] = []
    if vector:
        causes.append(("convention", _SCALAR, -vector))
    if said.amount != matmul and (reason := known.of_op(op, matmul, said.amount)):
        causes.append(("formula", reason, said.amount - matmul))
    return Entry(name, op.op, tuple(causes), said.amount, places.known(said.modules) | {""})


def _alone(call: _Call, trace: Trace, priced: Sequence[PricedOp]) -> Entry:
    """A call of an op that the other counter has no formula for."""
    signature, module = call
    matmul, vector = _flops(priced[signature])
    causes: list[tuple[Kind, str, int]] = []
    if matmul:
        causes.append(("unsupported", _NO_FORMULA, -matmul))
    if vector:
        causes.append(("convention", _SCALAR, -vector))
    return Entry(trace.modules[module].fqn, trace.signatures[signature].op, tuple(causes))


def _flops(op: PricedOp) -> tuple[int, int]:
    """Matmul and vector FLOPs, with what is recomputed."""
    return (
        op.cost.matmul_flops + op.recompute.matmul_flops,
        op.cost.vector_flops + op.recompute.vector_flops,
    )
