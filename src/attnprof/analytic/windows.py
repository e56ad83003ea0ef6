"""Attention to near positions only: local, dilated and sliding windows, blocks, global tokens, a linear part."""

from __future__ import annotations

from dataclasses import dataclass

from sympy import And, Eq, Expr, Integer, Min, Mod, Or, Piecewise, ceiling, false, floor
from sympy.logic.boolalg import Boolean

from attnprof.analytic.attention import Heads, explicit_pairs, itself, project, project_back
from attnprof.analytic.blocks import BOOL, INT64, Tape, Tensor
from attnprof.analytic.linear import causal_linear_attention, feature_map, linear_attention
from attnprof.analytic.registry import Sizes, formula


def window_pairs(T: Expr, w: Expr, causal: bool, dilation: Expr | int = 1) -> Expr:
    """Pairs that a window keeps: every query its taps, less those outside the sequence.

    Two-sided, w taps on each side: T (2 w + 1) - r w (w + 1); causal, w taps with its own: T w - r w (w - 1) / 2.
    Taps that no query has, r w >= T, do not count.
    """
    reach = floor((T - 1) / dilation) if dilation != 1 else T - 1
    taps = Min(w - 1 if causal else w, reach)
    if causal:
        return T * (taps + 1) - dilation * taps * (taps + 1) / 2
    return T * (2 * taps + 1) - dilation * taps * (taps + 1)


def block_pairs(T: Expr, w: Expr, causal: bool) -> Expr:
    """Pairs inside blocks of w, the last one of the T mod w positions that are left."""

    def inside(size: Expr) -> Expr:
        return size * (size + 1) / 2 if causal else size**2

    return floor(T / w) * inside(w) + inside(Mod(T, w))


def gathered(tape: Tape, at: Heads, q: Tensor, k: Tensor, v: Tensor, taps: Expr, useful: Expr) -> Tensor:
    """Every query against its own gathered keys: executed are all T taps, also those outside the sequence."""
    pairs = at.T * taps
    asked = tape.tensor("gathered", pairs, k.needs_grad or v.needs_grad)
    tape.keep_for(asked, "positions", pairs, INT64)
    keys, values = (tape.copy(t, f"gathered {t.name}", at.B * pairs * at.n) for t in (k, v))
    return explicit_pairs(tape, at, q, keys, values, pairs, useful, at.T, pairs)


@dataclass(frozen=True)
class Blocks:
    """T queries in blocks of w, each against so many blocks of keys; the last one filled up."""

    T: Expr
    w: Expr
    seen: int

    @property
    def whole(self) -> Expr:
        return ceiling(self.T / self.w) * self.w

    @property
    def span(self) -> Expr:
        return self.seen * self.w

    @property
    def pairs(self) -> Expr:
        return self.whole * self.span

    def keys(self, tape: Tape, at: Heads, k: Tensor) -> Tensor:
        """Each key once for every block that sees it; of a single head the blocks are an overlapping view."""
        width = at.B * self.w * at.n
        copied = (ceiling(self.T / self.w) + self.seen - 1) * width, And(Eq(at.B, 1), Eq(at.H, 1))
        repeated = self.whole * self.seen * at.B * at.n
        return tape.copy(k, f"{k.name} in blocks", repeated if self.seen == 1 else Piecewise(copied, (repeated, True)))

    def merged(self, tape: Tape, at: Heads, y: Tensor) -> Tensor:
        """The heads side by side; what is in order as it is, of one sample say, keeps its padding."""
        padded = at.B * self.whole * at.n, And(Or(Eq(at.B, 1), Eq(self.T, 1)), Or(Eq(at.H, 1), Eq(at.dh, 1)))
        return tape.copy(y, "heads merged", Piecewise(padded, (at.B * self.T * at.n, True)))


def in_blocks(
    tape: Tape,
    at: Heads,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    blocks: Blocks,
    useful: Expr,
    in_place: Boolean = false,
) -> Tensor:
    """Blocks of queries against the blocks of keys that they see; the queries are q itself where ``in_place``."""
    copied = at.B * blocks.whole * at.n
    queries = tape.copy(q, "q in blocks", copied if in_place is false else Piecewise((0, in_place), (copied, True)))
    keys, values = (blocks.keys(tape, at, t) for t in (k, v))
    return explicit_pairs(tape, at, queries, keys, values, blocks.pairs, useful, blocks.whole, blocks.pairs)


