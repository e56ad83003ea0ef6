"""FlashAttention by hand: attention tile by tile with an online softmax, readable rather than fast.

The fused kernel itself is ``mha-sdpa``; this shows what such a kernel does. All N x N scores never exist at
once: a tile of Br queries meets Bc keys at a time, and the softmax over a row is put together from its parts.
The backward computes each tile's scores again from the logsumexp that the forward kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from attnprof.zoo.attention import MultiHeadAttention
from attnprof.zoo.registry import mechanism, positive


def tiles(T: int, Br: int, Bc: int, causal: bool) -> Iterator[tuple[slice, slice]]:
    """The tiles of queries and keys to be computed, row by row: all, or those with a pair that is not masked."""
    for top in range(0, T, Br):
        rows = slice(top, min(top + Br, T))
        for left in range(0, rows.stop if causal else T, Bc):
            yield rows, slice(left, min(left + Bc, T))


def scores_of(q: Tensor, k: Tensor, rows: slice, columns: slice, causal: bool) -> Tensor:
    """The scaled scores of one tile, in float32 at least, keys after their query at -inf when causal."""
    scores: Tensor = (q[..., rows, :] @ k[..., columns, :].transpose(-2, -1) * q.shape[-1] ** -0.5).to(precise(q))
    if causal and columns.stop - 1 > rows.start:
        i = torch.arange(rows.start, rows.stop, device=q.device)
        j = torch.arange(columns.start, columns.stop, device=q.device)
        scores = scores.masked_fill(j > i[:, None], -torch.inf)
    return scores


def precise(x: Tensor) -> torch.dtype:
    """What sums over many tiles are kept in: float32, or x's dtype when that is wider."""
    return torch.promote_types(x.dtype, torch.float32)


class _TiledAttention(torch.autograd.Function):
    """softmax(q kᵀ / √dh) v of [B, H, T, dh], keeping q, k, v, the output and the logsumexp for backward."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, Br: int, Bc: int, causal: bool) -> Tensor:
        """Per row of queries: the running maximum m, the running sum l, and the unnormalised output y."""
        T = q.shape[-2]
        m = q.new_full((*q.shape[:-1], 1), -torch.inf, dtype=precise(q))
        l = torch.zeros_like(m)  # noqa: E741 - its name in the paper
        y = torch.zeros_like(v, dtype=precise(q))
        for rows, columns in tiles(T, Br, Bc, causal):
            scores = scores_of(q, k, rows, columns, causal)
            highest = torch.maximum(m[..., rows, :], scores.amax(-1, keepdim=True))
            p = torch.exp(scores - highest)
            fade = torch.exp(m[..., rows, :] - highest)  # what the sums so far become under the new maximum
            l[..., rows, :] = fade * l[..., rows, :] + p.sum(-1, keepdim=True)
            y[..., rows, :] = fade * y[..., rows, :] + p.to(v.dtype) @ v[..., columns, :]
            m[..., rows, :] = highest
        out, logsumexp = (y / l).to(q.dtype), m + torch.log(l)
        ctx.save_for_backward(q, k, v, out, logsumexp)
        ctx.tiling = Br, Bc, causal
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        """Five products per tile: the scores again, then dV, dP, dQ and dK."""
        q, k, v, out, logsumexp = ctx.saved_tensors
        Br, Bc, causal = ctx.tiling
        dq, dk, dv = (torch.zeros_like(t, dtype=precise(t)) for t in (q, k, v))
        mean = (d_out.to(precise(q)) * out).sum(-1, keepdim=True)  # of a row of dP, weighted by P
        for rows, columns in tiles(q.shape[-2], Br, Bc, causal):
            p = torch.exp(scores_of(q, k, rows, columns, causal) - logsumexp[..., rows, :])
            dy = d_out[..., rows, :]
            dv[..., columns, :] += p.to(v.dtype).transpose(-2, -1) @ dy
            dp = dy @ v[..., columns, :].transpose(-2, -1)
            ds = (p * (dp - mean[..., rows, :]) * q.shape[-1] ** -0.5).to(q.dtype)
            dq[..., rows, :] += ds @ k[..., columns, :]
            dk[..., columns, :] += ds.transpose(-2, -1) @ q[..., rows, :]
        return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype), None, None, None


@mechanism("flash")
class TiledAttention(MultiHeadAttention):
    """FlashAttention written out: tiles of Br queries and Bc keys, an online softmax, scores built twice.

    x [B, T, d] -> [B, T, d], as :class:`MultiHeadAttention`; T need be no multiple of Br or Bc. Causal if
    ``causal``: tiles that are masked whole are skipped. With E = ``executed_pairs(T)``, which is T² when not
    causal, and n = H dh:

    Forward    projections              8 B T d n
               scores, weighted_sum     2 B n E each
    Backward   projections              16 B T d n
               core                     10 B n E: the scores again, dV, dP, dQ, dK. The first is recomputation, but
                                        attnprof cannot tell in a backward of one's own, and books all five here
    Saved      B (T d + 4 T n + H T): x, q, k, v, the output, one logsumexp per query and head (float32 at least)
    Parameters  4 d n

    Dao et al., FlashAttention: Fast and Memory-Efficient Exact Attention with IO-Awareness, 2022; the order of
    the loops, queries outside, is that of Dao, FlashAttention-2, 2023.
    """

    def __init__(
        self, d: int = 64, H: int = 4, dh: int | None = None, Br: int = 32, Bc: int = 32, causal: bool = False
    ) -> None:
        super().__init__(d, H, dh, causal)
        positive(Br=Br, Bc=Bc)
        self.Br, self.Bc = Br, Bc

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        y: Tensor = _TiledAttention.apply(q, k, v, self.Br, self.Bc, self.causal)  # type: ignore[no-untyped-call]
        return y

    def executed_pairs(self, T: int) -> int:
        """(query, key) pairs per head in the tiles that are computed; ``pairs(T)`` of them are not masked."""
        found = tiles(T, self.Br, self.Bc, self.causal)
        return sum((rows.stop - rows.start) * (columns.stop - columns.start) for rows, columns in found)
