"""Feed-forward networks: what a transformer block does to each token on its own."""

from __future__ import annotations

from sympy import Expr

from attnprof.analytic.blocks import Tape, Tensor
from attnprof.analytic.registry import Sizes, formula
from attnprof.core.sizes import one_of


def two_matrices(tape: Tape, x: Tensor, rows: Expr, d: Expr, f: Expr, activation: str, bias: bool) -> Tensor:
    """down(activation(up(x))) of so many rows."""
    one_of(("relu", "gelu"), activation=activation)
    hidden = tape.activation(tape.linear("up", x, rows, d, f, "hidden", bias), activation)
    return tape.linear("down", hidden, rows, f, d, "output", bias)


def three_matrices(tape: Tape, x: Tensor, rows: Expr, d: Expr, f: Expr, bias: bool) -> Tensor:
    """down(silu(gate(x)) * up(x)) of so many rows."""
    gate = tape.activation(tape.linear("gate", x, rows, d, f, "gate", bias), "silu")
    up = tape.linear("up", x, rows, d, f, "up", bias)
    return tape.linear("down", tape.multiply(gate, up, "gated"), rows, f, d, "output", bias)


@formula("ffn")
def ffn(
    tape: Tape, sizes: Sizes, x: Tensor, B: Expr, T: Expr, d: Expr, f: Expr, activation: str = "relu", bias: bool = True
) -> Tensor:
    """Two matrices with a nonlinearity between them."""
    return two_matrices(tape, x, B * T, d, f, activation, bias)


@formula("swiglu")
def swiglu(tape: Tape, sizes: Sizes, x: Tensor, B: Expr, T: Expr, d: Expr, f: Expr, bias: bool = False) -> Tensor:
    """Two parallel matrices, one of them a gate, and one back."""
    return three_matrices(tape, x, B * T, d, f, bias)
