"""Mixture of experts: every token to k of E feed-forward networks."""

from __future__ import annotations

from sympy import Expr, Integer

from attnprof.analytic.blocks import BOOL, INT64, Tape, Tensor
from attnprof.analytic.registry import Sizes, formula
from attnprof.analytic.symbols import e
from attnprof.core.sizes import one_of


@formula("moe")
def moe(
    tape: Tape,
    sizes: Sizes,
    x: Tensor,
    B: Expr,
    T: Expr,
    d: Expr,
    f: Expr,
    E: Expr,
    k: Expr,
    activation: str = "relu",
) -> Tensor:
    """Feed-forward experts, each token in the k of E that its router rates highest; no token is dropped.

    Whatever the routing, k rows per token go through some expert. The gradients of biases are sums over the rows of
    each expert, an addition less than these: an expert without a token has none, and with it the f + d are less that
    are taken off for it.
    """
    sizes.at_most("E", "k")
    one_of(("relu", "gelu"), activation=activation)
    tokens = B * T
    rows = tokens * k
    tape.several(tokens, k, d)
    rated = tape.softmax(tape.linear("router", x, tokens, d, E, "router scores"), tokens, out="router probabilities")
    shares = tape.best(rated, tokens, k)
    asked = _rows_of_experts(tape, x, tokens, rows, d, E, k)
    with tape.scope("experts"):
        up, down = (_matrices(tape, name, E, *widths) for name, widths in (("up", (d, f)), ("down", (f, d))))
        flops = 2 * rows * d * f
        hidden = tape.product("up", asked, up, flops, "hidden", rows * f, factors=("X", "W"))
        _biases(tape, "up", hidden, up, rows, E, f)
        hidden = tape.activation(hidden, activation)
        out = tape.product("down", hidden, down, flops, "outputs", rows * d, factors=("X", "W"))
        _biases(tape, "down", out, down, rows, E, d)
    weights = _weights_of_rows(tape, shares, tokens, rows, E, k)
    mixed = tape.multiply(out, weights, "weighted outputs")
    if mixed.needs_grad:
        tape.keep(mixed)  # by the sum over experts
    tape.keep_for(mixed, "places of rows", 2 * rows, INT64)
    tape.moved("sum of experts", Integer(0), tokens * d * e)
    tape.moved("sum of experts", 2 * mixed.elements * e + rows * INT64, mixed.elements * e, flops=mixed.elements)
    if mixed.needs_grad:
        tape.moved("sum of experts", mixed.elements * e + rows * INT64, mixed.elements * e, "backward")
    tape.note("active", "active_parameters", k * (2 * d * f + f + d) + d * E)
    return tape.tensor("output", tokens * d, mixed.needs_grad)


def _rows_of_experts(tape: Tape, x: Tensor, tokens: Expr, rows: Expr, d: Expr, E: Expr, k: Expr) -> Tensor:
    """Of each expert the tokens that chose it: a comparison with all choices, places, and rows of x.

    Backward each expert's gradients are added up in zeros, and those of all experts.
    """
    tape.moved("rows of experts", E * rows * INT64, E * rows * BOOL, flops=E * rows)
    tape.moved("rows of experts", E * rows * BOOL, 2 * rows * INT64)
    tape.moved("rows of experts", rows * d * e + rows * INT64, rows * d * e)
    _back_to_all(tape, x, "rows of experts", tokens * d, rows * d, rows * INT64, E)
    return tape.tensor("rows of experts", rows * d, x.needs_grad)


def _weights_of_rows(tape: Tape, shares: Tensor, tokens: Expr, rows: Expr, E: Expr, k: Expr) -> Tensor:
    """The router's weight for each row of each expert, by its token and rank."""
    tape.moved("weights of experts", rows * e + 2 * rows * INT64, rows * e)
    _back_to_all(tape, shares, "weights of experts", tokens * k, rows, 2 * rows * INT64, E)
    return tape.tensor("weights of experts", rows, shares.needs_grad)


def _back_to_all(tape: Tape, x: Tensor, name: str, whole: Expr, parts: Expr, places: Expr, E: Expr) -> None:
    """Gradients of E parts: each added up in zeros of the whole, at its places, and all of them added up."""
    if not x.needs_grad:
        return
    tape.moved(name, Integer(0), E * whole * e, "backward")
    tape.moved(name, (E * whole + parts) * e + places, E * whole * e, "backward", flops=parts)
    again = (E - 1) * whole
    tape.moved(f"gradients of {x.name}", 2 * again * e, again * e, "backward", flops=again)
    tape.arrive(x)


def _matrices(tape: Tape, name: str, E: Expr, n_in: Expr, n_out: Expr) -> Tensor:
    """E matrices, each with a bias: the weight is both, what is multiplied are the matrices."""
    whole = tape.weight(name, E * (n_in * n_out + n_out))
    return tape.tensor("W", E * n_in * n_out, whole.needs_grad, is_state=True, is_weight=True)


def _biases(tape: Tape, name: str, y: Tensor, weight: Tensor, rows: Expr, E: Expr, n: Expr) -> None:
    """A bias per expert, added in the same kernel; its gradient is a sum over the expert's rows."""
    tape.moved(f"{name}.bias", E * n * e, Integer(0), flops=rows * n)
    if weight.needs_grad:
        tape.moved(f"{name}.dbias", y.elements * e, E * n * e, "backward", flops=(rows - E) * n)
