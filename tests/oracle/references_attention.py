"""Fused attention from its definition: divide the probabilities, keep the logsumexp, rebuild QKᵀ in the backward.

Dense: masked pairs are computed like the others; which of them a skipping kernel would do is counted beside.
Grouped queries: query head h reads key and value head h / (H / H_kv).
"""

from __future__ import annotations

import math
from typing import Any

from oracle.buffers import Buffer, Machine, indices
from oracle.counting import Scalar, exp, largest, log, scaled, total

Pair = tuple[int, int, int]


def _scale(q: Buffer, scale: float | None) -> float:
    return 1 / math.sqrt(q.shape[-1]) if scale is None else scale


def _head(q: Buffer, k: Buffer, h: int) -> int:
    return h // (q.shape[1] // k.shape[1])


def _hidden(m: Machine, score: Any, is_causal: bool, t: int, s: int) -> Any:
    """The causal mask of the CPU kernel, aligned top left: a selection."""
    return Scalar(-math.inf, m) if is_causal and s > t else score


def _scores(
    m: Machine, q: Buffer, k: Buffer, mask: Buffer | None, at: Pair, scale: float, is_causal: bool
) -> list[Any]:
    """One row of scale q kᵀ, with the additive mask added and the causal one selected."""
    b, h, t = at
    row = []
    for s in range(k.shape[2]):
        score: Any = 0
        for d in range(q.shape[3]):
            score = m.multiply_add(score, q[b, h, t, d], k[b, _head(q, k, h), s, d], not is_causal or s <= t)
        score = scaled(score, scale)
        if mask is not None:
            score = score + mask[b, h, t, s]
        row.append(_hidden(m, score, is_causal, t, s))
    return row


def _opened(mask: Buffer | None, q: Buffer, k: Buffer) -> Buffer | None:
    return None if mask is None else mask.expand([*q.shape[:3], k.shape[2]])


def flash(
    m: Machine,
    q: Buffer,
    k: Buffer,
    v: Buffer,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    attn_mask: Buffer | None = None,
    scale: float | None = None,
) -> tuple[Buffer, Buffer]:
    """softmax(scale q kᵀ + mask) v and the logsumexp of every query."""
    out, lse = m.new(q.shape, q.dtype), m.new(q.shape[:3], q.dtype)
    mask = _opened(attn_mask, q, k)
    for b, h, t in indices(q.shape[:3]):
        row = _scores(m, q, k, mask, (b, h, t), _scale(q, scale), is_causal)
        top = largest(row)
        powers = [exp(x - top) for x in row]
        denominator = total(powers)
        lse[b, h, t] = log(denominator) + top
        shares = [p / denominator for p in powers]
        for d in range(v.shape[3]):
            result: Any = 0
            for s, share in enumerate(shares):
                result = m.multiply_add(result, share, v[b, _head(q, k, h), s, d], not is_causal or s <= t)
            out[b, h, t, d] = result
    return out, lse


def flash_backward(
    m: Machine,
    grad: Buffer,
    q: Buffer,
    k: Buffer,
    v: Buffer,
    out: Buffer,
    lse: Buffer,
    dropout_p: float,
    is_causal: bool,
    *,
    attn_mask: Buffer | None = None,
    scale: float | None = None,
) -> tuple[Buffer, Buffer, Buffer]:
    """P again from q, k and the logsumexp; then dV = Pᵀ dO, dP = dO Vᵀ, dS = P (dP - dO·O), dQ = dS K, dK = dSᵀ Q."""
    factor = _scale(q, scale)
    mask = _opened(attn_mask, q, k)
    dq: dict[Any, Any] = {}
    dk: dict[Any, Any] = {}
    dv: dict[Any, Any] = {}
    for b, h, t in indices(q.shape[:3]):
        with m.recompute():
            row = _scores(m, q, k, mask, (b, h, t), factor, is_causal)
            shares = [exp(x - lse[b, h, t]) for x in row]
        delta = total([grad[b, h, t, d] * out[b, h, t, d] for d in range(v.shape[3])])
        g = _head(q, k, h)
        for s, share in enumerate(shares):
            seen = not is_causal or s <= t
            dp: Any = 0
            for d in range(v.shape[3]):
                dv[b, g, s, d] = m.multiply_add(dv.get((b, g, s, d), 0), share, grad[b, h, t, d], seen)
                dp = m.multiply_add(dp, grad[b, h, t, d], v[b, g, s, d], seen)
            ds = scaled(share * (dp - delta), factor)
            for d in range(q.shape[3]):
                dq[b, h, t, d] = m.multiply_add(dq.get((b, h, t, d), 0), ds, k[b, g, s, d], seen)
                dk[b, g, s, d] = m.multiply_add(dk.get((b, g, s, d), 0), ds, q[b, h, t, d], seen)
    outputs = []
    for like, sums in ((q, dq), (k, dk), (v, dv)):
        result = m.new(like.shape, like.dtype)
        for i in indices(like.shape):
            result[i] = sums[i]
        outputs.append(result)
    return tuple(outputs)  # type: ignore[return-value]
