"""A counter of traced nodes: each node's number against those of the ops that ran in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache

from attnprof.analysis.crosscheck import formulas as known
from attnprof.analysis.crosscheck.places import Entries, Entry, Places
from attnprof.core.crosscheck import Kind, Reading, Said
from attnprof.core.signature import OpSignature
from attnprof.core.trace import Trace
from attnprof.core.work import PricedOp
from attnprof.costs.pricing import price

_NO_FORMULA = "listed there as unsupported, so it counts as 0"
_FREE = "taken for free there, on purpose"
_INSIDE = "scalar arithmetic inside contractions is not counted there, such as adding a bias"
_ESTIMATE = "an estimate there, so many FLOPs per element"
_UNUSED = "not in the finished trace: its result is not returned, or it ran in an autograd.Function"
_ONLY_TRACED = "ran only while the model was traced"
_NOT_TRACED = "did not run while the model was traced"


#: How often a module ran an op.
_Calls = Counter[tuple[str, OpSignature]]


def entries(trace: Trace, priced: Sequence[PricedOp], reading: Reading, places: Places) -> Entries:
    """Every node with why its number is not that of the ops in it, and the ops that ran in only one of the runs."""
    found: Entries = Counter()
    ran = _ran(trace, reading.phases)
    traced: _Calls = Counter()
    foreign = _foreign(places)
    for said in reading.said:
        module = _runner(places.nearest(max(said.modules, key=len)), said, traced, ran, foreign)
        inner = []
        for op in said.inner or ():
            if not _is_of_sizes(op) or traced[module, op] < ran[module, op]:
                traced[module, op] += 1
                inner.append(op)
        causes = _causes(reading, said, inner)
        theirs = reading.flops(said.op, said.amount)
        if causes or theirs:
            found[Entry(module, said.op, causes, theirs, places.known(said.modules) | {""})] += 1
    for entry, calls in _elsewhere(trace, priced, traced, ran):
        found[entry] += calls
    return found


def _elsewhere(
    trace: Trace,
    priced: Sequence[PricedOp],
    traced: _Calls,
    ran: _Calls,
) -> Iterator[tuple[Entry, int]]:
    """Ops that ran in only one of the two runs, but for those in whose place as much other work ran in the same module.

    (A batch norm is one op in a trace and another one outside.)
    """
    prices = dict(zip(trace.signatures, priced, strict=True))
    more: Counter[tuple[str, int]] = Counter()
    ops: list[tuple[str, OpSignature, int, int]] = []
    for module, op in traced.keys() | ran.keys():
        calls, flops = traced[module, op] - ran[module, op], sum(_flops(prices.get(op) or _price(op)))
        if calls and flops:
            more[module, flops] += calls
            ops.append((module, op, calls, flops))
    for module, op, calls, flops in sorted(ops, key=lambda found: (found[0], found[1].op, found[2:])):
        rest = more[module, flops]
        net = max(0, min(calls, rest)) if calls > 0 else min(0, max(calls, rest))
        more[module, flops] -= net
        if net:
            reason, sign = (_ONLY_TRACED, 1) if net > 0 else (_NOT_TRACED, -1)
            yield Entry(module, op.op, (("path", reason, sign * flops),)), abs(net)


def _foreign(places: Places) -> dict[str, list[str]]:
    """By module: those that it ran though they are no part of the model, such as one that it makes for each call."""
    found: dict[str, list[str]] = {}
    for name, parent in places.parents.items():
        if name.rpartition(".")[2].startswith("("):
            found.setdefault(parent.fqn, []).append(name)
    return found


def _runner(module: str, said: Said, traced: _Calls, ran: _Calls, foreign: dict[str, list[str]]) -> str:
    """The module that ran a node: ``module``, or one in it that the trace has no scope for and that ran these ops."""
    for other in foreign.get(module, ()):
        for op in said.inner or ():
            if traced[module, op] >= ran[module, op] and traced[other, op] < ran[other, op]:
                return other
    return module


def _ran(trace: Trace, phases: tuple[str, ...]) -> _Calls:
    """How often each module ran each op in these phases."""
    found: _Calls = Counter()
    for (signature, scope), calls in trace.counts().items():
        where = trace.scopes[scope]
        if where.phase in phases:
            found[trace.modules[where.module].fqn, trace.signatures[signature]] += calls
    return found


def _is_of_sizes(op: OpSignature) -> bool:
    """Arithmetic on single numbers: a tracer computes with sizes as tensors, a plain run as Python numbers."""
    return all(t.shape == () for t in (*op.inputs, *op.outs))


def _causes(reading: Reading, said: Said, inner: Sequence[OpSignature]) -> tuple[tuple[Kind, str, int], ...]:
    """Why a node's number is not that of the ops in it."""
    each = [_flops(_price(op)) for op in inner]
    matmul, vector = sum(m for m, _ in each), sum(v for _, v in each)
    theirs = reading.flops(said.op, said.amount)
    found: list[tuple[Kind, str, int]] = []
    if said.verdict == "unsupported":
        found.append(("unsupported", _NO_FORMULA, -matmul - vector))
    elif said.verdict == "ignored":
        found.append(("convention", _FREE, -matmul - vector))
    elif said.verdict == "unused":
        found.append(("path", _UNUSED, -matmul - vector))
    elif said.op in reading.macs:
        found.append(("convention", _INSIDE, -vector))
        if theirs != matmul and (reason := known.of_node(said, matmul, theirs)):
            found.append(("formula", reason, theirs - matmul))
    else:
        found.append(("convention", _ESTIMATE, theirs - vector))
    return tuple(cause for cause in found if cause[2])


@lru_cache(maxsize=4096)
def _price(op: OpSignature) -> PricedOp:
    return price(op)


def _flops(op: PricedOp) -> tuple[int, int]:
    """Matmul and vector FLOPs, with what is recomputed."""
    return (
        op.cost.matmul_flops + op.recompute.matmul_flops,
        op.cost.vector_flops + op.recompute.vector_flops,
    )
