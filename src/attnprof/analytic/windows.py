"""Attention to near positions only: local, dilated and sliding windows, and blocks."""

from __future__ import annotations

from sympy import Expr

from attnprof.analytic.attention import itself, project, project_back
from attnprof.analytic.blocks import Tape, Tensor
from attnprof.analytic.near import Blocks, block_pairs, gathered, in_blocks, window_pairs
from attnprof.analytic.registry import Sizes, formula


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
    sizes.divides("T", "w")
    blocks = Blocks(T, w, 1)
    y = in_blocks(tape, at, *project(tape, at, x, x), blocks, block_pairs(T, w, causal))
    return project_back(tape, at, blocks.merged(tape, at, y))
