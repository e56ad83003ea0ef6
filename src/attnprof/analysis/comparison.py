"""Measured against predicted, module by module: what theory says of a run, and which ops explain a difference.

A module whose class has a formula is compared with it. One without is the sum of the modules in it: what it runs
itself is unexplained, and named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from attnprof.analysis.comparison_of_models import states, work
from attnprof.analysis.memory import MemorySummary
from attnprof.analysis.shares import explaining, merged, own_shares
from attnprof.analysis.tree import ModuleNode
from attnprof.analytic.binding import Recorded, binding
from attnprof.analytic.prediction import Phase
from attnprof.analytic.theory import PHASES, Theory, theory
from attnprof.core.comparison import Comparison, OpShare, TermValue
from attnprof.core.errors import AttnprofError
from attnprof.core.trace import ModuleRecord
from attnprof.core.work import PricedOp

_WITHIN = "a checkpoint inside it ran some of it again"
_ZOO = "attnprof.zoo."


class PredictionError(AttnprofError):
    """``strict_prediction`` was asked for, and something measured is not what was predicted, or was not predicted."""


@dataclass
class Expected:
    """Of one module and phase: the number, its terms, the ops in it that no formula accounts for, and how much of
    them modules without a formula ran themselves.
    """

    predicted: int = 0
    terms: tuple[TermValue, ...] = ()
    unexplained: list[OpShare] = field(default_factory=list)
    uncovered: int = 0


@dataclass
class Seen:
    """Of one module and phase: what was measured, by op, with all that is inside; None where nothing is expected."""

    measured: int
    ops: list[OpShare]
    expected: Expected | None


@dataclass(frozen=True)
class Compared:
    """All comparisons of a run.

    ``reasons``: of modules that have a formula and could not be predicted, why. ``modules`` are the names of all that
    were called, ``predicted`` of those among them that run nothing of their own which no formula accounts for.
    """

    comparisons: tuple[Comparison, ...]
    reasons: Mapping[str, str]
    modules: tuple[str, ...]
    predicted: tuple[str, ...]

    def require_exact(self) -> None:
        """Raise :class:`PredictionError` when theory does not account for the run exactly.

        That is where a residual is not 0, about the innermost module that has one, or where a module with a formula
        could not be predicted in some phase.
        """
        wrong = [c for c in self.comparisons if c.residual]
        if wrong:
            raise PredictionError(_sentence(max(wrong, key=lambda c: (_depth(c.module), abs(c.residual)))))
        for module, reason in self.reasons.items():
            raise PredictionError(f"{module or 'the model'} is not predicted in full: {reason}.")


def _depth(name: str) -> int:
    return len(name.split(".")) if name else 0


def _sentence(wrong: Comparison) -> str:
    where = wrong.module or "the model"
    what = " ".join(filter(None, (wrong.phase, wrong.quantity.replace("_", " ").replace("flops", "FLOPs"))))
    named = ", ".join(f"{op.op} x{op.calls} of {op.module or 'the model'}" for op in wrong.ops[:3])
    if wrong.uncovered and not wrong.deviation:
        return (
            f"{where} has {wrong.measured:,} {what}, of which no formula covers {wrong.uncovered:,}: {named}; "
            "attnprof.predicts gives a class a formula."
        )
    by = f" by {wrong.formula}" if wrong.formula else ""
    see = f"; unexplained: {named}" if named else ""
    return f"{where} has {wrong.measured:,} {what}, and {wrong.predicted:,} are predicted{by}{see}."


def compare(root: ModuleNode, priced: list[PricedOp], memory: MemorySummary | None) -> Compared:
    """Compare every module of a tree whose signature ``i`` has the price ``priced[i]``."""
    comparer = _Comparer(priced)
    seen = comparer.visit(root)
    active = [phase for phase in PHASES if seen[phase].measured or comparer.any_expected[phase]]
    order = {node.fqn: position for position, node in enumerate(root.walk())}
    rows = [c for c in comparer.found if c.phase in active]
    rows += comparer.of_work
    known = comparer.theory(root)
    if known is not None and not known.own and "forward" not in known.missing:
        rows += states(root, known, None if root.fqn in comparer.reasons else memory)
    rows.sort(key=lambda c: order[c.module])  # phases and quantities keep their order
    return Compared(tuple(rows), comparer.reasons, tuple(comparer.modules), tuple(comparer.predicted))


class _Comparer:
    """Goes through a tree from its leaves up."""

    def __init__(self, priced: list[PricedOp]) -> None:
        self.priced = priced
        self.found: list[Comparison] = []
        self.of_work: list[Comparison] = []
        self.reasons: dict[str, str] = {}
        self.modules: list[str] = []
        self.predicted: list[str] = []
        self.any_expected = dict.fromkeys(PHASES, False)
        self._theories: dict[object, Theory | None] = {}

    def visit(self, node: ModuleNode, covered: bool = False) -> dict[Phase, Seen]:
        """Compare a module and all inside it; ``covered``: one around it has a formula for everything inside."""
        known = self.theory(node)
        whole = known is not None and not known.own
        if known is not None and _is_recomputed_within(node, whole):
            known = replace(known, missing={"recompute": _WITHIN, **known.missing})
        inside = [(child, self.visit(child, covered or whole)) for child in node.children]
        own = own_shares(node, self.priced)
        found: dict[Phase, Seen] = {}
        for phase in PHASES:
            parts = [(child.name, seen[phase]) for child, seen in inside]
            ops = [*own[phase], *(op for _, part in parts for op in part.ops)]
            measured = sum(op.amount for op in ops)
            expected = _expected(known, phase, own[phase], parts, measured, ops)
            if covered and expected is not None and expected.uncovered:
                expected = None  # a formula around it accounts for what it has none for
            found[phase] = Seen(measured, ops, expected)
            self._enter(node, known, phase, found[phase])
        if known is not None and whole:
            self.of_work += work(node, known, self.priced)
        if node.calls:
            self.modules.append(node.fqn)
            if known is not None and known.missing:
                self.reasons[node.fqn] = next(iter(known.missing.values()))
            if _is_predicted(known, covered or not any(own.values())):
                self.predicted.append(node.fqn)
        return found

    def _enter(self, node: ModuleNode, known: Theory | None, phase: Phase, seen: Seen) -> None:
        if seen.expected is None or not any(below.calls for below in node.walk()):
            return
        self.any_expected[phase] |= seen.expected.predicted > 0
        residual = seen.measured - seen.expected.predicted
        self.found.append(
            Comparison(
                node.fqn,
                "" if known is None else known.formula,
                phase,
                "matmul_flops",
                seen.measured,
                seen.expected.predicted,
                seen.expected.terms,
                tuple(merged(seen.expected.unexplained)) if residual else (),
                seen.expected.uncovered,
            )
        )

    def theory(self, node: ModuleNode) -> Theory | None:
        """What theory says of a module; equal ones are worked out once."""
        record = node.record
        if binding(record.home, record.class_name) is None:
            return None
        inner: dict[str, ModuleRecord] = {}
        start = len(node.fqn) + 1 if node.fqn else 0
        for below in node.walk():
            if below is not node:
                inner[below.fqn[start:]] = below.record
        ops = frozenset(self.priced[signature].signature.op for _, signature in node.self_ops)
        module = Recorded.of(record, inner, ops)
        key = _key(module)
        if key not in self._theories:
            self._theories[key] = theory(module)
        return self._theories[key]


def _is_recomputed_within(node: ModuleNode, whole: bool) -> bool:
    """Whether a checkpoint inside a module's call ran its ops again: no call says how much of them.

    The transformers of the zoo have checkpoints of their own, which their formula knows.
    """
    parts = list(node.walk()) if whole else [node]
    again_here = any(phase == "recompute" for part in parts for phase, _ in part.self_ops)
    repeated = any(kind.recomputed for kind in node.record.call_kinds)
    known = any(p.record.home.startswith(_ZOO) and p.record.hyperparameters.get("checkpoint") for p in parts)
    return again_here and not repeated and not known


def _is_predicted(known: Theory | None, nothing_own: bool) -> bool:
    """Whether a module's own ops have a formula, be it of a module around it, or there are none to account for."""
    return nothing_own if known is None else "forward" not in known.missing


