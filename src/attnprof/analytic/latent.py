"""Multi-head latent attention: keys and values of all heads from one short vector per token."""

from __future__ import annotations

from sympy import Eq, Expr, Piecewise

from attnprof.analytic.attention import Heads, head_width
from attnprof.analytic.blocks import BOOL, Tape, Tensor
from attnprof.analytic.registry import Sizes, formula
from attnprof.analytic.symbols import e
from attnprof.core.errors import AttnprofError


def _queries(tape: Tape, at: Heads, x: Tensor, dr: Expr, dq: Expr | None) -> Tensor:
    """From a latent vector of width dq, or straight from x: all heads' dh and dr."""
    rows, width = at.B * at.T, at.H * (at.dh + dr)
    if dq is None:
        return tape.linear("q_up", x, rows, at.d, width, "q before rotation")
    latent = tape.linear("q_down", x, rows, at.d, dq, "q latent")
    return tape.linear("q_up", tape.rms_norm(latent, rows, dq, "q_norm", "q latent normed"), rows, dq, width, "queries")


def _rotated(tape: Tape, at: Heads, x: Tensor, name: str, dr: Expr) -> None:
    """Sines and cosines of T positions, once for all samples and heads."""
    tape.keep_for(x, f"sines and cosines of {name}", at.T * dr, e)


def _latents(tape: Tape, at: Heads, x: Tensor, dr: Expr, dc: Expr) -> Tensor:
    """The latent vector of each token, normed, and beside it its rotated key for positions: one storage."""
    rows = at.B * at.T
    latent = tape.linear("kv_down", x, rows, at.d, dc + dr, "kv latent")
    normed = tape.rms_norm(latent, rows, dc, "kv_norm", "kv latent normed")
    _rotated(tape, at, latent, "k", dr)
    return tape.tensor("latents", rows * (dc + dr), normed.needs_grad or latent.needs_grad)


def _even(sizes: Sizes) -> None:
    dr = sizes.values.get("dr", 2)
    if dr % 2:
        raise AttnprofError(f"dr must be even, since positions turn pairs of numbers: dr={dr}.")


@formula("mla")
def mla(
    tape: Tape,
    sizes: Sizes,
    x: Tensor,
    B: Expr,
    T: Expr,
    d: Expr,
    H: Expr,
    dr: Expr,
    dc: Expr,
    dq: Expr | None,
    dh: Expr | None = None,
    causal: bool = True,
) -> Tensor:
    """Multi-head latent attention in training and prefill: keys and values made from latent vectors of width dc.

    dr more per head are for positions; queries come from latent vectors of width dq, or with dq None from x.
    """
    _even(sizes)
    at = Heads(B, T, T, d, H, H, head_width(sizes, d, H, dh))
    rows, width = B * T, H * (at.dh + dr)
    q = _queries(tape, at, x, dr, dq)
    _rotated(tape, at, q, "q", dr)
    latents = _latents(tape, at, x, dr, dc)
    k = tape.linear("k_up", latents, rows, dc, at.n, "k of content")
    v = tape.linear("v_up", latents, rows, dc, at.n, "v")
    queries = tape.tensor("q", rows * width, q.needs_grad)
    keys = tape.tensor("k", rows * width, k.needs_grad or latents.needs_grad)
    return _attend(tape, at, queries, keys, v, width, at.n, T * T if causal else None, T * (T + 1) / 2)


def _attend(
    tape: Tape, at: Heads, q: Tensor, k: Tensor, v: Tensor, width: Expr, values: Expr, mask: Expr | None, useful: Expr
) -> Tensor:
    """Scores of ``width`` and averages of ``values`` numbers per pair of all heads, and the projection back."""
    pairs = at.B * at.T * at.S
    kept = None if mask is None else at.B * useful
    scores = tape.product(
        "scores", q, k, 2 * pairs * width, "scores", pairs * at.H, None if kept is None else 2 * kept * width
    )
    if mask is not None:
        tape.keep_for(scores, "mask", mask, BOOL)
    weights = tape.softmax(scores, at.B * at.H * at.T)
    part = None if kept is None else 2 * kept * values
    y = tape.product("weighted_sum", weights, v, 2 * pairs * values, "averages", at.B * at.T * values, part)
    if values != at.n:  # averages of latent vectors: each head's values are made of them
        y = tape.product(
            "v_up",
            y,
            tape.weight("v_up", values / at.H * at.n),
            2 * at.B * at.T * at.n * values / at.H,
            "values",
            at.B * at.T * at.n,
            factors=("X", "W"),
        )
    merged = tape.copy(y, "heads merged", at.B * at.T * at.n)
    return tape.linear("out_proj", merged, at.B * at.T, at.n, at.d, "output")


@formula("mla-decode")
def mla_decode(
    tape: Tape,
    sizes: Sizes,
    B: Expr,
    T: Expr,
    S: Expr,
    d: Expr,
    H: Expr,
    dr: Expr,
    dc: Expr,
    dq: Expr | None,
    dh: Expr | None = None,
) -> Tensor:
    """A decoding step of latent attention: T new tokens of S against the latent vectors, S (dc + dr) in the cache."""
    _even(sizes)
    if "S" in sizes.values and "T" in sizes.values:
        new_tokens(sizes)
    at = Heads(B, T, S, d, H, H, head_width(sizes, d, H, dh))
    rows = B * T
    x, cache = tape.input("x", rows * d), tape.input("kv_cache", B * (S - T) * (dc + dr))
    q = _queries(tape, at, x, dr, dq)
    _rotated(tape, at, q, "q", dr)
    new = _latents(tape, at, x, dr, dc)
    k_up = tape.weight("k_up", dc * at.n)
    absorbed = tape.product("absorb_k", q, k_up, 2 * rows * at.n * dc, "q absorbed", rows * H * dc, factors=("X", "W"))
    queries = tape.tensor("q", rows * H * (dc + dr), absorbed.needs_grad or q.needs_grad)
    latents = tape.tensor("latents", B * S * (dc + dr), new.needs_grad or cache.needs_grad)
    tape.note("kv_cache", "kv_cache_bytes", B * S * (dc + dr) * e)
    one = Eq(T, 1)
    mask = Piecewise((0, one), (T * S, True))
    return _attend(tape, at, queries, latents, latents, H * (dc + dr), H * dc, mask, T * S - T * (T - 1) / 2)


def new_tokens(sizes: Sizes) -> None:
    """Raise when there are more new tokens than tokens."""
    S, T = sizes.values["S"], sizes.values["T"]
    if S < T:
        raise AttnprofError(f"S counts all tokens, the T new ones too: S={S} must be at least T={T}.")