@formula("local-window")
def local_window(
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
    """Local attention: each query gathers the keys of its window, |i - j| <= w, or causal the last w."""
    at = itself(sizes, B, T, d, H, None, dh)
    y = gathered(tape, at, *project(tape, at, x, x), w if causal else 2 * w + 1, window_pairs(T, w, causal))
    return project_back(tape, at, tape.copy(y, "heads merged"))


@formula("dilated-window")
def dilated_window(
    tape: Tape,
    sizes: Sizes,
    x: Tensor,
    B: Expr,
    T: Expr,
    d: Expr,
    H: Expr,
    w: Expr,
    dilation: Expr,
    dh: Expr | None = None,
    causal: bool = False,
) -> Tensor:
    """Dilated attention: a window of every dilation-th position, gathered; w taps on each side, or causal w."""
    at = itself(sizes, B, T, d, H, None, dh)
    useful = window_pairs(T, w, causal, dilation)
    y = gathered(tape, at, *project(tape, at, x, x), w if causal else 2 * w + 1, useful)
    return project_back(tape, at, tape.copy(y, "heads merged"))


@formula("sliding-window")
def sliding_window(
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
    """Sliding window in overlapping blocks: w queries against three blocks of keys, or causal two."""
    at = itself(sizes, B, T, d, H, None, dh)
    blocks = Blocks(T, w, 2 if causal else 3)
    y = in_blocks(tape, at, *project(tape, at, x, x), blocks, window_pairs(T, w, causal))
    return project_back(tape, at, blocks.merged(tape, at, y))


@formula("block-window")
def block_window(
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
    """Attention in blocks of w positions that do not overlap."""
    at = itself(sizes, B, T, d, H, None, dh)
    blocks = Blocks(T, w, 1)
    y = in_blocks(tape, at, *project(tape, at, x, x), blocks, block_pairs(T, w, causal))
    return project_back(tape, at, blocks.merged(tape, at, y))


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
    n, g, blocks = at.n, Min(g, T), Blocks(T, w, 2 if causal else 3)
    q, k, v = project(tape, at, x, x)
    # A slice of the first g keys is a copy, unless it has no gaps: then it is the keys' own storage.
    own = Or(And(Eq(B, 1), Or(Eq(H, 1), Eq(g, 1))), Eq(T, 1))
    at_global = Piecewise((B * T * n if causal else 0, own), (B * g * n, True))
    keys, values = (tape.copy(t, f"global {t.name}", at_global) for t in (k, v))
    in_window = Piecewise((0, Eq(Mod(T, w), 0)), (B * blocks.whole * n, True))  # a copy only where it is filled up
    queries = tape.copy(q, "q in blocks", in_window)
    near_keys, near_values = (blocks.keys(tape, at, t) for t in (k, v))
    near, far = 2 * B * blocks.pairs * n, 2 * B * T * g * n
    useful = 2 * B * n * (g * T - g * (g - 1) / 2 if causal else 2 * g * T - g**2)
    useful += Piecewise((0, Eq(g, T)), (2 * B * n * window_pairs(T - g, w, causal), True))
    a = tape.product("scores", queries, near_keys, near, "scores", B * H * blocks.whole * (blocks.span + g), useful)
    b = tape.product("global_scores", q, keys, far, "global scores", B * T * H * g, Integer(0))
    scores = tape.tensor("scores", a.elements, a.needs_grad or b.needs_grad)
    tape.keep_for(scores, "mask", blocks.whole * (blocks.span + g), BOOL)
    weights = tape.softmax(tape.scale(scores), B * H * blocks.whole)
    y = tape.product("weighted_sum", weights, near_values, near, "near", B * blocks.whole * n, useful)
    z = tape.product("global_weighted_sum", weights, values, far, "far", B * T * n, Integer(0))
    out = tape.add(y, z, "averages", "sum")
    if not causal:
        rows = tape.product("queries_scores", q, k, far, "scores of global queries", B * H * g * T, Integer(0))
        seen = tape.softmax(tape.scale(rows), B * H * g, out="probabilities of global queries")
        everything = tape.product("queries_weighted_sum", seen, v, far, "averages", B * g * n, Integer(0))
        out = tape.add(out, everything, "averages", "join")
    return project_back(tape, at, tape.copy(out, "heads merged", B * T * n))


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
    features = feature_map(tape, q), feature_map(tape, k), v
    with tape.scope("window"):
        useful = window_pairs(T, w, causal)
        # The linear part keeps q, if it has a gradient, and whole blocks of one matrix are q as it is.
        in_place = q.needs_grad and And(Eq(Mod(T, w), 0), Or(Eq(H, 1), And(Eq(T, w), Or(Eq(B, 1), Eq(T, 1)))))
        near = in_blocks(tape, at, q, k, v, Blocks(T, w, 2 if causal else 3), useful, in_place or false)
    with tape.scope("linear"):
        if causal:
            far = causal_linear_attention(tape, at, *features, chunk=w)
        else:
            far = linear_attention(tape, at, *features, at.dh)
    gate = tape.elementwise("sigmoid", tape.weight("gate", H), out="share", keep_output=True)
    rest = tape.elementwise("1 - share", gate, out="1 - share")
    mixed = tape.add(
        tape.multiply(gate, near, "gated window"), tape.multiply(rest, far, "gated linear"), "mixed", "sum"
    )
    return project_back(tape, at, tape.copy(mixed, "heads merged", B * T * at.n))
