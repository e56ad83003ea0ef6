"""Measured against predicted beside matmul FLOPs: vector FLOPs and traffic, parameters, and bytes saved.

What a module gathers, and what its backward adds up, depends on what is around it: only the model as a whole is held
against all of it. The vector FLOPs of a forward are a module's own, wherever it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

from attnprof.analysis.memory import MemorySummary
from attnprof.analysis.shares import explaining, own_shares
from attnprof.analysis.tree import ModuleNode
from attnprof.analytic.prediction import Phase, Quantity
from attnprof.analytic.theory import PHASES, Theory
from attnprof.core.comparison import Comparison, OpShare
from attnprof.core.work import PricedOp

_WORK: tuple[Quantity, ...] = ("vector_flops", "read_bytes", "write_bytes")
_OUTSIDE = ("(outside)", "(optimizer)")


def states(root: ModuleNode, known: Theory, memory: MemorySummary | None) -> list[Comparison]:
    """Parameters, and the bytes saved where all calls were alike and ran in one dtype."""
    parameters = {p.ident: p for node in root.walk() for p in node.record.parameters}.values()
    sizes = [(prod(p.shape), p.trainable) for p in parameters]
    measured: dict[Quantity, int] = {
        "parameters": sum(size for size, _ in sizes),
        "trainable_parameters": sum(size for size, trainable in sizes if trainable),
    }
    if memory is not None and _builds_one_graph(root) and _is_in_one_dtype(root):
        measured["saved_bytes"] = memory.saved_bytes
    return [
        Comparison(root.fqn, known.formula, "", quantity, value, known.once[quantity])
        for quantity, value in measured.items()
        if quantity in known.once
    ]


def work(node: ModuleNode, known: Theory, priced: Sequence[PricedOp]) -> list[Comparison]:
    """Of a module with a formula for everything inside: what it states of vector FLOPs and of traffic.

    Where a backward went through more than one call gradients were added up, which no formula of one call has.
    """
    if not known.work or not _is_in_one_dtype(node):
        return []
    is_model = not node.fqn
    once = sum(times for kind, times in node.record.call_kinds.items() if kind.backward) <= 1
    found = []
    for quantity in _WORK if is_model else _WORK[:1]:
        phases: Sequence[Phase] = PHASES if is_model and once else ("forward",)
        wanted = {phase: known.done(quantity, phase) for phase in phases}
        if all(predicted is None for predicted in wanted.values()):
            continue
        ops = _inside(node, priced, quantity)
        for phase, predicted in wanted.items():
            measured = sum(op.amount for op in ops[phase])
            if predicted is not None and (measured or predicted):
                terms = known.work[quantity, phase]
                named = tuple(explaining(ops[phase], measured - predicted))
                found.append(Comparison(node.fqn, known.formula, phase, quantity, measured, predicted, terms, named))
    return found


def _inside(node: ModuleNode, priced: Sequence[PricedOp], quantity: Quantity) -> dict[Phase, list[OpShare]]:
    """The ops of a module and of those in it, a loss and the like left out."""
    found: dict[Phase, list[OpShare]] = {phase: [] for phase in PHASES}
    for part in _parts(node):
        for phase, ops in own_shares(part, priced, quantity).items():
            found[phase] += ops
    return found


def _parts(node: ModuleNode) -> Iterator[ModuleNode]:
    return (part for part in node.walk() if part.fqn not in _OUTSIDE)


def _builds_one_graph(root: ModuleNode) -> bool:
    """Whether all calls were alike, and a backward went through them or could have."""
    kinds = [kind for kind in root.record.call_kinds if not kind.recomputed]
    if len(kinds) != 1:
        return False
    outputs = zip(kinds[0].tensors, kinds[0].gradients, strict=True)
    return kinds[0].backward or any(needed for text, needed in outputs if text.startswith("-> "))


def _is_in_one_dtype(node: ModuleNode) -> bool:
    """Whether contractions ran in the dtype of the weights: no autocast."""
    dtypes = {p.dtype for part in node.walk() for p in part.record.parameters}
    computed = {dtype for engine, dtype, _ in node.inclusive("forward").split if engine == "matmul"}
    return len(dtypes | computed) <= 1
