"""How counts grow with sizes: the formulas of a model, what they were made from, and questions to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from sympy import Expr

from attnprof.core.errors import AttnprofError
from attnprof.recovery import growth
from attnprof.recovery.domain import Domain
from attnprof.recovery.outcome import DataDependent, Formula, NoFormula, Outcome, Point

Quantity = Literal["flops", "matmul", "vector", "bytes", "saved", "peak"]
QUANTITIES: tuple[Quantity, ...] = get_args(Quantity)
Phase = Literal["forward", "backward", "recompute", "all"]
PHASES: tuple[Phase, ...] = get_args(Phase)
#: Quantities that are of no phase: what is kept at the end of the forward, and the most that is ever live.
OF_NO_PHASE: tuple[Quantity, ...] = ("saved", "peak")


@dataclass(frozen=True)
class Scaling:
    """How a quantity of a model grows with its sizes.

    ``domains`` are the sizes that were asked for, by symbol: the formula was recovered and checked within them.
    ``fixed`` are arguments of ``build`` that did not vary. ``outcome`` is a :class:`Formula`, or says why there is
    none. ``modules`` has the same for each module by its path, with what is below it; paths of layers that
    not every point has are summed, their numbers written ``*``. ``points`` are the counts behind the outcome;
    ``runs`` is how many runs of the model that took in all, those for other quantities included. ``notes`` are
    sentences that a reader must see.
    """

    domains: Mapping[str, Domain]
    fixed: Mapping[str, object]
    quantity: Quantity
    phase: Phase
    outcome: Outcome
    modules: Mapping[str, Outcome] = field(default_factory=dict)
    points: tuple[Point, ...] = ()
    runs: int = 0
    notes: tuple[str, ...] = ()
    name: str = ""
    again: Callable[[Quantity, Phase], Scaling] | None = field(default=None, compare=False, repr=False)

    @property
    def symbols(self) -> tuple[str, ...]:
        """What varied, in the order it was given."""
        return tuple(self.domains)

    @property
    def formula(self) -> Formula:
        """The formula of the whole; raises :class:`AttnprofError` with the reason where there is none."""
        return _formula(self.outcome)

    @property
    def expression(self) -> Expr:
        """The formula as sympy has it: ``4*B*T**2*d + 24*B*T*d**2``, with ``Piecewise`` where it has pieces."""
        return self.formula.expression

    @property
    def held_out(self) -> int:
        """How many points the formula was checked on, with ``==``, that it was not made from."""
        return self.outcome.held_out if isinstance(self.outcome, Formula) else 0

    def module(self, path: str) -> Expr:
        """The formula of one module, with what is below it; raises where it has none."""
        if path and path not in self.modules:
            raise AttnprofError(f"there is no module {path!r}; there are {', '.join(self.modules)}.")
        return _formula(self.modules[path] if path else self.outcome).expression

    def of(self, quantity: Quantity, phase: Phase | None = None) -> Scaling:
        """Another quantity or phase of the same model at the same sizes; runs that were done are not repeated."""
        if self.again is None:
            raise AttnprofError("this scaling was not made by attnprof.scaling: nothing else is known of the model.")
        return self.again(quantity, phase or self.phase)

    def evaluate(self, **sizes: int) -> int:
        """The count at these sizes, an exact integer; of sizes outside :attr:`domains` an extrapolation."""
        return self.formula.evaluate(**self._sizes(sizes))

    def dominant(self, symbol: str) -> Expr:
        """The terms that grow fastest in a symbol, with their coefficients; of pieces, of the one for large sizes."""
        self._check(symbol)
        return growth.dominant(self.expression, symbol)

    def crossover(self, symbol: str) -> Expr | None:
        """From which value of a symbol on the dominant terms are more than all others together.

        A number where no other symbol varies, else an expression of them; None where there is no such value above
        zero: nothing else is there, or the dominant terms always are more.
        """
        self._check(symbol)
        return growth.crossover(self.expression, symbol)

    def latex(self) -> str:
        """The formula in LaTeX."""
        return growth.latex(self.expression)

    def _check(self, symbol: str) -> None:
        if symbol not in self.domains:
            raise AttnprofError(f"{symbol} was not varied; {', '.join(self.symbols)} {_was(self.symbols)}.")

    def _sizes(self, sizes: Mapping[str, int]) -> dict[str, int]:
        unknown = [name for name in sizes if name not in self.domains]
        if unknown:
            self._check(unknown[0])
        missing = [name for name in self.symbols if name not in sizes]
        if missing:
            raise AttnprofError(f"{', '.join(missing)} varied: give a value of each, as in {missing[0]}=128.")
        return dict(sizes)


def _was(names: tuple[str, ...]) -> str:
    return "was" if len(names) == 1 else "were"


def _formula(outcome: Outcome) -> Formula:
    if isinstance(outcome, NoFormula | DataDependent):
        raise AttnprofError(outcome.reason)
    return outcome
