"""Depthwise convolution over a sequence: each channel with its own k taps."""

from __future__ import annotations

from sympy import Eq, Expr, Max, Piecewise

from attnprof.analytic.blocks import Tape, Tensor
from attnprof.analytic.registry import FORWARD, Sizes, formula
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


@formula("depthwise-conv", vector=FORWARD)
def depthwise_conv(
    tape: Tape, sizes: Sizes, x: Tensor, B: Expr, T: Expr, d: Expr, k: Expr, causal: bool = False
) -> Tensor:
    """Depthwise convolution in one direct kernel; taps on padding are executed, too."""
    _check(sizes, causal)
    source = tape.copy(x, "x padded", B * (T + k - 1) * d) if causal else x
    weight, useful = tape.weight("weight", d * k), 2 * B * d * taps_inside(T, k, causal)
    out = tape.product("convolution", source, weight, 2 * B * T * d * k, "output", B * T * d, useful, ("X", "W"))
    if out.needs_grad:
        tape.keep(source)  # the kernel's backward takes it, whatever gradient is asked for
    return out


@formula("depthwise-conv-im2col", vector=FORWARD)
def depthwise_conv_im2col(
    tape: Tape, sizes: Sizes, x: Tensor, B: Expr, T: Expr, d: Expr, k: Expr, causal: bool = False
) -> Tensor:
    """Depthwise convolution as a matrix product per channel, over windows copied out of the input.

    Those of a single sample are an overlapping view of it, with its padding.
    """
    _check(sizes, causal)
    windows = tape.copy(x, "windows", Piecewise(((T + k - 1) * d, Eq(B, 1)), (B * T * d * k, True)))
    weight, useful = tape.weight("weight", d * k), 2 * B * d * taps_inside(T, k, causal)
    return tape.product("convolution", windows, weight, 2 * B * T * d * k, "output", B * T * d, useful, ("X", "W"))
