"""Mixture of experts: every token to k of E feed-forward networks."""

from __future__ import annotations

from sympy import Expr

from attnprof.analytic.blocks import INT64, Tape, Tensor
from attnprof.analytic.registry import Sizes, formula
from attnprof.core.sizes import one_of


@formula("moe", vector=(), traffic=())
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

    Whatever the routing, k rows per token go through some expert.
    """
    sizes.at_most("E", "k")
    one_of(("relu", "gelu"), activation=activation)
    tokens = B * T
    rows = tokens * k
    rated = tape.softmax(tape.linear("router", x, tokens, d, E, "router scores"), tokens, out="router probabilities")
    tape.keep_for(rated, "chosen experts", rows, INT64)
    asked = tape.tensor("rows of experts", rows * d, x.needs_grad)
    with tape.scope("experts"):
        up, down = (tape.weight(name, size) for name, size in (("up", E * (d * f + f)), ("down", E * (f * d + d))))
        flops = 2 * rows * d * f
        hidden = tape.product("up", asked, up, flops, "hidden", rows * f, factors=("X", "W"))
        hidden = tape.activation(hidden, activation)
        out = tape.product("down", hidden, down, flops, "outputs", rows * d, factors=("X", "W"))
    weights = tape.tensor("weights of experts", rows, rated.needs_grad)
    mixed = tape.multiply(out, weights, "weighted outputs")
    if mixed.needs_grad:
        tape.keep(mixed)  # by the sum over experts
    tape.keep_for(mixed, "places of rows", 2 * rows, INT64)
    tape.note("active", "active_parameters", k * (2 * d * f + f + d) + d * E)
    return mixed
