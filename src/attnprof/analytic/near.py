"""Attention to near positions: the pairs that patterns keep, keys gathered for each query, blocks of keys."""

from __future__ import annotations

from dataclasses import dataclass

from sympy import And, Eq, Expr, Gt, Integer, Min, Mod, Not, Or, Piecewise, ceiling, false, floor, true
from sympy.logic.boolalg import Boolean

from attnprof.analytic.attention import Heads
from attnprof.analytic.blocks import BOOL, INT64, Tape, Tensor
from attnprof.analytic.symbols import e


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
    """Pairs inside the T / w blocks of w positions."""
    return T * (w + 1) / 2 if causal else T * w


def gathered(tape: Tape, at: Heads, q: Tensor, k: Tensor, v: Tensor, taps: Expr, useful: Expr) -> Tensor:
    """Every query against its own gathered keys: executed are all T taps, also those outside the sequence."""
    pairs = at.T * taps
    tape.several(at.T, at.H, at.dh, taps)
    places(tape, at.T, taps)
    tape.moved("positions", pairs * INT64, pairs * INT64, flops=2 * pairs)  # outside: the first or the last
    asked = tape.tensor("gathered", pairs, k.needs_grad or v.needs_grad)
    tape.keep_for(asked, "positions", pairs, INT64)
    q = tape.copied_back(q)
    keys, values = (tape.look_up(tape.copied_back(t), pairs, at.B * pairs * at.n, f"gathered {t.name}") for t in (k, v))
    y = near_pairs(tape, at, tape.copy(q), keys, values, pairs, useful, at.T)
    return tape.copied_back(y)


def places(tape: Tape, T: Expr, taps: Expr) -> None:
    """Where the taps of T queries stand, and which of those places are inside the sequence."""
    pairs = T * taps
    tape.moved("positions", Integer(0), taps * INT64)
    tape.moved("positions", Integer(0), T * INT64)
    tape.moved("positions", (T + taps) * INT64, pairs * INT64, flops=pairs)
    for _ in range(2):
        tape.moved("mask", pairs * INT64, pairs * BOOL, flops=pairs)
    tape.moved("mask", 2 * pairs * BOOL, pairs * BOOL, flops=pairs)


def near_pairs(tape: Tape, at: Heads, q: Tensor, k: Tensor, v: Tensor, pairs: Expr, useful: Expr, rows: Expr) -> Tensor:
    """Attention over so many pairs per head, of which a mask leaves the useful ones; ``rows`` queries per head."""
    each = 2 * at.B * at.n
    scores = tape.scale(tape.product("scores", q, k, each * pairs, "scores", at.B * at.H * pairs, each * useful))
    weights = tape.softmax(tape.hide(scores, pairs, of_kept=True), at.B * at.H * rows)
    return tape.product("weighted_sum", weights, v, each * pairs, "weighted sum", at.B * rows * at.n, each * useful)


@dataclass(frozen=True)
class Blocks:
    """T queries in blocks of w, each against so many blocks of keys; the last one filled up.

    Where a block sees itself alone, w divides T.
    """

    T: Expr
    w: Expr
    seen: int

    @property
    def count(self) -> Expr:
        return self.T / self.w if self.seen == 1 else ceiling(self.T / self.w)

    @property
    def whole(self) -> Expr:
        return self.count * self.w

    @property
    def span(self) -> Expr:
        return self.seen * self.w

    @property
    def pairs(self) -> Expr:
        return self.whole * self.span

    @property
    def full(self) -> Boolean:
        """Whether the last block needs no filling up."""
        return true if self.seen == 1 else Eq(Mod(self.T, self.w), 0)

    def mask(self, tape: Tape) -> None:
        """Where queries and keys stand, block by block; which pairs are in the window, and inside the sequence."""
        c, w, s = self.count, self.w, self.span
        i, j, pairs = c * w, c * s, c * w * s  # numbers of queries, of keys, of both
        for flops, read, written in (
            (0, 0, c),
            (0, 0, w),
            (c, c, c),
            (i, c + w, i),
            (c, c, c),
            (0, 0, s),
            (j, c + s, j),
        ):
            tape.moved("positions", read * INT64, written * INT64, flops=flops)
        for _ in range(2):
            tape.moved("mask", (i + j) * INT64, pairs * INT64, flops=pairs)  # j - i
            tape.moved("mask", pairs * INT64, pairs * BOOL, flops=pairs)  # in the window, from one side
        for size in (j, i, j):  # j not before the first; i, and j, not behind the last
            tape.moved("mask", size * INT64, size * BOOL, flops=size)
        for read in (2 * pairs, i + j, j + pairs, 2 * pairs):  # both sides; both behind or both not; and; and
            tape.moved("mask", read * BOOL, pairs * BOOL, flops=pairs)

    def queries(self, tape: Tape, at: Heads, q: Tensor, in_place: Boolean = false) -> Tensor:
        """The queries filled up, or copied; they are q itself where ``in_place``."""
        size = at.B * self.whole * at.n
        filled = tape.pad(tape.copied_back(q), size, only_if=Not(self.full))
        tape.moved("copy of q", size * e, size * e, only_if=self.full)
        kept = None if in_place is false else Piecewise((0, in_place), (size, True))
        return tape.tensor("q in blocks", size, filled.needs_grad, kept=kept)

    def keys(self, tape: Tape, at: Heads, k: Tensor, back: bool = True) -> Tensor:
        """Each key once for every block that sees it; of a single head the blocks are an overlapping view."""
        width = at.B * self.w * at.n
        around, repeated = (self.count + self.seen - 1) * width, self.whole * self.seen * at.B * at.n
        alone = self.seen == 1
        filled = tape.pad(tape.copied_back(k) if back else k, around, only_if=Not(self.full) if alone else true)
        tape.overlapping(filled, repeated)
        tape.moved(f"copy of {k.name}", around * e, repeated * e, only_if=self.full if alone else true)
        kept = None if alone else Piecewise((around, And(Eq(at.B, 1), Eq(at.H, 1))), (repeated, True))
        return tape.tensor(f"{k.name} in blocks", repeated, k.needs_grad, kept=kept)

    def joined(self, tape: Tape, at: Heads, y: Tensor, in_order: bool = False) -> Tensor:
        """The blocks one after the other, what filled up the last one cut off; ``in_order``: so is the gradient."""
        if not in_order:
            tape.copied_back(y, only_if=self.full)
        return tape.part(y, at.B * self.T * at.n, only_if=Not(self.full))

    def merged(self, tape: Tape, at: Heads, y: Tensor) -> Tensor:
        """The heads side by side; what is in order as it is, of one sample say, keeps its padding."""
        padded = at.B * self.whole * at.n, And(Or(Eq(at.B, 1), Eq(self.T, 1)), Or(Eq(at.H, 1), Eq(at.dh, 1)))
        cut = self.joined(tape, at, y)
        return tape.copy(cut, "heads merged", kept=Piecewise(padded, (at.B * self.T * at.n, True)))


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
    tape.several(at.H, at.dh, blocks.w)
    tape.conditions.add(Gt(at.T, blocks.w))  # a single block is copied less
    blocks.mask(tape)
    queries = blocks.queries(tape, at, q, in_place)
    keys, values = (blocks.keys(tape, at, t) for t in (k, v))
    return near_pairs(tape, at, queries, keys, values, blocks.pairs, useful, blocks.whole)
