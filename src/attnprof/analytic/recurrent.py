"""Diagonal linear recurrences: step by step, or as scans. Vector work only."""

from __future__ import annotations

from sympy import Eq, Expr, Gt, Integer, Max, Ne, Piecewise, floor

from attnprof.analytic.blocks import Tape, Tensor
from attnprof.analytic.prediction import Quantity
from attnprof.analytic.registry import FORWARD, Sizes, formula
from attnprof.analytic.symbols import BitCount, CeilLog2, FloorLog2, e


def hillis_steele_combines(T: Expr) -> Expr:
    """Joins of pairs per channel: the round that reaches 2^i back makes T - 2^i, for i = 0 .. ceil(log2 T) - 1."""
    rounds = CeilLog2(T)
    return T * rounds - 2**rounds + 1


def brent_kung_combines(T: Expr) -> Expr:
    """Joins per channel: n - 1 with n = T, floor(T / 2), ..., 1 positions left, which add up to 2 T - ones(T)."""
    return 2 * T - BitCount(T) - FloorLog2(T) - 1


def _add_up(tape: Tape, decay: Tensor, d: Expr, elements: Expr) -> None:
    """The decay's gradient: that of every position and sample, summed up."""
    tape.moved("decay", elements * e, d * e, "backward", flops=elements - d)


def _of_more_than_one(T: Expr, elements: Expr) -> Expr:
    return Piecewise((0, Eq(T, 1)), (elements, True))


def _states(tape: Tape, sizes: Sizes, x: Tensor, decay: Tensor) -> Tensor:
    """The output, of x's size. The first state is the first input: the decay has no part in it."""
    return tape.tensor("states", x.elements, x.needs_grad or (decay.needs_grad and sizes.values.get("T") != 1))


@formula("diagonal-rnn")
def diagonal_rnn(tape: Tape, sizes: Sizes, x: Tensor, B: Expr, T: Expr, d: Expr) -> Tensor:
    """A diagonal linear recurrence, step by step: one product and one sum per step and channel after the first.

    Backward, a step's state has a gradient from its use and one from the next step, times the decay.
    """
    decay = tape.weight("decay", d)
    tape.several(T)
    one, steps = B * d, T - 1
    tape.moved("recurrence", steps * (d + one) * e, steps * one * e, flops=steps * one)
    tape.moved("recurrence", steps * 2 * one * e, steps * one * e, flops=steps * one)
    tape.moved("join of states", T * one * e, T * one * e)
    tape.note("state", "kv_cache_bytes", one * e)
    if decay.needs_grad:
        tape.note("x", "saved_bytes", _of_more_than_one(T, T * one * e))
        tape.note("states", "saved_bytes", _of_more_than_one(T, (T - 2) * one * e))
        tape.moved("decay", steps * 2 * one * e, steps * one * e, "backward", flops=steps * one)
        tape.moved("decay", steps * one * e, steps * d * e, "backward", flops=steps * (one - d))
        again = Max(T - 2, 0) * d
        tape.moved("gradients of decay", 2 * again * e, again * e, "backward", flops=again)
    if decay.needs_grad or x.needs_grad:  # the first state is x's
        before = steps if x.needs_grad else Max(T - 2, 0)
        tape.moved("states", before * (one + d) * e, before * one * e, "backward", flops=before * one)
        tape.moved("gradients of states", before * 2 * one * e, before * one * e, "backward", flops=before * one)
    if x.needs_grad:  # of the first position, and of the others, each put into zeros
        tape.moved("parts of x", Integer(0), e, "backward")
        tape.moved("parts of x", (steps * one + 1) * e, T * one * e, "backward")
        tape.moved("parts of x", one * e, T * one * e, "backward")
        tape.moved("gradients of x", 2 * T * one * e, T * one * e, "backward", Ne(T, 1), flops=T * one)
    return _states(tape, sizes, x, decay)


