"""Sparse attention beyond a window: a pattern of strides, the k best keys, clusters."""

from __future__ import annotations

from sympy import And, Eq, Expr, Gt, Integer, Min, Mod, Ne, Not, Or, Piecewise, ceiling, floor

from attnprof.analytic.attention import Heads, itself, project, project_back
from attnprof.analytic.blocks import BOOL, INT64, Tape, Tensor
from attnprof.analytic.near import places
from attnprof.analytic.registry import Sizes, formula
from attnprof.analytic.symbols import e


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
    tape.several(T, H, at.dh, k)
    tape.conditions.add(Gt(T, k))  # groups of one position are copied less
    full = Eq(Mod(T, k), 0)
    q, keys, values = (tape.copied_back(t) for t in project(tape, at, x, x))
    _strided_mask(tape, T, k, taps, group, causal)
    gathered = tape.tensor("gathered", T * taps, keys.needs_grad or values.needs_grad)
    tape.keep_for(gathered, "positions", T * taps, INT64)
    near_keys, near_values = (tape.look_up(t, T * taps, B * T * taps * n, f"gathered {t.name}") for t in (keys, values))

    def in_groups(x: Tensor, elements: Expr, out: str, kept: Expr | None = None) -> Tensor:
        """Filled up, and positions of the same remainder side by side; both ways a copy."""
        filled = tape.copied_back(tape.pad(x, elements, out, only_if=Not(full)))
        tape.moved(f"copy of {x.name}", elements * e, elements * e)
        return tape.tensor(out, elements, filled.needs_grad, kept=kept)

    def in_order(x: Tensor, elements: Expr) -> Tensor:
        """The positions as they were, and those that filled up cut off; both ways a copy."""
        ordered = tape.copy(tape.copied_back(x), f"{x.name} in order")
        return tape.part(ordered, elements, only_if=Not(full))

    # Groups are a view, of a storage that is kept anyway, where one stride leads through all of them.
    of_q = And(full, Or(Eq(T, 1), And(Eq(H, 1), Or(Eq(B, 1), Eq(k, 1), Eq(T, k)))))
    of_weights = And(full, Or(Eq(k, 1), Eq(T, k), And(Eq(B, 1), Eq(H, 1))))
    whole, pairs = B * k * group * n, B * H * k * group**2
    q_groups = in_groups(q, whole, "q in groups", Piecewise((0, of_q), (whole, True)))
    k_groups, v_groups = (in_groups(t, whole, f"{t.name} in groups") for t in (keys, values))

    near, far = 2 * B * T * taps * n, 2 * B * k * group**2 * n
    useful = 2 * B * n * strided_pairs(T, k, causal)
    b = tape.scale(tape.product("far_scores", q_groups, k_groups, far, "far scores", pairs, Integer(0)), "far_scale")
    a = tape.scale(tape.product("near_scores", tape.copy(q), near_keys, near, "near scores", B * H * T * taps, useful))
    scores = tape.join([a, in_order(b, B * H * T * group)], "scores")
    scores = tape.hide(scores, T * (taps + group), of_kept=True)
    near_weights, far_weights = tape.split(tape.softmax(scores, B * H * T), B * H * T * taps, B * H * T * group)
    y = tape.product("near_weighted_sum", near_weights, near_values, near, "near", B * T * n, useful)
    tape.copied_back(y)
    placed = in_groups(far_weights, pairs, "probabilities in groups", Piecewise((0, of_weights), (pairs, True)))
    z = in_order(tape.product("far_weighted_sum", placed, v_groups, far, "far", whole, Integer(0)), B * T * n)
    out = tape.add(y, z, "averages", "sum")
    return project_back(tape, at, tape.copy(out, "heads merged", B * T * n))