def _key(module: Recorded) -> object:
    """Equal for modules of which theory says the same."""
    kept = frozenset((name, value) for name, value in module.hyperparameters.items() if name != "layer_idx")
    parts = tuple((name, *map(str, values.items())) for name, values in module.parts.items())
    weights = tuple((name, p.shape, p.trainable, p.dtype) for name, p in module.parameters.items())
    seen = module.ops, module.called, module.stopped, module.idle, frozenset(module.calls.items())
    return module.home, module.class_name, kept, parts, weights, seen


def _expected(
    known: Theory | None,
    phase: Phase,
    own: list[OpShare],
    parts: list[tuple[str, Seen]],
    measured: int,
    ops: list[OpShare],
) -> Expected | None:
    """What a module should have done in a phase: by its formula, or as the sum of what is in it."""
    if known is not None and phase in known.missing:
        return None
    if known is not None and not known.own:
        predicted = known.total(phase)
        return Expected(predicted, known.terms[phase], explaining(ops, measured - predicted))
    if any(part.expected is None for _, part in parts):
        return None
    inside = [(name, part.expected) for name, part in parts if part.expected is not None]
    predicted = sum(expected.predicted for _, expected in inside)
    terms = [TermValue(name, expected.predicted) for name, expected in inside if expected.predicted]
    unexplained = [op for _, expected in inside for op in expected.unexplained]
    if known is not None:
        predicted += known.total(phase)
        terms += known.terms[phase]
    rest = sum(op.amount for op in own) - (0 if known is None else known.total(phase))
    uncovered = sum(expected.uncovered for _, expected in inside) + (rest if known is None else 0)
    return Expected(predicted, tuple(terms), [*explaining(own, rest), *unexplained], uncovered)
