"""What bound formulas share: a tape whose symbols have values."""

from __future__ import annotations

from math import prod

from sympy import Expr

from attnprof.analytic.binding import Given, Input
from attnprof.analytic.blocks import Tape, Tensor
from attnprof.analytic.prediction import Prediction
from attnprof.analytic.symbols import symbol
from attnprof.core.tensor import width


class Sheet:
    """A tape, and the values of the symbols on it."""

    def __init__(self, name: str, call: Given) -> None:
        self.name = name
        self.stopped = call.stopped
        self.tape = Tape()
        self.values: dict[str, int] = {"e": width(call.inputs[0].dtype)} if call.inputs else {}

    def size(self, name: str, value: int) -> Expr:
        """A symbol with its value."""
        self.values[name] = value
        return symbol(name)

    def tensor(self, name: str, elements: Expr, needs_grad: bool) -> Tensor:
        """A tensor that is there already."""
        return self.tape.tensor(name, elements, needs_grad)

    def linear(self, name: str, x: Tensor, rows: Expr, n_in: Expr, n_out: Expr, trained: bool) -> Tensor:
        """A matrix on so many rows. Biases take no contraction."""
        return self.tape.linear(name, x, rows, n_in, n_out, trained=trained)

    @property
    def prediction(self) -> Prediction:
        """Matmul FLOPs of everything on the tape, or of what a call that stopped early ran of it."""
        noted = self.tape.until_last_kept() if self.stopped else self.tape.terms
        terms = tuple(t for t in noted if t.quantity == "matmul_flops")
        return Prediction(self.name, terms, self.values)


def rows(given: Input) -> int:
    """How many vectors a tensor [..., d] is."""
    return prod(given.shape[:-1])
