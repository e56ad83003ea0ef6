"""A window, and a few global tokens that see and are seen by everything."""

from __future__ import annotations

from sympy import And, Eq, Expr, Gt, Integer, Min, Ne, Not, Or, Piecewise, true

from attnprof.analytic.attention import itself, project, project_back
from attnprof.analytic.blocks import BOOL, INT64, Tape, Tensor
from attnprof.analytic.near import Blocks, window_pairs
from attnprof.analytic.registry import Sizes, formula
from attnprof.analytic.symbols import e


@formula("longformer")
def longformer(
    tape: Tape,
    sizes: Sizes,
    x: Tensor,
    B: Expr,
    T: Expr,
    d: Expr,
    H: Expr,
    w: Expr,
    g: Expr,
    dh: Expr | None = None,
    causal: bool = False,
) -> Tensor:
    """A sliding window, and g leading global tokens that all queries see, and that unless causal see all keys."""
    at = itself(sizes, B, T, d, H, None, dh)
    tape.several(T, H, at.dh, w, g)
    tape.conditions |= {Gt(T, w), Gt(T, g)}  # a single block, or global tokens alone, are copied less
    n, g, blocks = at.n, Min(g, T), Blocks(T, w, 2 if causal else 3)
    full, several = blocks.full, Ne(B, 1)
    q, k, v = project(tape, at, x, x)
    for t, at_all in ((q, true), (k, true if causal else several), (v, true)):
        tape.copied_back(t, only_if=at_all)
    q = tape.copy(q)
    blocks.mask(tape)
    _global_mask(tape, blocks, g, causal)
    # A slice of the first g keys is a copy, unless it has no gaps: then it is the keys' own storage.
    own = Or(And(Eq(B, 1), Or(Eq(H, 1), Eq(g, 1))), Eq(T, 1))
    at_global = Piecewise((B * T * n if causal else 0, own), (B * g * n, True))

    def first(x: Tensor) -> Tensor:
        """The rows of the global tokens, in order."""
        part = tape.part(x, B * g * n)
        tape.moved(f"copy of global {x.name}", B * g * n * e, B * g * n * e)
        return tape.tensor(f"global {x.name}", B * g * n, part.needs_grad, kept=at_global)

    keys, values = first(k), first(v)
    filled = tape.pad(q, B * blocks.whole * n, only_if=Not(full))
    in_window = Piecewise((0, full), (filled.elements, True))  # a copy only where it is filled up
    queries = tape.tensor("q in blocks", filled.elements, q.needs_grad, kept=in_window)
    near_keys, near_values = (blocks.keys(tape, at, t, back=False) for t in (k, v))
    near, far = 2 * B * blocks.pairs * n, 2 * B * T * g * n
    useful = 2 * B * n * (g * T - g * (g - 1) / 2 if causal else 2 * g * T - g**2)
    useful += Piecewise((0, Eq(g, T)), (2 * B * n * window_pairs(T - g, w, causal), True))
    a = tape.product("scores", queries, near_keys, near, "near scores", B * H * blocks.pairs, useful)
    b = tape.product("global_scores", q, keys, far, "global scores", B * T * H * g, Integer(0))
    to_global = tape.pad(b, B * H * blocks.whole * g, only_if=Not(full))
    scores = tape.scale(tape.join([a, to_global], "scores"))
    scores = tape.hide(scores, blocks.whole * (blocks.span + g), of_kept=True)
    weights = tape.softmax(scores, B * H * blocks.whole)
    of_near, of_global = tape.split(weights, B * H * blocks.pairs, to_global.elements)
    y = tape.product("weighted_sum", of_near, near_values, near, "near", B * blocks.whole * n, useful)
    y = blocks.joined(tape, at, y, in_order=not causal)
    seen = tape.part(of_global, B * T * H * g, only_if=Not(full))
    z = tape.product("global_weighted_sum", seen, values, far, "far", B * T * n, Integer(0))
    if causal:
        tape.copied_back(z, only_if=several)
    out = tape.add(y, z, "averages", "sum")
    if not causal:
        asking = tape.part(q, B * g * n)
        rows = tape.product(
            "queries_scores", asking, tape.copy(k, only_if=several), far, "scores of global queries", B * H * g * T,
            Integer(0),
        )  # fmt: skip
        probabilities = tape.softmax(tape.scale(rows), B * H * g, out="probabilities of global queries")
        all_values = tape.copy(v, only_if=several)
        everything = tape.product(
            "queries_weighted_sum", probabilities, all_values, far, "averages", B * g * n, Integer(0)
        )
        tape.copied_back(everything, only_if=several)
        out = tape.join([everything, tape.part(out, B * (T - g) * n)], "averages")
    return project_back(tape, at, tape.copy(out, "heads merged", B * T * n))


def _global_mask(tape: Tape, blocks: Blocks, g: Expr, causal: bool) -> None:
    """Keys of the window that are not global; the global ones, causal up to the query; both side by side."""
    queries, keys, near, far = blocks.whole, blocks.count * blocks.span, blocks.pairs, blocks.whole * g
    tape.moved("mask", keys * INT64, keys * BOOL, flops=keys)
    tape.moved("mask", (near + keys) * BOOL, near * BOOL, flops=near)
    tape.moved("positions", Integer(0), g * INT64)
    tape.moved("mask", (g + queries if causal else g) * INT64, far * BOOL, flops=far)
    tape.moved("mask", (near + far) * BOOL, (near + far) * BOOL)
