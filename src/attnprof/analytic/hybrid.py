"""A window and linear attention side by side."""

from __future__ import annotations

from sympy import And, Eq, Expr, Mod, Or, false

from attnprof.analytic.attention import itself, project, project_back
from attnprof.analytic.blocks import Tape, Tensor
from attnprof.analytic.linear import causal_linear_attention, feature_map, linear_attention
from attnprof.analytic.near import Blocks, in_blocks, window_pairs
from attnprof.analytic.registry import Sizes, formula


@formula("hybrid")
def hybrid(
    tape: Tape,
    sizes: Sizes,
    x: Tensor,
    B: Expr,
    T: Expr,
    d: Expr,
    H: Expr,
    w: Expr,
    dh: Expr | None = None,
    causal: bool = False,
) -> Tensor:
    """A sliding window plus linear attention over the same q, k and v, mixed by a gate per head."""
    at = itself(sizes, B, T, d, H, None, dh)
    q, k, v = project(tape, at, x, x)
    features, blocks = (feature_map(tape, q), feature_map(tape, k), v), Blocks(T, w, 2 if causal else 3)
    with tape.scope("window"):
        useful = window_pairs(T, w, causal)
        # The linear part keeps q, if it has a gradient, and whole blocks of one matrix are q as it is.
        in_place = q.needs_grad and And(Eq(Mod(T, w), 0), Or(Eq(H, 1), And(Eq(T, w), Or(Eq(B, 1), Eq(T, 1)))))
        near = in_blocks(tape, at, q, k, v, blocks, useful, in_place or false)
    with tape.scope("linear"):
        if causal:
            far = causal_linear_attention(tape, at, *features, chunk=w)
        else:
            far = linear_attention(tape, at, *features, at.dh)
    gate = tape.activation(tape.weight("gate", H), "sigmoid", "share")
    rest = tape.elementwise("1 - share", gate, out="1 - share", back=lambda g: ([(1, [g])],))
    near = blocks.joined(tape, at, near)
    mixed = tape.add(
        tape.multiply(gate, near, "gated window", "gate_window", B * T * at.n),
        tape.multiply(rest, far, "gated linear", "gate_linear", B * T * at.n),
        "mixed",
        "sum",
    )
    return project_back(tape, at, tape.copy(mixed, "heads merged", B * T * at.n))
