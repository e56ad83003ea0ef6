"""Multi-head latent attention: keys and values of all heads from one short vector per token."""

from __future__ import annotations

from sympy import And, Expr, Ge, Gt, Integer, Ne, Or, true
from sympy.logic.boolalg import Boolean

from attnprof.analytic.attention import Heads, head_width
from attnprof.analytic.blocks import Tape, Tensor
from attnprof.analytic.prediction import Phase
from attnprof.analytic.registry import Sizes, formula
from attnprof.analytic.symbols import e
from attnprof.core.errors import AttnprofError


def _queries(tape: Tape, at: Heads, x: Tensor, dr: Expr, dq: Expr | None) -> tuple[Tensor, Tensor]:
    """All heads' dh for contents and dr for positions, the latter rotated; from latent vectors of width dq, or x."""
    rows, width = at.B * at.T, at.H * (at.dh + dr)
    if dq is None:
        q = tape.linear("q_up", x, rows, at.d, width, "q before rotation")
    else:
        latent = tape.linear("q_down", x, rows, at.d, dq, "q latent")
        normed = tape.rms_norm(latent, rows, dq, "q_norm", "q latent normed")
        q = tape.linear("q_up", normed, rows, dq, width, "queries")
    tape.copied_back(q, only_if=Ne(at.T, 1))
    content, position = tape.split(q, rows * at.n, rows * at.H * dr)
    return content, _rotated(tape, at, position, "q", dr)


def _rotated(tape: Tape, at: Heads, x: Tensor, name: str, dr: Expr) -> Tensor:
    """Pairs of numbers turned by angles of T positions, which are the same for all samples and heads.

    Angles: - p / dr, a power, times the position. even cos - odd sin and even sin + odd cos, side by side. Backward
    four products, a sign, two sums, and both halves put into zeros and added up.
    """
    half, angles = x.elements / 2, at.T * dr / 2
    tape.conditions.add(Ge(e, 4))  # what is narrower is computed in float32, and cast
    tape.moved("angles", Integer(0), at.T * e)
    tape.moved("angles", Integer(0), dr / 2 * e)
    for _ in range(3):
        tape.moved("angles", dr / 2 * e, dr / 2 * e, flops=dr / 2)
    tape.moved("angles", (at.T + dr / 2) * e, angles * e, flops=angles)
    for _ in range(2):  # cosine, sine
        tape.moved("angles", angles * e, angles * e, flops=angles)
    rotation = f"rotation of {name}"
    phases: tuple[Phase, ...] = ("forward", "backward") if x.needs_grad else ("forward",)
    for phase in phases:
        for _ in range(4):
            tape.moved(rotation, (half + angles) * e, half * e, phase, flops=half)
        for _ in range(2):
            tape.moved(rotation, 2 * half * e, half * e, phase, flops=half)
    tape.moved(rotation, 2 * half * e, 2 * half * e)
    if x.needs_grad:
        tape.moved(rotation, half * e, half * e, "backward", flops=half)
        for _ in range(2):
            tape.moved(rotation, half * e, 2 * half * e, "backward")
        tape.moved(rotation, 4 * half * e, 2 * half * e, "backward", flops=2 * half)
    tape.keep_for(x, f"sines and cosines of {name}", at.T * dr, e)
    tape.arrive(x)
    return tape.tensor(f"{name} rotated", x.elements, x.needs_grad)


def _latents(tape: Tape, at: Heads, x: Tensor, dr: Expr, dc: Expr) -> Tensor:
    """The latent vector of each token, normed, and beside it its rotated key for positions: one storage."""
    rows = at.B * at.T
    latent, position = tape.split(tape.linear("kv_down", x, rows, at.d, dc + dr, "kv latent"), rows * dc, rows * dr)
    normed = tape.rms_norm(latent, rows, dc, "kv_norm", "kv latent normed")
    return tape.join([normed, _rotated(tape, at, position, "k", dr)], "latents")


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
    tape.several(T, H, at.dh, dc, *([] if dq is None else [dq]))
    rows, several = B * T, Ne(B, 1)
    q = tape.join(_queries(tape, at, x, dr, dq), "q")
    latent, shared = tape.split(_latents(tape, at, x, dr, dc), rows * dc, rows * dr)
    k = tape.copied_back(tape.linear("k_up", latent, rows, dc, at.n, "k of content"))
    v = tape.copied_back(tape.linear("v_up", latent, rows, dc, at.n, "v"))
    keys = _with_shared(tape, k, shared, rows * H * dr)
    v = tape.copy(v, only_if=several)
    y = _attend(tape, at, q, keys, v, at.n, several, causal)
    return tape.linear("out_proj", tape.copy(y, "heads merged"), rows, at.n, d, "output")


