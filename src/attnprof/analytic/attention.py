"""Attention over all pairs: multi-head, grouped-query, multi-query, cross; scores written out or fused."""

from __future__ import annotations

from dataclasses import dataclass

from sympy import And, Expr, Integer, Ne, Or, true

from attnprof.analytic.blocks import Tape, Tensor
from attnprof.analytic.registry import Sizes, formula
from attnprof.analytic.symbols import e


def head_width(sizes: Sizes, d: Expr, H: Expr, dh: Expr | None) -> Expr:
    """dh, or when it is not given the usual d / H."""
    if dh is not None:
        return dh
    sizes.divides("d", "H")
    return d / H


@dataclass(frozen=True)
class Heads:
    """Sizes of an attention: B samples, T queries, S keys, H and Hkv heads of width dh, model width d."""

    B: Expr
    T: Expr
    S: Expr
    d: Expr
    H: Expr
    Hkv: Expr
    dh: Expr

    @property
    def n(self) -> Expr:
        """The width of all query heads."""
        return self.H * self.dh

    @property
    def m(self) -> Expr:
        """The width of all key heads."""
        return self.Hkv * self.dh


def project(
    tape: Tape, at: Heads, x: Tensor, memory: Tensor, train_pattern: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v; without ``train_pattern`` the weights of q and k are not trained."""
    q = tape.linear("q_proj", x, at.B * at.T, at.d, at.n, "q", trained=train_pattern)
    k = tape.linear("k_proj", memory, at.B * at.S, at.d, at.m, "k", trained=train_pattern)
    v = tape.linear("v_proj", memory, at.B * at.S, at.d, at.m, "v")
    return q, k, v


def project_back(tape: Tape, at: Heads, y: Tensor) -> Tensor:
    """The heads side by side, times the output matrix."""
    return tape.linear("out_proj", y, at.B * at.T, at.n, at.d, "output")


def explicit(tape: Tape, at: Heads, q: Tensor, k: Tensor, v: Tensor, causal: bool, cached: bool = False) -> Tensor:
    """softmax(q kᵀ / √dh) v with its scores written out; a causal mask hides pairs but saves no work.

    Copies are where no one stride leads through the heads of several samples, or the queries of a group of heads.
    ``cached``: k and v are whole, old ones and new ones joined; the queries are the last of S positions, and a single
    one has no mask.
    """
    each = 2 * at.B * at.n
    several, grouped = Ne(at.B, 1), Ne(at.H, at.Hkv)
    more = Ne(at.T, 1) if cached else true
    tape.several(at.H, at.dh, *(() if cached else (at.T, at.S)))
    stacked = And(more, Or(several, grouped))
    q = tape.copy(tape.copied_back(q, only_if=more), only_if=stacked)
    if not cached:
        apart = And(several, Ne(at.Hkv, 1))
        k = tape.copy(tape.copied_back(k, only_if=several), only_if=apart)
        v = tape.copy(tape.copied_back(v, only_if=Ne(at.Hkv, 1)), only_if=apart)
    useful = each * (at.T * at.S - at.T * (at.T - 1) / 2) if causal else None
    flops = each * at.T * at.S
    scores = tape.scale(tape.product("scores", q, k, flops, "scores", at.B * at.H * at.T * at.S, useful))
    if causal:
        tape.causal_mask(at.T, at.S, more)
        scores = tape.hide(scores, at.T * at.S, only_if=more)
    probabilities = tape.softmax(scores, at.B * at.H * at.T)
    y = tape.product("weighted_sum", probabilities, v, flops, "weighted sum", at.B * at.T * at.n, useful)
    return tape.copy(tape.copied_back(y, only_if=stacked), "heads merged", only_if=more)


def fused(tape: Tape, at: Heads, q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """The same in one kernel, which skips nothing in its count and never stores the scores."""
    each = 2 * at.B * at.n
    useful = each * at.T * (at.T + 1) / 2 if causal else None
    return tape.fused_attention(q, k, v, each * at.T * at.S, at.B * at.H * at.T, useful)


def cache(tape: Tape, at: Heads) -> None:
    """Keys and values of S positions, which a decoder keeps."""
    tape.note("kv_cache", "kv_cache_bytes", 2 * at.B * at.S * at.m * e)


def self_attention(
    tape: Tape,
    at: Heads,
    x: Tensor,
    causal: bool,
    fuse: bool = False,
    output: bool = True,
    train_pattern: bool = True,
) -> Tensor:
    """Projections, attention between the heads, and a projection back."""
    q, k, v = project(tape, at, x, x, train_pattern)
    y = (fused if fuse else explicit)(tape, at, q, k, v, causal)
    cache(tape, at)
    return project_back(tape, at, y) if output else y


def itself(sizes: Sizes, B: Expr, T: Expr, d: Expr, H: Expr, Hkv: Expr | None, dh: Expr | None) -> Heads:
    """The sizes of a sequence that attends to itself; without Hkv every head has its own keys."""
    if Hkv is not None:
        sizes.divides("H", "Hkv")
    return Heads(B, T, T, d, H, H if Hkv is None else Hkv, head_width(sizes, d, H, dh))


@formula("mha")
def mha(
    tape: Tape,
    sizes: Sizes,
    x: Tensor,
    B: Expr,
    T: Expr,
    d: Expr,
    H: Expr,
    dh: Expr | None = None,
    causal: bool = False,
) -> Tensor:
    """Multi-head attention, its scores written out."""
    at = itself(sizes, B, T, d, H, None, dh)
    return self_attention(tape, at, x, causal)


@formula("mha-sdpa")
def mha_sdpa(
    tape: Tape,
    sizes: Sizes,
    x: Tensor,
    B: Expr,
    T: Expr,
    d: Expr,
    H: Expr,
    dh: Expr | None = None,
    causal: bool = False,
) -> Tensor:
    """Multi-head attention by a fused kernel, which computes the scores again in its backward."""
    at = itself(sizes, B, T, d, H, None, dh)
    return self_attention(tape, at, x, causal, fuse=True)


@formula("mha-no-output")
def mha_no_output(
    tape: Tape,
    sizes: Sizes,
    x: Tensor,
    B: Expr,
    T: Expr,
    d: Expr,
    H: Expr,
    dh: Expr | None = None,
    causal: bool = False,
) -> Tensor:
    """Multi-head attention without an output projection."""
    at = itself(sizes, B, T, d, H, None, dh)
    return self_attention(tape, at, x, causal, output=False)


@formula("gqa")
def gqa(
    tape: Tape,
    sizes: Sizes,
    x: Tensor,
    B: Expr,
    T: Expr,
    d: Expr,
    H: Expr,
    Hkv: Expr,
    dh: Expr | None = None,
    causal: bool = False,
) -> Tensor:
    """Grouped-query attention: H / Hkv query heads share a key and value head."""
    return self_attention(tape, itself(sizes, B, T, d, H, Hkv, dh), x, causal)


@formula("gqa-sdpa")
def gqa_sdpa(
    tape: Tape,
    sizes: Sizes,
    x: Tensor,
    B: Expr,
    T: Expr,
    d: Expr,
    H: Expr,
    Hkv: Expr,
    dh: Expr | None = None,
    causal: bool = False,
) -> Tensor:
    """Grouped-query attention by a fused kernel."""
    return self_attention(tape, itself(sizes, B, T, d, H, Hkv, dh), x, causal, fuse=True)


@formula("mqa")
def mqa(
    tape: Tape,
    sizes: Sizes,
    x: Tensor,
    B: Expr,
    T: Expr,
    d: Expr,
    H: Expr,
    dh: Expr | None = None,
    causal: bool = False,
) -> Tensor:
    """Multi-query attention: all heads share one key and value head."""
    return self_attention(tape, itself(sizes, B, T, d, H, Integer(1), dh), x, causal)


@formula("cross-attention")
def cross_attention(
    tape: Tape, sizes: Sizes, B: Expr, T: Expr, S: Expr, d: Expr, H: Expr, dh: Expr | None = None
) -> Tensor:
    """Attention from T queries to the S positions of another sequence."""
    at = Heads(B, T, S, d, H, H, head_width(sizes, d, H, dh))
    x, memory = tape.input("x", B * T * d), tape.input("memory", B * S * d)
    q, k, v = project(tape, at, x, memory)
    y = explicit(tape, at, q, k, v, causal=False)
    cache(tape, at)
    return project_back(tape, at, y)


@formula("orthogonal")
def orthogonal(
    tape: Tape,
    sizes: Sizes,
    x: Tensor,
    B: Expr,
    T: Expr,
    d: Expr,
    H: Expr,
    dh: Expr | None = None,
    causal: bool = False,
) -> Tensor:
    """Multi-head attention with frozen orthogonal query and key projections, its scores written out."""
    return self_attention(tape, itself(sizes, B, T, d, H, None, dh), x, causal, train_pattern=False)


@formula("orthogonal-sdpa")
def orthogonal_sdpa(
    tape: Tape,
    sizes: Sizes,
    x: Tensor,
    B: Expr,
    T: Expr,
    d: Expr,
    H: Expr,
    dh: Expr | None = None,
    causal: bool = False,
) -> Tensor:
    """Multi-head attention with frozen orthogonal query and key projections, by a fused kernel."""
    return self_attention(tape, itself(sizes, B, T, d, H, None, dh), x, causal, fuse=True, train_pattern=False)
