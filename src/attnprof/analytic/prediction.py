"""A prediction: closed forms as named terms, which can be summed, scaled, evaluated and written down."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from sympy import Add, And, Expr, Integer, false, sympify, true
from sympy.logic.boolalg import Boolean

from attnprof.analytic.growth import leading
from attnprof.core.errors import AttnprofError, closest
from attnprof.core.sizes import one_of, positive
from attnprof.core.units import Units

Phase = Literal["forward", "backward", "recompute", "optimizer"]
PHASES: tuple[Phase, ...] = get_args(Phase)
Quantity = Literal[
    "matmul_flops",
    "useful_matmul_flops",
    "vector_flops",
    "read_bytes",
    "write_bytes",
    "saved_bytes",
    "parameters",
    "trainable_parameters",
    "active_parameters",
    "kv_cache_bytes",
    "optimizer_bytes",
    "gradient_bytes",
    "parameter_bytes",
]
QUANTITIES: tuple[Quantity, ...] = get_args(Quantity)
Kind = Literal["matmul", "vector", "traffic"]
#: A kind of work -> the quantities that it is counted in.
KINDS: dict[Kind, tuple[Quantity, ...]] = {
    "matmul": ("matmul_flops",),
    "vector": ("vector_flops",),
    "traffic": ("read_bytes", "write_bytes"),
}
_DECIMAL = Units()


@dataclass(frozen=True)
class Term:
    """One named part of a closed form: a phase, a quantity, and its expression in symbols.

    ``useful``: of matmul FLOPs, those that a kernel which skips masked or padded pairs would still do; None where
    that is all of them. ``of_weights``: one factor is a trained or frozen weight. A plain integer is an expression.
    """

    name: str
    phase: Phase
    quantity: Quantity
    expression: Expr
    useful: Expr | None = None
    of_weights: bool = False

    def __post_init__(self) -> None:
        one_of(PHASES, phase=self.phase)
        one_of(QUANTITIES, quantity=self.quantity)
        for name, given in (("expression", self.expression), ("useful", self.useful)):
            if isinstance(given, Expr) or (given is None and name == "useful"):
                continue
            if isinstance(given, bool) or not isinstance(given, int):
                raise AttnprofError(f"the {name} of {self.name} must be of sympy or a whole number, not {given!r}.")
            object.__setattr__(self, name, Integer(given))

    def map(self, change: Callable[[Expr], Expr]) -> Term:
        """The term with its expressions changed."""
        useful = None if self.useful is None else change(self.useful)
        return replace(self, expression=change(self.expression), useful=useful)


@dataclass(frozen=True)
class Fit:
    """Two sizes that have to go together, by name: ``check(T=..., w=...)`` raises where they do not."""

    rule: Callable[..., None]
    first: str
    second: str

    def check(self, values: Mapping[str, int]) -> None:
        """Raise unless the sizes go together, where both are known."""
        if self.first in values and self.second in values:
            self.rule(**{name: values[name] for name in (self.first, self.second)})


@dataclass(frozen=True)
class Prediction:
    """What theory says some mechanism costs: a sum of named terms, and the values of symbols that are known.

    FLOPs count 2 per multiply-add. ``matmul_flops``: contractions; of them ``useful_matmul_flops`` outside masks and
    padding. ``saved_bytes``: what autograd keeps for the backward, parameters excluded, the input included.
    ``parameters``, ``trainable_parameters``: how many numbers; ``active_parameters``: those that a token meets, where
    that is not all.

    Matmul FLOPs are always stated in full. Of ``vector_flops`` and of traffic (``read_bytes``, ``write_bytes``: each op
    alone) ``complete`` says in which phases the terms are all there is, where they are none too; ``holds`` are
    conditions on sizes outside of which a kind has no closed form. What :meth:`work` does not know is None, never 0.
    ``fits`` are sizes that have to go together, such as H that divides d: values that do not are refused.

    ``a + b`` is both, ``L * a`` is L times it, so that a model is the sum of its parts. Terms of the same name, phase
    and quantity become one.
    """

    name: str
    terms: tuple[Term, ...]
    values: Mapping[str, int] = field(default_factory=dict)
    complete: frozenset[tuple[Kind, Phase]] = frozenset()
    holds: Mapping[Kind, Boolean] = field(default_factory=dict)
    fits: tuple[Fit, ...] = ()

    def work(self, kind: Kind, phase: Phase) -> tuple[Term, ...] | None:
        """The terms of a kind of work in a phase, of traffic those read and those written.

        None where there is no closed form, or none at these sizes; an empty tuple is a zero. Terms that somebody
        gave are taken to be all there is.
        """
        found = tuple(t for t in self.terms if t.quantity in KINDS[kind] and t.phase == phase)
        return found if self._states(kind, phase) and self.condition(kind) is not false else None

    def _states(self, kind: Kind, phase: Phase) -> bool:
        """Whether the terms of a kind are all there is in a phase."""
        given = any(t.quantity in KINDS[kind] and t.phase == phase for t in self.terms)
        return given or kind == "matmul" or (kind, phase) in self.complete

    def condition(self, kind: Kind) -> Boolean:
        """What is left of the condition on sizes of a kind of work, at those that are known."""
        condition = self.holds.get(kind, true)
        known = {s: Integer(self.values[s.name]) for s in condition.free_symbols if s.name in self.values}
        return condition.xreplace(known)

    def total(self, quantity: Quantity = "matmul_flops", phase: Phase | None = None) -> Expr:
        """The sum of a quantity's terms in symbols, of one phase or of all; raises where it has no closed form."""
        self._check(quantity, phase)
        if quantity == "useful_matmul_flops":
            found = [t.expression if t.useful is None else t.useful for t in self._of("matmul_flops", phase)]
        else:
            found = [t.expression for t in self._of(quantity, phase)]
        return Add(*found).expand()

    def evaluate(self, quantity: Quantity = "matmul_flops", phase: Phase | None = None, **values: int) -> int:
        """The total as an exact integer, with ``values`` for symbols that have none yet (or another)."""
        return self.value(self.total(quantity, phase), **values)

    def value(self, expression: Expr, **values: int) -> int:
        """An expression of this prediction (a term's, a total) as an exact integer."""
        known = self._with(values)
        symbols = sorted(expression.free_symbols, key=str)
        for symbol in symbols:
            if symbol.name not in known:
                raise AttnprofError(f"{self.name} needs {symbol.name}: give it a value, as in {symbol.name}=128.")
        result = expression.xreplace({symbol: Integer(known[symbol.name]) for symbol in symbols})
        if not result.is_Integer:
            sizes = ", ".join(f"{symbol.name}={known[symbol.name]}" for symbol in symbols)
            raise AttnprofError(f"{self.name} does not come to a whole number at {sizes}: {expression} is {result}.")
        return int(result)

    def at(self, **values: int) -> Prediction:
        """The same prediction with more (or other) symbols known."""
        return replace(self, values=self._with(values))

    def _with(self, values: Mapping[str, int]) -> dict[str, int]:
        """The values known, and more; raises where they are no sizes, or do not go together."""
        positive(**values)
        known = {**self.values, **values}
        if values:
            for fit in self.fits:
                fit.check(known)
        return known

    def substituted(self) -> Prediction:
        """The prediction with its known values put into the expressions, no longer known by name."""
        from attnprof.analytic.symbols import symbol

        known = {symbol(name): Integer(value) for name, value in self.values.items()}
        holds = {kind: condition.xreplace(known) for kind, condition in self.holds.items()}
        fits = tuple(fit for fit in self.fits if not {fit.first, fit.second} & self.values.keys())
        return replace(
            self, terms=tuple(t.map(lambda x: x.xreplace(known)) for t in self.terms), values={}, holds=holds, fits=fits
        )

    def big_o(
        self,
        symbols: Collection[str] | str | None = None,
        quantity: Quantity = "matmul_flops",
        phase: Phase | None = None,
    ) -> str:
        """The growth of a total, ``O(B*T**2*d + B*T*d**2)``; ``symbols``: in these alone, as in ``big_o("T")``."""
        wanted = [symbols] if isinstance(symbols, str) else symbols
        return f"O({leading(self.total(quantity, phase), wanted)})"

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """The quantities that have terms, in the order of ``QUANTITIES``."""
        found = {t.quantity for t in self.terms}
        return tuple(q for q in QUANTITIES if q in found)

    def phases(self, quantity: Quantity) -> tuple[Phase, ...]:
        """The phases in which a quantity has terms, and they are all there is at the sizes that are known."""
        found = {t.phase for t in self.terms if t.quantity == quantity}
        kind = next((kind for kind, quantities in KINDS.items() if quantity in quantities), None)
        if kind not in (None, "matmul"):
            found = {phase for phase in found if self.work(kind, phase) is not None}
        return tuple(p for p in PHASES if p in found)

    def text(self, quantities: Collection[Quantity] | None = None, width: int = 120, units: Units = _DECIMAL) -> str:
        """The terms as a table: values where all symbols have one, formulas, totals and growth."""
        from attnprof.analytic.text import table

        return table(self, quantities, width, units)

    def latex(self, quantities: Collection[Quantity] | None = None) -> str:
        """The same as LaTeX, one ``align*`` for each quantity and phase."""
        from attnprof.analytic.text import latex

        return latex(self, quantities)

    def only(self, *phases: Phase) -> Prediction:
        """The terms of some phases alone."""
        complete = frozenset((kind, phase) for kind, phase in self.complete if phase in phases)
        return replace(self, terms=tuple(t for t in self.terms if t.phase in phases), complete=complete)

    def of(self, *kinds: Kind) -> Prediction:
        """What it says of some kinds of work, ``of("matmul")``, and of what is kept; of other kinds it says nothing."""
        for kind in kinds:
            if kind not in KINDS:
                raise AttnprofError(f"no kind of work {kind!r}: there are {', '.join(KINDS)}.{closest(kind, KINDS)}")
        gone = {quantity for kind, quantities in KINDS.items() if kind not in kinds for quantity in quantities}
        complete = frozenset((kind, phase) for kind, phase in self.complete if kind in kinds)
        return replace(self, terms=tuple(t for t in self.terms if t.quantity not in gone), complete=complete)

    def below(self, prefix: str) -> Prediction:
        """The same terms named ``prefix.name``: a part of something larger."""
        return replace(self, terms=tuple(replace(t, name=f"{prefix}.{t.name}") for t in self.terms))

    def __add__(self, other: Prediction) -> Prediction:
        for name in self.values.keys() & other.values.keys():
            if self.values[name] != other.values[name]:
                raise AttnprofError(
                    f"{self.name} has {name}={self.values[name]} and {other.name} has {name}={other.values[name]}: "
                    "put the values in with .substituted() before adding."
                )
        name = self.name if self.name == other.name else f"{self.name} + {other.name}"
        values = {**self.values, **other.values}
        holds = {kind: And(self.holds.get(kind, true), other.holds.get(kind, true)) for kind in KINDS}
        both = frozenset((k, p) for k in KINDS for p in PHASES if self._states(k, p) and other._states(k, p))
        stated = {(quantity, phase) for kind, phase in both for quantity in KINDS[kind]}
        of_work = {quantity for quantities in KINDS.values() for quantity in quantities}
        terms = [t for t in (*self.terms, *other.terms) if t.quantity not in of_work or (t.quantity, t.phase) in stated]
        holds = {kind: condition for kind, condition in holds.items() if condition is not true}
        fits = tuple(dict.fromkeys((*self.fits, *other.fits)))
        return Prediction(name, merged(terms), values, both, holds, fits)

    def __mul__(self, times: Expr | int) -> Prediction:
        factor = sympify(times)
        return replace(self, terms=tuple(t.map(lambda x: factor * x) for t in self.terms))

    __rmul__ = __mul__

    def __str__(self) -> str:
        return self.text()

    def _of(self, quantity: Quantity, phase: Phase | None) -> list[Term]:
        return [t for t in self.terms if t.quantity == quantity and phase in (None, t.phase)]

    def _check(self, quantity: str, phase: str | None) -> None:
        if quantity not in QUANTITIES:
            known = ", ".join(QUANTITIES)
            raise AttnprofError(f"no quantity {quantity!r}: there are {known}.{closest(quantity, QUANTITIES)}")
        if phase is not None and phase not in PHASES:
            known = ", ".join(PHASES)
            raise AttnprofError(f"no phase {phase!r}: there are {known}.{closest(phase, PHASES)}")
        kind = next((kind for kind, quantities in KINDS.items() if quantity in quantities), None)
        if kind in (None, "matmul"):
            return
        for asked in PHASES[:3] if phase is None else (phase,):
            if self.work(kind, asked) is None:
                known = ", ".join(where for where in PHASES if self.work(kind, where) is not None)
                but = f", only of the {known}" if known else ""
                raise AttnprofError(f"{self.name} has no closed form of {quantity} in the {asked}{but}.")


def merged(terms: Iterable[Term]) -> tuple[Term, ...]:
    """The terms with those of one name, phase and quantity added up, in order of their first."""
    found: dict[tuple[str, Phase, Quantity], Term] = {}
    for term in terms:
        key = term.name, term.phase, term.quantity
        if key not in found:
            found[key] = term
            continue
        first = found[key]
        useful = None
        if first.useful is not None or term.useful is not None:
            useful = sum((t.expression if t.useful is None else t.useful for t in (first, term)), Integer(0))
        both = (first.expression + term.expression).expand()
        found[key] = replace(first, expression=both, useful=useful)
    return tuple(found.values())
