"""Synthesizers: attention weights that come from no pair of query and key."""

from __future__ import annotations

from sympy import Expr, Ne

from attnprof.analytic.attention import Heads, itself, project_back
from attnprof.analytic.blocks import Tape, Tensor
from attnprof.analytic.registry import Sizes, formula
from attnprof.analytic.symbols import e
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
    tape.several(at.T, at.H, at.dh)
    if causal:
        tape.causal_mask(at.T, at.T)
        scores = tape.hide(scores, at.T**2)
    weights = tape.softmax(scores, rows, out="weights")
    v = tape.copied_back(tape.linear("v_proj", x, at.B * at.T, at.d, at.n, "v"))
    v = tape.copy(v, only_if=Ne(at.B, 1))
    y = tape.product("weighted_sum", weights, v, each * at.T**2, "averages", at.B * at.T * at.n, useful)
    tape.copied_back(y, only_if=Ne(at.B, 1))
    return project_back(tape, at, tape.copy(y, "heads merged"))


@formula("synthesizer-random")
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
    if trained:  # cut to T columns of T rows
        for part, whole in ((H * T**2, H * T * N), (H * T * N, H * N**2)):
            tape.moved("gradient of a part of matrix", part * e, whole * e, "backward", Ne(T, N))
    return _average(tape, at, x, scores, H * T, causal)


@formula("synthesizer-dense")
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
    cut = tape.tensor("rows", at.n * T, rows.needs_grad, is_state=True, is_weight=True)
    if rows.needs_grad:
        tape.moved("gradient of a part of rows", at.n * T * e, at.n * N * e, "backward", Ne(T, N))
    tape.copied_back(hidden)
    scores = tape.product("scores", hidden, cut, 2 * B * T**2 * at.n, "scores", B * H * T**2, factors=("hidden", "W"))
    tape.copied_back(scores, only_if=Ne(B, 1))
    return _average(tape, at, x, scores, B * H * T, causal)