def _with_shared(tape: Tape, k: Tensor, shared: Tensor, spread: Expr) -> Tensor:
    """Keys of each head, and beside them the one for positions that all share; its gradient is a sum over heads."""
    made = tape.tensor("k", k.elements + spread, k.needs_grad or shared.needs_grad)
    tape.kernel("join of k", [k, shared], made.elements)
    if shared.needs_grad:
        tape.moved("shared keys", spread * e, shared.elements * e, "backward", flops=spread - shared.elements)
    for x in (k, shared):
        tape.arrive(x)
    return made


def _attend(
    tape: Tape, at: Heads, q: Tensor, k: Tensor, v: Tensor, values: Expr, copied: Boolean, causal: bool
) -> Tensor:
    """Scores of all of q's numbers and averages of ``values`` numbers per pair of all heads.

    A single new token has no mask.

    ``copied``: whether the gradient of the averages is.
    """
    pairs, more = at.B * at.T * at.S, Ne(at.T, 1) if at.S != at.T else true
    useful = at.B * (at.T * at.S - at.T * (at.T - 1) / 2) if causal else None
    width = q.elements / (at.B * at.T)
    part = None if useful is None else 2 * useful * width
    scores = tape.scale(tape.product("scores", q, k, 2 * pairs * width, "scores", pairs * at.H, part))
    if causal:
        tape.causal_mask(at.T, at.S, more)
        scores = tape.hide(scores, at.T * at.S, only_if=more)
    weights = tape.softmax(scores, at.B * at.H * at.T)
    part = None if useful is None else 2 * useful * values
    y = tape.product("weighted_sum", weights, v, 2 * pairs * values, "averages", at.B * at.T * values, part)
    return tape.copied_back(y, only_if=copied)


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
    tape.several(H, at.dh, dc, *([] if dq is None else [dq]))
    tape.conditions.add(Gt(S, T))
    rows, apart = B * T, And(Ne(B, 1), Ne(T, 1))
    x, cache = tape.input("x", rows * d), tape.input("kv_cache", B * (S - T) * (dc + dr))
    content, position = _queries(tape, at, x, dr, dq)
    new = _latents(tape, at, x, dr, dc)
    k_up = tape.weight("k_up", dc * at.n)
    flops = 2 * rows * at.n * dc
    absorbed = tape.product("absorb_k", content, k_up, flops, "q absorbed", rows * H * dc, factors=("X", "W"))
    q = tape.join([tape.copied_back(absorbed, only_if=apart), position], "q")
    latents = tape.join([cache, new], "latents")
    tape.arrive(latents)  # it is returned, too
    tape.note("kv_cache", "kv_cache_bytes", B * S * (dc + dr) * e)
    y = _attend(tape, at, q, latents, tape.part(latents, B * S * dc), H * dc, apart, causal=True)
    averages, v_up = tape.copy(y, only_if=apart), tape.weight("v_up", dc * at.n)
    values = tape.product("v_up", averages, tape.copied_back(v_up), flops, "values", rows * at.n, factors=("X", "W"))
    merged = tape.copy(values, "heads merged", only_if=Or(Ne(B, 1), Ne(T, 1)))
    return tape.linear("out_proj", merged, rows, at.n, d, "output")


def new_tokens(sizes: Sizes) -> None:
    """Raise when there are more new tokens than tokens."""
    S, T = sizes.values["S"], sizes.values["T"]
    if S < T:
        raise AttnprofError(f"S counts all tokens, the T new ones too: S={S} must be at least T={T}.")
