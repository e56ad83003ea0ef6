"""FlashAttention: tile by tile with an online softmax, and what that moves between on-chip memory and DRAM."""

from __future__ import annotations

from sympy import Expr, ceiling

from attnprof.analytic.attention import Heads, itself, project, project_back
from attnprof.analytic.blocks import PRECISE, Tape, Tensor
from attnprof.analytic.registry import FORWARD, Sizes, formula
from attnprof.analytic.symbols import CausalTileColumns, CausalTileRows, CausalTiles, CutTiles, e
from attnprof.core.errors import AttnprofError


def _between(tape: Tape, at: Heads, pairs: Expr, causal: bool, needs_grad: bool, Br: Expr, Bc: Expr) -> None:
    """Vector FLOPs between the products of tiles of r rows and s columns.

    A tile: scale, difference to the maximum and exp 3 r s; maximum and sum of its rows 2 r (s - 1); the running
    maximum r, what becomes of the sums so far 2 r, the running sum 2 r, the output so far 2 r dh. In the end a
    division, a logarithm and a sum per row. Backward: scale, difference and exp again 3 r s, and 3 r s for the
    gradient of the scores from that of the probabilities, less a mean of dh products per row; sums of r dh and twice
    s dh. Tiles that the mask cuts compare their positions, once for all heads.
    """
    heads, T, dh = at.B * at.H, at.T, at.dh
    rows = CausalTileRows(T, Br, Bc) if causal else T * ceiling(T / Bc)
    columns = CausalTileColumns(T, Br, Bc) if causal else T * ceiling(T / Br)
    tape.note("tiles", "vector_flops", heads * (5 * pairs + 3 * rows + 2 * rows * dh))
    tape.note("end of rows", "vector_flops", heads * (T * dh + 2 * T))
    if causal:
        tape.note("mask", "vector_flops", CutTiles(T, Br, Bc))
    if needs_grad:
        tape.note("means", "vector_flops", heads * T * (2 * dh - 1), "backward")
        tape.note("tiles", "vector_flops", heads * (6 * pairs + (rows + 2 * columns) * dh), "backward")
        if causal:
            tape.note("mask", "vector_flops", CutTiles(T, Br, Bc), "backward")


@formula("flash", traffic=())
def flash(
    tape: Tape,
    sizes: Sizes,
    x: Tensor,
    B: Expr,
    T: Expr,
    d: Expr,
    H: Expr,
    Br: Expr,
    Bc: Expr,
    dh: Expr | None = None,
    causal: bool = False,
) -> Tensor:
    """FlashAttention written out: tiles of Br queries and Bc keys; causal, those that are masked whole are skipped.

    Its backward is one of its own: the scores that it builds again are booked there, as nothing tells them apart.
    """
    at = itself(sizes, B, T, d, H, None, dh)
    q, k, v = project(tape, at, x, x)
    pairs = CausalTiles(T, Br, Bc) if causal else T**2
    flops, useful = 2 * B * at.n * pairs, 2 * B * at.n * T * (T + 1) / 2 if causal else None
    needs_grad = q.needs_grad or k.needs_grad or v.needs_grad
    _between(tape, at, pairs, causal, needs_grad, Br, Bc)
    y = tape.tensor("averages", B * T * at.n, needs_grad)
    for name in ("scores", "weighted_sum"):
        tape.note(name, "matmul_flops", flops, useful=useful)
    if needs_grad:
        for x in (q, k, v):
            tape.arrive(x)
        for name in ("scores again", "weighted_sum.dv", "weighted_sum.dprobabilities", "scores.dq", "scores.dk"):
            tape.note(name, "matmul_flops", flops, "backward", useful)
        tape.keep(q, k, v, y, tape.tensor("logsumexp", B * H * T, False, PRECISE))
    return project_back(tape, at, y)


@formula("flash-io", vector=(), traffic=FORWARD)
def flash_io(tape: Tape, sizes: Sizes, B: Expr, H: Expr, T: Expr, dh: Expr, M: Expr) -> None:
    """What FlashAttention moves between DRAM and M elements of on-chip memory, forward; M is of one SM.

    Algorithm 1 of Dao et al., 2022, per head: K and V are read once, 2 T dh. For each of the ceil(T / Bc) blocks of
    Bc = ceil(M / 4 dh) keys all queries come by: Q and the output so far are read and the output written, 3 T dh,
    and the running maxima and sums read and written, 4 T. It holds for dh <= M <= T dh.
    """
    known = sizes.values
    if {"M", "dh"} <= known.keys() and known["M"] < known["dh"]:
        raise AttnprofError(f"M must be at least dh, or no row fits on chip: M={known['M']} is below dh={known['dh']}.")
    if {"M", "dh", "T"} <= known.keys() and known["M"] > known["T"] * known["dh"]:
        raise AttnprofError(
            f"M can be at most T dh, beyond which all keys fit on chip (M counts elements of one SM, not of all): "
            f"M={known['M']} is more than {known['T'] * known['dh']}."
        )
    passes = ceiling(T / ceiling(M / (4 * dh)))
    heads = B * H * e
    tape.note("k, v", "read_bytes", heads * 2 * T * dh)
    tape.note("q, output", "read_bytes", heads * passes * 2 * T * dh)
    tape.note("maxima, sums", "read_bytes", heads * passes * 2 * T)
    tape.note("output", "write_bytes", heads * passes * T * dh)
    tape.note("maxima, sums", "write_bytes", heads * passes * 2 * T)


@formula("attention-io", vector=(), traffic=FORWARD)
def attention_io(tape: Tape, sizes: Sizes, B: Expr, H: Expr, T: Expr, dh: Expr) -> None:
    """What attention with its scores written out moves, forward: scores and probabilities written and read once.

    The scale and the softmax as one op, as in Algorithm 0 of Dao et al., 2022: 4 T² + 4 T dh elements per head.
    """
    heads = B * H * e
    tape.note("q, k", "read_bytes", heads * 2 * T * dh)
    tape.note("scores", "write_bytes", heads * T**2)
    tape.note("scores", "read_bytes", heads * T**2)
    tape.note("probabilities", "write_bytes", heads * T**2)
    tape.note("probabilities", "read_bytes", heads * T**2)
    tape.note("v", "read_bytes", heads * T * dh)
    tape.note("output", "write_bytes", heads * T * dh)
