"""Closed forms as named terms: which module does how many matmul FLOPs, in which phase.

A term is written from the architecture, never from a run. ``rows`` is how many vectors a layer is applied
to; a multiply-add is 2 FLOPs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Term:
    """The matmul FLOPs of one contraction, and the dotted name of the module whose forward does it."""

    module: str
    name: str
    forward: int
    backward: int
    recompute: int = 0


def linear(module: str, rows: int, n_in: int, n_out: int) -> Term:
    """[rows, n_in] x [n_in, n_out]; backward dX = dY W^T and dW = X^T dY, as much again each."""
    product = 2 * rows * n_in * n_out
    return Term(module, "linear", product, 2 * product)


def attention(module: str, pairs: int, width: int, fused: bool) -> list[Term]:
    """QK^T and PV over ``pairs`` = batch x heads x queries x keys, each pair a dot product of ``width``.

    Backward: dQ and dK for the scores, dP and dV for the weighted sum. A fused kernel keeps no scores and
    computes QK^T again in its backward.
    """
    product = 2 * pairs * width
    return [
        Term(module, "scores", product, 2 * product, product if fused else 0),
        Term(module, "weighted_sum", product, 2 * product),
    ]


def convolution(module: str, outputs: int, taps: int, input_grad: bool = True) -> Term:
    """``outputs`` elements of ``taps`` multiply-adds, padding included; backward dW, and dX where it is needed."""
    product = 2 * outputs * taps
    return Term(module, "convolution", product, (1 + input_grad) * product)


def total(terms: Iterable[Term], phase: str, module: str = "") -> int:
    """The FLOPs of a phase done by a module and everything inside it; the empty name is the whole model."""
    return sum(
        getattr(term, phase)
        for term in terms
        if module == "" or term.module == module or term.module.startswith(module + ".")
    )
