"""Diagonal linear recurrences: step by step, or as scans. Vector work only."""

from __future__ import annotations

from sympy import Eq, Expr, Piecewise

from attnprof.analytic.blocks import Tape, Tensor
from attnprof.analytic.registry import FORWARD, Sizes, formula
from attnprof.analytic.symbols import BitCount, CeilLog2, FloorLog2, e


def hillis_steele_combines(T: Expr) -> Expr:
    """Joins of pairs per channel: the round that reaches 2^i back makes T - 2^i, for i = 0 .. ceil(log2 T) - 1."""
    rounds = CeilLog2(T)
    return T * rounds - 2**rounds + 1


def brent_kung_combines(T: Expr) -> Expr:
    """Joins per channel: n - 1 with n = T, floor(T / 2), ..., 1 positions left, which add up to 2 T - ones(T)."""
    return 2 * T - BitCount(T) - FloorLog2(T) - 1


def _of_more_than_one(T: Expr, elements: Expr) -> Expr:
    return Piecewise((0, Eq(T, 1)), (elements, True))


def _states(tape: Tape, sizes: Sizes, x: Tensor, decay: Tensor) -> Tensor:
    """The output, of x's size. The first state is the first input: the decay has no part in it."""
    return tape.tensor("states", x.elements, x.needs_grad or (decay.needs_grad and sizes.values.get("T") != 1))


@formula("diagonal-rnn", vector=FORWARD)
def diagonal_rnn(tape: Tape, sizes: Sizes, x: Tensor, B: Expr, T: Expr, d: Expr) -> Tensor:
    """A diagonal linear recurrence, step by step: one product and one sum per step and channel after the first."""
    decay = tape.weight("decay", d)
    tape.note("recurrence", "vector_flops", 2 * B * d * (T - 1))
    tape.note("state", "kv_cache_bytes", B * d * e)
    if decay.needs_grad:
        tape.note("x", "saved_bytes", _of_more_than_one(T, B * T * d * e))
        tape.note("states", "saved_bytes", _of_more_than_one(T, B * (T - 2) * d * e))
    return _states(tape, sizes, x, decay)


@formula("diagonal-rnn-hillis-steele", vector=FORWARD)
def hillis_steele(tape: Tape, sizes: Sizes, x: Tensor, B: Expr, T: Expr, d: Expr) -> Tensor:
    """A diagonal linear recurrence as a Hillis-Steele scan: ceil(log2 T) rounds over the whole sequence."""
    decay = tape.weight("decay", d)
    tape.note("combine", "vector_flops", 3 * B * d * hillis_steele_combines(T))
    later = B * T * d * (CeilLog2(T) - 1) * e  # what each round but the last leaves
    if decay.needs_grad:
        tape.note("x", "saved_bytes", _of_more_than_one(T, B * T * d * e))
        tape.note("joined inputs", "saved_bytes", _of_more_than_one(T, later))
    if decay.needs_grad or x.needs_grad:
        tape.note("joined decays", "saved_bytes", _of_more_than_one(T, later))
    return _states(tape, sizes, x, decay)


@formula("diagonal-rnn-brent-kung", vector=FORWARD)
def brent_kung(tape: Tape, sizes: Sizes, x: Tensor, B: Expr, T: Expr, d: Expr) -> Tensor:
    """A diagonal linear recurrence as a Brent-Kung scan: joins on the way up and down, 2 T of them and fewer.

    The levels between the first and the last have T - 1 - ones(T) positions together.
    """
    decay = tape.weight("decay", d)
    tape.note("combine", "vector_flops", 3 * B * d * brent_kung_combines(T))
    between = B * d * (T - 1 - BitCount(T)) * e
    if decay.needs_grad:
        tape.note("x", "saved_bytes", _of_more_than_one(T, B * T * d * e))
        tape.note("joined inputs", "saved_bytes", _of_more_than_one(T, between + B * d * e))
        tape.note("states on the way down", "saved_bytes", _of_more_than_one(T, between))
    if decay.needs_grad or x.needs_grad:
        tape.note("joined decays", "saved_bytes", _of_more_than_one(T, between))
    return _states(tape, sizes, x, decay)
