"""Synthesizers: attention weights that come from no pair of query and key."""

from __future__ import annotations

from sympy import Expr

from attnprof.analytic.attention import Heads, itself, project_back
from attnprof.analytic.blocks import BOOL, Tape, Tensor
from attnprof.analytic.registry import FORWARD, Sizes, formula
from attnprof.core.errors import AttnprofError


def _sizes(sizes: Sizes, B: Expr, T: Expr, d: Expr, H: Expr, dh: Expr | None) -> Heads:
    N, length = sizes.values.get("N"), sizes.values.get("T")
    if N is not None and length is not None and length > N:
        raise AttnprofError(f"this synthesizer has weights for N={N} tokens, not for the T={length} given.")
    return itself(sizes, B, T, d, H, None, dh)


def _average(tape: Tape, at: Heads, x: Tensor, scores: Tensor, rows: Expr, causal: bool) -> Tensor:
    """The softmax of so many rows of scores, and with it the average of the values."""
    each = 2 * at.B * at.n
    useful = each * at.T * (at.T + 1) / 2 if causal else None
    if causal:
        tape.keep_for(scores, "mask", at.T**2, BOOL)
    weights = tape.softmax(scores, rows, out="weights")
    v = tape.copy(tape.linear("v_proj", x, at.B * at.T, at.d, at.n, "v"))
    y = tape.product("weighted_sum", weights, v, each * at.T**2, "averages", at.B * at.T * at.n, useful)
    return project_back(tape, at, tape.copy(y, "heads merged"))


@formula("synthesizer-random", vector=FORWARD)
def random(
    tape: Tape,
    sizes: Sizes,
    x: Tensor,
    B: Expr,
    T: Expr,
    d: Expr,
    H: Expr,
    N: Expr,
    dh: Expr | None = None,
    trainable: bool = True,
    causal: bool = False,
) -> Tensor:
    """Random synthesizer: one matrix of scores per head, for any input, trainable or fixed."""
    at = _sizes(sizes, B, T, d, H, dh)
    trained = tape.weight("matrix", H * N**2).needs_grad if trainable else False
    scores = tape.tensor("scores", H * T**2, trained, is_state=True)  # a view of the matrix
    return _average(tape, at, x, scores, H * T, causal)


@formula("synthesizer-dense", vector=FORWARD)
def dense(
    tape: Tape,
    sizes: Sizes,
    x: Tensor,
    B: Expr,
    T: Expr,
    d: Expr,
    H: Expr,
    N: Expr,
    dh: Expr | None = None,
    causal: bool = False,
) -> Tensor:
    """Dense synthesizer: each token makes its own row of scores, relu(x W1) W2."""
    at = _sizes(sizes, B, T, d, H, dh)
    hidden = tape.activation(tape.linear("hidden", x, B * T, d, at.n, "hidden"), "relu")
    rows = tape.weight("rows", at.n * N)
    scores = tape.product("scores", hidden, rows, 2 * B * T**2 * at.n, "scores", B * H * T**2, factors=("hidden", "W"))
    return _average(tape, at, x, scores, B * H * T, causal)