@formula("diagonal-rnn-hillis-steele")
def hillis_steele(tape: Tape, sizes: Sizes, x: Tensor, B: Expr, T: Expr, d: Expr) -> Tensor:
    """A diagonal linear recurrence as a Hillis-Steele scan: ceil(log2 T) rounds over the whole sequence.

    A round that reaches r back joins m = T - r positions. Backward, the states have gradients from both sides of a
    join and from the r positions that it leaves, put into zeros and added up; so have the decays, but in the last
    round, after which nobody asks for them.
    """
    decay = tape.weight("decay", d)
    tape.conditions.add(Gt(T, 2))
    one, rounds = B * d, CeilLog2(T)
    joins = hillis_steele_combines(T)  # the sum of m over all rounds
    but_last, reaches = T * (rounds - 1) - 2 ** (rounds - 1) + 1, 2**rounds - 1  # over all but the last; of r
    tape.note("combine", "vector_flops", 3 * one * joins)
    # Of the decays, which are the same everywhere at first, there are d to read.
    apart = 3 * (T - 1) * one + one - 4 * d
    tape.moved("combine", (6 * joins * one + 2 * T * rounds * one - apart) * e, (3 * joins + 2 * T * rounds) * one * e)
    later = T * one * (rounds - 1) * e  # what each round but the last leaves
    if decay.needs_grad:
        tape.note("x", "saved_bytes", _of_more_than_one(T, T * one * e))
        tape.note("joined inputs", "saved_bytes", _of_more_than_one(T, later))
    if decay.needs_grad or x.needs_grad:
        tape.note("joined decays", "saved_bytes", _of_more_than_one(T, later))

    def back(name: str, flops: Expr, read: Expr, written: Expr) -> None:
        amounts: tuple[tuple[Quantity, Expr], ...] = ("vector_flops", flops), ("read_bytes", read * e)
        for quantity, amount in (*amounts, ("write_bytes", written * e)):
            tape.note(name, quantity, _of_more_than_one(T, amount), "backward")

    if decay.needs_grad:
        back("decays", joins * one, 2 * joins * one, joins * one)  # of the second of a join, by its state
        back("decays", 0 * T, joins * one, rounds * T * one)  # put into zeros
        # Of both by the joined decay, added up with that, the first and what is left into zeros; three added up.
        first = 2 * (one * (T - 1) - d)
        back("joined decays", 2 * but_last * one, 4 * but_last * one - first, 2 * but_last * one)
        back("joined decays", but_last * one, 2 * but_last * one, but_last * one)
        left = 2 ** (rounds - 1) - 1
        back("joined decays", 0 * T, (but_last + left) * one, 2 * (rounds - 1) * T * one)
        again = 2 * (rounds - 1) * T * one
        back("gradients of decays", again, 2 * again, again)
        back("decay", T * one - d, T * one, d)
    if decay.needs_grad or x.needs_grad:
        with_x = joins if x.needs_grad else joins - (T - 1)  # x comes first
        same = one * (T - 1) - d if x.needs_grad else Integer(0)
        times, left = (rounds, reaches) if x.needs_grad else (rounds - 1, reaches - 1)
        back("states", with_x * one, 2 * with_x * one - same, with_x * one)
        back("states", 0 * T, (2 * with_x + left) * one, 3 * times * T * one)
        again = 2 * times * T * one
        back("gradients of states", again, 2 * again, again)
    return _states(tape, sizes, x, decay)


@formula("diagonal-rnn-brent-kung", traffic=FORWARD)
def brent_kung(tape: Tape, sizes: Sizes, x: Tensor, B: Expr, T: Expr, d: Expr) -> Tensor:
    """A diagonal linear recurrence as a Brent-Kung scan: joins on the way up and down, 2 T of them and fewer.

    The levels have n = T, floor(T / 2), ... positions as long as there are two: together 2 T - ones(T) - 1. Of a level
    h = floor(n / 2) are joined on the way up, T - ones(T) of all, and n - h - 1 on the way down. Backward needs no
    decays on the way down, and on the way up none of the last level.
    """
    decay = tape.weight("decay", d)
    tape.conditions.add(Gt(T, 2))
    one, levels = B * d, FloorLog2(T)
    joins, positions, up = brent_kung_combines(T), 2 * T - BitCount(T) - 1, T - BitCount(T)
    down = joins - up
    tape.note("combine", "vector_flops", 3 * one * joins)
    # Joins; the first beside the others, even beside odd positions, and what is left, of decays and of states.
    beside = 2 * (positions - up) + 4 * up + 2 * positions
    half, rest = floor(T / 2), floor((T - 1) / 2)
    apart = (3 * half + 2 * rest + 1) * one - 6 * d  # the decays, which are the same everywhere at first
    tape.moved("combine", ((6 * joins + beside) * one - apart) * e, (3 * joins + beside) * one * e)
    between = one * (T - 1 - BitCount(T)) * e
    if decay.needs_grad:
        tape.note("x", "saved_bytes", _of_more_than_one(T, T * one * e))
        tape.note("joined inputs", "saved_bytes", _of_more_than_one(T, between + one * e))
        tape.note("states on the way down", "saved_bytes", _of_more_than_one(T, between))
    if decay.needs_grad or x.needs_grad:
        tape.note("joined decays", "saved_bytes", _of_more_than_one(T, between))

    def back(name: str, flops: Expr) -> None:
        tape.note(name, "vector_flops", _of_more_than_one(T, flops), "backward")

    if decay.needs_grad:
        # Of the second of a join by its state, up and down; both halves added up.
        back("decays", (up + down) * one)
        back("gradients of decays", positions * one)
        # By the joined decay, where a level comes after: both, added up with those, and what goes down.
        last = floor(T / 2 ** (levels - 1))
        back("joined decays", (2 * up + positions - 2 - last) * one)
        back("decay", T * one - d)
    if decay.needs_grad or x.needs_grad:
        # By the products up and down; of even positions two parts, of odd ones two uses, of even ones three, and both
        # halves added up. x comes first.
        first = Integer(0) if x.needs_grad else half
        back("states", (joins - first) * one)
        first = Integer(0) if x.needs_grad else 2 * (T - half) + T
        back("gradients of states", (4 * positions - 2 * up - first) * one)
    return _states(tape, sizes, x, decay)
