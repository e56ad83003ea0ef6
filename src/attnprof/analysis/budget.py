"""Whether a run keeps a budget, and where the cost of one that does not comes from."""

from __future__ import annotations

from collections.abc import Iterator

from attnprof.analysis.budget_changes import ModuleChange, compare
from attnprof.analysis.budget_snapshot import op_text, snapshot
from attnprof.analysis.report import PHASES, Report
from attnprof.analysis.tree import ModuleNode, again
from attnprof.core.budget import Budget, Finding, Part
from attnprof.core.cost import Cost
from attnprof.core.errors import AttnprofError, closest
from attnprof.core.module_names import matches
from attnprof.core.snapshot import Snapshot


def hold(report: Report, budget: Budget) -> Finding:
    """What the run has of the quantity that a budget limits.

    Raises :class:`AttnprofError` where the run cannot tell: no module matches, memory was not tracked.
    """
    if budget.quantity == "unpriced":
        parts = [Part("", op.calls, op.op) for op in report.unpriced_ops]
        return Finding(budget, sum(part.amount for part in parts), tuple(parts))
    nodes = list(report.root.walk()) if budget.module is None else list(_below(_chosen(report, budget.module)))
    if budget.quantity == "memory_bytes":
        return _memory(report, budget, nodes)
    parts = [part for node in nodes if (part := _part(report, node, budget)).amount]
    parts.sort(key=lambda part: -part.amount)
    return Finding(budget, sum(part.amount for part in parts), tuple(parts), bool(report.unpriced))


def grown(report: Report, budget: Budget, before: Snapshot) -> list[ModuleChange]:
    """The modules that a budget of FLOPs or bytes is for, in its phase, that have more of it than before."""
    nodes = None if budget.module is None else {node.fqn for node in _below(_chosen(report, budget.module))}

    def in_scope(run: Snapshot) -> Snapshot:
        return Snapshot(
            {
                (phase, module): line
                for (phase, module), line in run.lines.items()
                if (nodes is None or module in nodes) and budget.phase in (None, phase)
            }
        )

    changes = compare(in_scope(before), in_scope(snapshot(report))).modules
    found = [change for change in changes if change.total(budget.quantity).delta > 0]
    return sorted(found, key=lambda change: -change.total(budget.quantity).delta)


def names(node: ModuleNode) -> Iterator[str]:
    """What a module can be called: its names, with and without the class that a run without a model puts first."""
    for name in (node.fqn, *node.aliases):
        yield name
        first, _, rest = name.partition(".")
        if first.startswith("(") and first.endswith(")"):
            if rest:
                yield rest
            yield f"{first[1:-1]}.{rest}" if rest else first[1:-1]


def _chosen(report: Report, pattern: str) -> list[ModuleNode]:
    """The modules that match, those inside another left out: it has them already."""
    found: list[ModuleNode] = []

    def look(node: ModuleNode) -> None:
        if any(matches(pattern, name) for name in names(node)):
            found.append(node)
        else:
            for child in node.children:
                look(child)

    for child in report.root.children:
        look(child)
    if not found:
        nodes = [node for node in report.root.walk() if node.fqn not in ("(outside)", "(optimizer)")]
        known = [name for node in nodes for name in names(node) if name and not name.startswith("(")]
        more = ", and more" if len(known) > 4 else ""
        hint = closest(pattern, known) or (f" There are {', '.join(known[:4])}{more}." if known else " No module ran.")
        raise AttnprofError(f'no module matches "{pattern}", so its budget would limit nothing.{hint}')
    return found


def _below(nodes: list[ModuleNode]) -> Iterator[ModuleNode]:
    for node in nodes:
        yield from node.walk()


def _part(report: Report, node: ModuleNode, budget: Budget) -> Part:
    """What a module itself has of a quantity of FLOPs or bytes in the phases of a budget."""
    ops: dict[str, int] = {}
    for (where, signature), calls in node.self_ops.items():
        priced = report.priced[signature]
        for phase, cost in ((where, priced.cost), (again(where), priced.recompute)):
            if cost and (budget.phase is None or _shown(phase) == budget.phase):
                text = op_text(priced.signature)
                ops[text] = ops.get(text, 0) + _amount(cost, budget.quantity) * calls
    dearest = max(ops, key=lambda text: ops[text], default="")
    return Part(node.fqn, sum(ops.values()), dearest)


def _amount(cost: Cost, quantity: str) -> int:
    return cost.flops if quantity == "flops" else cost.bytes


def _memory(report: Report, budget: Budget, nodes: list[ModuleNode]) -> Finding:
    memory = report.memory
    if memory is None:
        raise AttnprofError("memory was not tracked in this run, so it has no budget: leave out memory=False.")
    if budget.kind == "peak":
        where = memory.peak.place
        parts = [Part(where.module, memory.peak.bytes, where.op)] if where else []
        return Finding(budget, memory.peak.bytes, tuple(parts))
    own = memory.saved_by_module(inclusive=False)
    parts = sorted((Part(n.fqn, own[n.fqn], "") for n in nodes if own.get(n.fqn)), key=lambda part: -part.amount)
    return Finding(budget, sum(part.amount for part in parts), tuple(parts))


def _shown(phase: str) -> str:
    return phase if phase in PHASES else "optimizer"
