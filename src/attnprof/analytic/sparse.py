"""Sparse attention beyond a window: a pattern of strides, the k best keys, clusters."""

from __future__ import annotations

from sympy import And, Eq, Expr, Integer, Min, Mod, Or, Piecewise, ceiling, floor

from attnprof.analytic.attention import itself, project, project_back
from attnprof.analytic.blocks import BOOL, INT64, Tape, Tensor
from attnprof.analytic.registry import Sizes, formula


def strided_pairs(T: Expr, k: Expr, causal: bool) -> Expr:
    """Pairs with |i - j| <= k or i - j a multiple of k: the near ones, and T - m k for m = 2 .. (T - 1) // k."""
    near = Min(k, T - 1)
    most = floor((T - 1) / k)
    far = (most - 1) * T - k * (most * (most + 1) / 2 - 1)
    one_side = near * T - near * (near + 1) / 2 + Piecewise((0, most < 2), (far, True))
    return T + one_side * (1 if causal else 2)


def topk_pairs(T: Expr, k: Expr, causal: bool) -> Expr:
    """Each query its k keys, or all it has."""
    kept = Min(k, T)
    return T * kept - kept * (kept - 1) / 2 if causal else T * kept


@formula("local-atrous")
def local_atrous(
    tape: Tape,
    sizes: Sizes,
    x: Tensor,
    B: Expr,
    T: Expr,
    d: Expr,
    H: Expr,
    k: Expr,
    dh: Expr | None = None,
    causal: bool = False,
) -> Tensor:
    """The k positions on each side, gathered, and every k-th position of the whole sequence, in k groups."""
    at = itself(sizes, B, T, d, H, None, dh)
    n, taps, group = at.n, (k + 1 if causal else 2 * k + 1), ceiling(T / k)
    q, keys, values = project(tape, at, x, x)
    gathered = tape.tensor("gathered", T * taps, keys.needs_grad or values.needs_grad)
    tape.keep_for(gathered, "positions", T * taps, INT64)
    near_keys, near_values = (tape.copy(t, f"gathered {t.name}", B * T * taps * n) for t in (keys, values))
    # Groups are a view, of a storage that is kept anyway, where one stride leads through all of them.
    whole = Eq(Mod(T, k), 0)
    of_q = And(whole, Or(Eq(T, 1), And(Eq(H, 1), Or(Eq(B, 1), Eq(k, 1), Eq(T, k)))))
    of_weights = And(whole, Or(Eq(k, 1), Eq(T, k), And(Eq(B, 1), Eq(H, 1))))
    q_groups = tape.copy(q, "q in groups", Piecewise((0, of_q), (B * k * group * n, True)))
    k_groups, v_groups = (tape.copy(t, f"{t.name} in groups", B * k * group * n) for t in (keys, values))

    near, far = 2 * B * T * taps * n, 2 * B * k * group**2 * n
    useful = 2 * B * n * strided_pairs(T, k, causal)
    a = tape.product("near_scores", q, near_keys, near, "near scores", B * H * T * taps, useful)
    b = tape.product("far_scores", q_groups, k_groups, far, "far scores", B * H * k * group**2, Integer(0))
    scores = tape.tensor("scores", B * H * T * (taps + group), a.needs_grad or b.needs_grad)
    tape.keep_for(scores, "mask", T * (taps + group), BOOL)
    weights = tape.softmax(scores, B * H * T)
    in_groups = tape.copy(weights, "probabilities in groups", Piecewise((0, of_weights), (B * H * k * group**2, True)))
    y = tape.product("near_weighted_sum", weights, near_values, near, "near", B * T * n, useful)
    z = tape.product("far_weighted_sum", in_groups, v_groups, far, "far", B * k * group * n, Integer(0))
    out = tape.add(y, z, "averages", "sum")
    return project_back(tape, at, tape.copy(out, "heads merged", B * T * n))


@formula("topk")
def topk(
    tape: Tape,
    sizes: Sizes,
    x: Tensor,
    B: Expr,
    T: Expr,
    d: Expr,
    H: Expr,
    k: Expr,
    dh: Expr | None = None,
    causal: bool = False,
) -> Tensor:
    """Attention to the k keys with the highest scores, of all that are computed to know them."""
    at = itself(sizes, B, T, d, H, None, dh)
    q, keys, v = project(tape, at, x, x)
    kept, n = Min(k, T), at.n
    scores = tape.product("scores", q, keys, 2 * B * T**2 * n, "scores", B * H * T**2)
    if causal:
        tape.keep_for(scores, "mask", T**2, BOOL)
    tape.keep_for(scores, "places of scores", B * H * T * kept, INT64)
    best = tape.tensor("best scores", B * H * T * kept, scores.needs_grad)
    tape.keep_for(v, "places of values", B * H * T * kept, INT64)
    values = tape.copy(v, "gathered v", B * T * kept * n)
    useful = 2 * B * n * topk_pairs(T, k, causal)
    weights = tape.softmax(best, B * H * T)
    y = tape.product("weighted_sum", weights, values, 2 * B * T * kept * n, "averages", B * T * n, useful)
    return project_back(tape, at, tape.copy(y, "heads merged"))


@formula("clustered")
def clustered(
    tape: Tape, sizes: Sizes, x: Tensor, B: Expr, T: Expr, d: Expr, H: Expr, C: Expr, dh: Expr | None = None
) -> Tensor:
    """Attention inside C clusters of ceil(T / C) tokens, which centroids choose; the choice has no gradient."""
    at = itself(sizes, B, T, d, H, None, dh)
    n, size = at.n, ceiling(T / C)
    q, k, v = project(tape, at, x, x)
    centroids = tape.tensor("centroids", C * n, False, is_state=True)
    for name, asked in (("route_queries", q), ("route_keys", k)):
        fixed = tape.tensor(asked.name, asked.elements, False)
        tape.product(name, fixed, centroids, 2 * B * T * C * n, "closeness", B * H * T * C)
    members = []
    for t in (q, k, v):
        tape.keep_for(t, f"places of {t.name}", B * H * C * size, INT64)
        members.append(tape.copy(t, f"{t.name} in clusters", B * C * size * n))
    flops = 2 * B * C * size**2 * n
    scores = tape.product("scores", members[0], members[1], flops, "scores", B * H * C * size**2)
    weights = tape.softmax(tape.scale(scores), B * H * C * size)
    answers = tape.product("weighted_sum", weights, members[2], flops, "answers", B * C * size * n)
    tape.keep_for(answers, "places of answers", B * H * C * size, INT64)
    total = tape.tensor("answers in order", B * T * n, answers.needs_grad)
    count = tape.tensor("how many took each", B * H * T, False)
    return project_back(tape, at, tape.copy(tape.divide(total, count, "averages"), "heads merged"))