def _strided_mask(tape: Tape, T: Expr, k: Expr, taps: Expr, group: Expr, causal: bool) -> None:
    """Where the near and the far keys of each query stand, and which of them are inside and counted once."""
    places(tape, T, taps)
    far = T * group
    for flops, read, written in (
        (T, T, T),  # remainders
        (0, 0, group),  # multiples of k
        (group, group, group),
        (far, T + group, far),  # far places
        (2 * T, T, T),  # whole steps of queries, of keys, and between them; a floor division is two
        (2 * far, far, far),
        (far, T + far, far),
        *(() if causal else ((far, far, far),)),  # without sign
    ):
        tape.moved("positions", read * INT64, written * INT64, flops=flops)
    for _ in range(2):  # inside; two steps away at least
        tape.moved("mask", far * INT64, far * BOOL, flops=far)
    tape.moved("mask", 2 * far * BOOL, far * BOOL, flops=far)
    both = T * taps + far
    tape.moved("mask", both * BOOL, both * BOOL)
    tape.moved("positions", T * taps * INT64, T * taps * INT64, flops=2 * T * taps)  # outside: the first or the last


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
    kept, n, several = Min(k, T), at.n, Ne(B, 1)
    tape.several(T, H, at.dh, k)
    q, keys = tape.copied_back(q), tape.copied_back(keys, only_if=several)
    q, keys = (tape.copy(t, only_if=several) for t in (q, keys))
    scores = tape.scale(tape.product("scores", q, keys, 2 * B * T**2 * n, "scores", B * H * T**2))
    if causal:
        tape.causal_mask(T, T)
        scores = tape.hide(scores, T**2)
    weights = tape.softmax(tape.best(scores, B * H * T, kept), B * H * T)
    values = chosen_rows(tape, at, v, T * kept)
    useful = 2 * B * n * topk_pairs(T, k, causal)
    y = tape.product("weighted_sum", weights, values, 2 * B * T * kept * n, "averages", B * T * n, useful)
    return project_back(tape, at, tape.copy(tape.copied_back(y), "heads merged"))


def chosen_rows(tape: Tape, at: Heads, x: Tensor, places: Expr) -> Tensor:
    """Rows of x at so many places of each head, counted from where its sample and head start; they are kept."""
    heads, every = at.B * at.H, at.B * at.H * places
    tape.moved("places", Integer(0), heads * INT64)
    tape.moved("places", heads * INT64, heads * INT64, flops=heads)
    tape.moved("places", (heads + every) * INT64, every * INT64, flops=every)
    tape.keep_for(x, f"places of {x.name}", every, INT64)
    ordered = tape.copy(tape.copied_back(x))
    return tape.look_up(ordered, every, every * at.dh, f"gathered {x.name}")


@formula("clustered")
def clustered(
    tape: Tape, sizes: Sizes, x: Tensor, B: Expr, T: Expr, d: Expr, H: Expr, C: Expr, dh: Expr | None = None
) -> Tensor:
    """Attention inside C clusters of T / C tokens, which centroids choose; the choice has no gradient."""
    at = itself(sizes, B, T, d, H, None, dh)
    sizes.divides("T", "C")
    n, size, several = at.n, T / C, Ne(B, 1)
    tape.several(T, H, at.dh, C)
    tape.conditions.add(Gt(T, C))
    q, k, v = project(tape, at, x, x)
    centroids = tape.tensor("centroids", B * C * n, False, is_state=True)
    for name, asked in (("route_queries", q), ("route_keys", k)):
        tape.moved("copy of centroids", C * n * e, B * C * n * e, only_if=several)
        fixed = tape.copy(tape.tensor(asked.name, asked.elements, False), only_if=several)
        closeness = tape.product(name, fixed, centroids, 2 * B * T * C * n, "closeness", B * H * T * C)
        tape.best(closeness, B * H * C, size)
    members = [chosen_rows(tape, at, t, C * size) for t in (q, k, v)]
    flops = 2 * B * C * size**2 * n
    scores = tape.product("scores", members[0], members[1], flops, "scores", B * H * C * size**2)
    weights = tape.softmax(tape.scale(scores), B * H * C * size)
    answers = tape.product("weighted_sum", weights, members[2], flops, "answers", B * C * size * n)
    return project_back(tape, at, tape.copy(_means(tape, at, answers, B * H * C * size), "heads merged"))


def _means(tape: Tape, at: Heads, answers: Tensor, places: Expr) -> Tensor:
    """Answers added up at their places, which are kept, and divided by how many there are, at least one."""
    queries, total = at.B * at.H * at.T, at.B * at.T * at.n
    tape.keep_for(answers, "places of answers", places, INT64)
    tape.moved("sum of answers", Integer(0), total * e)
    added = (total + answers.elements) * e + places * INT64
    tape.moved("sum of answers", added, total * e, flops=answers.elements)
    tape.moved("count of answers", Integer(0), queries * e)
    tape.moved("count of answers", Integer(0), places * e)
    tape.moved("count of answers", (queries + places) * e + places * INT64, queries * e, flops=places)
    tape.moved("count of answers", queries * e, queries * e, flops=queries)
    if answers.needs_grad:
        read = Min(total, answers.elements) * e + places * INT64
        tape.moved("sum of answers", read, answers.elements * e, "backward")
    ordered = tape.tensor("answers in order", total, answers.needs_grad)
    return tape.divide(ordered, tape.tensor("how many took each", queries, False), "averages")
