"""The module tree with its costs, and the law it obeys: self costs add up to the total, phase by phase."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod

from attnprof.core.cost import ZERO, Cost
from attnprof.core.errors import ConservationError
from attnprof.core.trace import ModuleRecord, Trace
from attnprof.core.work import PricedOp


@dataclass(slots=True)
class ModuleNode:
    """One module in the tree.

    ``self_costs`` is what the module's own forward (and the backward of it) ran, by phase; ``self_ops``
    the calls behind it, by (phase, signature index). Inclusive costs add those of the modules below.
    """

    record: ModuleRecord
    children: list[ModuleNode] = field(default_factory=list)
    self_costs: dict[str, Cost] = field(default_factory=dict)
    self_ops: dict[tuple[str, int], int] = field(default_factory=dict)

    @property
    def fqn(self) -> str:
        return self.record.fqn

    @property
    def name(self) -> str:
        """The last part of the dotted name; the class for the root."""
        return self.fqn.rpartition(".")[2] or self.class_name

    @property
    def class_name(self) -> str:
        return self.record.class_name

    @property
    def aliases(self) -> tuple[str, ...]:
        return self.record.aliases

    @property
    def calls(self) -> int:
        """Forward calls (a recomputed forward is not one)."""
        return self.record.call_count

    @property
    def params(self) -> int:
        """Parameter elements of this module and those below; a shared parameter counts once."""
        sizes = {p.ident: prod(p.shape) for node in self.walk() for p in node.record.parameters}
        return sum(sizes.values())

    def own(self, phase: str | None = None) -> Cost:
        """Self cost in a phase, or in all."""
        if phase is None:
            return Cost.sum(self.self_costs.values())
        return self.self_costs.get(phase, ZERO)

    def inclusive(self, phase: str | None = None) -> Cost:
        """Cost of this module and all below it, in a phase or in all."""
        return Cost.sum(node.own(phase) for node in self.walk())

    def walk(self) -> Iterator[ModuleNode]:
        """This node, then everything below it, depth first."""
        stack = [self]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(reversed(node.children))

    def find(self, fqn: str) -> ModuleNode:
        """The node with this name or alias."""
        for node in self.walk():
            if fqn == node.fqn or fqn in node.aliases:
                return node
        raise KeyError(fqn)

    def check(self, phases: Mapping[str, Cost]) -> None:
        """Raise unless the self costs of the tree add up to ``phases``, counted without the tree."""
        found: dict[str, Cost] = {}
        for node in self.walk():
            for phase, cost in node.self_costs.items():
                found[phase] = found.get(phase, ZERO) + cost
        for phase in found.keys() | phases.keys():
            if found.get(phase, ZERO) != phases.get(phase, ZERO):
                raise ConservationError(
                    f"the {phase} costs of the modules add up to {found.get(phase, ZERO)}, the ops to "
                    f"{phases.get(phase, ZERO)}: a defect in attnprof, please report it."
                )


def build(trace: Trace, priced: list[PricedOp]) -> ModuleNode:
    """The tree of a trace whose signature ``i`` has the price ``priced[i]``."""
    nodes = [ModuleNode(record) for record in trace.modules]
    for node in nodes[1:]:
        nodes[node.record.parent or 0].children.append(node)
    for (signature, scope), calls in trace.counts().items():
        where = trace.scopes[scope]
        node, price = nodes[where.module], priced[signature]
        key = (where.phase, signature)
        node.self_ops[key] = node.self_ops.get(key, 0) + calls
        for phase, cost in ((where.phase, price.cost), (again(where.phase), price.recompute)):
            if cost:
                node.self_costs[phase] = node.self_costs.get(phase, ZERO) + cost * calls
    return nodes[0]


def again(phase: str) -> str:
    """The phase of forward work that an op repeats: recompute, when the op itself is backward work."""
    return "recompute" if phase == "backward" else phase
