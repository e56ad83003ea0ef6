"""Depthwise convolution over a sequence: each channel with its own k taps."""

from __future__ import annotations

from sympy import Eq, Expr, Integer, Max, Ne, Piecewise

from attnprof.analytic.blocks import Tape, Tensor
from attnprof.analytic.registry import Sizes, formula
from attnprof.analytic.symbols import e
from attnprof.core.errors import AttnprofError


def taps_inside(T: Expr, k: Expr, causal: bool) -> Expr:
    """Taps of a channel on the sequence rather than on padding, those that reach nowhere left out.

    k T less 1 + 2 + ... on each padded side: with q = (k - 1) / 2 on both k T - q (q + 1); of q - T + 1 or more
    taps that lie outside at every position, T each were taken off twice.
    """
    q = k - 1 if causal else (k - 1) / 2
    sides = 1 if causal else 2
    beyond = Max(0, q - T)
    return k * T - sides * (q * (q + 1) / 2 - beyond * (beyond + 1) / 2)


def _check(sizes: Sizes, causal: bool) -> None:
    k = sizes.values.get("k", 1)
    if k % 2 == 0 and not causal:
        raise AttnprofError(f"k must be odd for as many taps on each side, not {k}; or causal=True.")


@formula("depthwise-conv")
def depthwise_conv(
    tape: Tape, sizes: Sizes, x: Tensor, B: Expr, T: Expr, d: Expr, k: Expr, causal: bool = False
) -> Tensor:
    """Depthwise convolution in one direct kernel; taps on padding are executed, too.

    The backward is one kernel as well, which reads the gradient once.
    """
    _check(sizes, causal)
    source = tape.pad(x, B * (T + k - 1) * d, "x padded") if causal else x
    weight, flops, useful = tape.weight("weight", d * k), 2 * B * T * d * k, 2 * B * d * taps_inside(T, k, causal)
    out = tape.tensor("output", B * T * d, source.needs_grad or weight.needs_grad)
    if out.needs_grad:
        tape.keep(source)  # the kernel's backward takes it, whatever gradient is asked for
    tape.note("convolution", "matmul_flops", flops, useful=useful, of_weights=True)
    tape.kernel("convolution", [source, weight], out.elements)
    if out.needs_grad:
        read, written = [out], Integer(0)
        for factor, other, name in ((source, weight, "dX"), (weight, source, "dW")):
            if factor.needs_grad:
                tape.note(f"convolution.{name}", "matmul_flops", flops, "backward", useful, True)
                read, written = [*read, other], written + factor.elements
        tape.kernel("convolution", read, written, phase="backward")
    tape.arrive(source)
    return out


@formula("depthwise-conv-im2col")
def depthwise_conv_im2col(
    tape: Tape, sizes: Sizes, x: Tensor, B: Expr, T: Expr, d: Expr, k: Expr, causal: bool = False
) -> Tensor:
    """Depthwise convolution as a matrix product per channel, over windows copied out of the input.

    Those of a single sample are an overlapping view of it, with its padding.
    """
    _check(sizes, causal)
    tape.several(T, k)
    padded, repeated, alone = B * (T + k - 1) * d, B * T * d * k, Eq(B, 1)
    view = tape.overlapping(tape.pad(x, padded, "x padded"), repeated, "windows")
    tape.moved("copy of windows", padded * e, repeated * e, only_if=Ne(B, 1))
    stored = Piecewise((padded, alone), (repeated, True))
    windows = tape.tensor("windows", repeated, view.needs_grad, kept=stored)
    weight, useful = tape.weight("weight", d * k), 2 * B * d * taps_inside(T, k, causal)
    flops = 2 * B * T * d * k
    return tape.product("convolution", windows, weight, flops, "output", B * T * d, useful, ("X", "W"), stored)
