"""Attention in which every query meets every key: multi-head, grouped-query, multi-query, cross.

All share :class:`Attention`: projections, heads, attention between them, and a projection back. None has biases.
The matmul FLOPs of the docstrings are of a whole call; a causal mask hides pairs but saves no work. Saved
activations are what autograd keeps for backward, in elements, the input x included.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.zoo.registry import divides, mechanism, positive


def head_width(d: int, H: int, dh: int | None = None) -> int:
    """dh, or when it is None the usual d / H; raises AttnprofError for sizes that do not go together."""
    if dh is None:
        divides(d=d, H=H)
        return d // H
    positive(d=d, H=H, dh=dh)
    return dh


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[B, T, heads * dh] -> [B, heads, T, dh]."""
    by_head: Tensor = x.unflatten(-1, (heads, -1))
    return by_head.transpose(1, 2)


def merge_heads(y: Tensor) -> Tensor:
    """[B, heads, T, dh] -> [B, T, heads * dh]."""
    return y.transpose(1, 2).flatten(2)


def attend(q: Tensor, k: Tensor, v: Tensor, causal: bool = False, scale: float | None = None) -> Tensor:
    """softmax(q kᵀ / √dh) v with its scores written out: q [B, H, T, dh], k and v [B, Hkv, S, dh] -> [B, H, T, dh].

    The H / Hkv query heads that share a key head are stacked along their queries: keys and values are not
    repeated. With ``causal`` the last query stands at the last key, and no query sees past its own position.
    ``scale`` takes the place of 1 / √dh.
    """
    T, dh = q.shape[-2:]
    Hkv, S = k.shape[1:3]
    stacked = q.unflatten(1, (Hkv, -1)).flatten(2, 3)  # [B, Hkv, H / Hkv * T, dh]
    scores = stacked @ k.transpose(-2, -1) * (dh**-0.5 if scale is None else scale)  # [B, Hkv, H / Hkv * T, S]
    if causal:
        future = torch.ones(T, S, dtype=torch.bool, device=q.device).triu(S - T + 1)
        scores = scores.unflatten(2, (-1, T)).masked_fill(future, -torch.inf).flatten(2, 3)
    y: Tensor = torch.softmax(scores, dim=-1) @ v
    by_head: Tensor = y.unflatten(2, (-1, T))
    return by_head.flatten(1, 2)


class Attention(nn.Module):
    """What the mechanisms of this file share: H query heads, Hkv key and value heads, of width dh each."""

    def __init__(self, d: int, H: int, Hkv: int, dh: int | None, causal: bool) -> None:
        super().__init__()
        divides(H=H, Hkv=Hkv)
        self.d, self.H, self.Hkv, self.dh, self.causal = d, H, Hkv, head_width(d, H, dh), causal
        self.q_proj = nn.Linear(d, H * self.dh, bias=False)
        self.k_proj = nn.Linear(d, Hkv * self.dh, bias=False)
        self.v_proj = nn.Linear(d, Hkv * self.dh, bias=False)
        self.out_proj: nn.Module = nn.Linear(H * self.dh, d, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.look_up(x, x)

    def look_up(self, x: Tensor, memory: Tensor) -> Tensor:
        """Queries from x [B, T, d], keys and values from memory [B, S, d] -> [B, T, d]."""
        q = split_heads(self.q_proj(x), self.H)
        k = split_heads(self.k_proj(memory), self.Hkv)
        v = split_heads(self.v_proj(memory), self.Hkv)
        y: Tensor = self.out_proj(merge_heads(self.attend(q, k, v)))
        return y

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """[B, H, T, dh] against [B, Hkv, S, dh]."""
        return attend(q, k, v, self.causal)

    def pairs(self, T: int) -> int:
        """(query, key) pairs per head that are not masked. The work done is that of all T * T."""
        return T * (T + 1) // 2 if self.causal else T * T


@mechanism("mha")
class MultiHeadAttention(Attention):
    """Multi-head attention, its scores written out.

    x [B, T, d] -> [B, T, d]: H heads of width dh (d / H unless given), n = H dh. Causal if ``causal``.

    Forward   q_proj, k_proj, v_proj   2 B T d n each
              scores, weighted_sum     2 B T² n each
              out_proj                 2 B T n d
              sum for n = d            8 B T d² + 4 B T² d
    Backward  twice the forward: each product has two factors that need a gradient
    Saved     B (T d + 4 T n + H T²): x, q, k, v, the heads merged, the probabilities; and T² bytes of mask
    Parameters  4 d n

    Vaswani et al., Attention Is All You Need, 2017.
    """

    def __init__(self, d: int = 64, H: int = 4, dh: int | None = None, causal: bool = False) -> None:
        super().__init__(d, H, H, dh, causal)


@mechanism("mha-sdpa")
class FusedAttention(MultiHeadAttention):
    """Multi-head attention by torch's fused kernel, which never stores the scores.

    x [B, T, d] -> [B, T, d], as :class:`MultiHeadAttention`. Causal if ``causal``.

    Forward    as mha: 8 B T d² + 4 B T² d for n = d; of it useful, when causal, B (8 T d² + 4 T(T+1)/2 d)
    Backward   as mha: 16 B T d² + 8 B T² d
    Recompute  2 B T² n: the backward computes the scores again
    Saved      B (T d + 4 T n + H T): x, q, k, v, the kernel's output, one logsumexp per query and head (float32)
    Parameters  4 d n

    Dao et al., FlashAttention: Fast and Memory-Efficient Exact Attention with IO-Awareness, 2022.
    """

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)


@mechanism("mha-no-output")
class AttentionWithoutOutput(MultiHeadAttention):
    """Multi-head attention that returns its heads side by side, without an output projection.

    x [B, T, d] -> [B, T, n]: H heads of width dh (d / H unless given), n = H dh. Causal if ``causal``.

    Forward   6 B T d n + 4 B T² n: three projections, scores and weighted sum
    Backward  twice the forward
    Saved     B (T d + 3 T n + H T²): x, q, k, v, the probabilities; and T² bytes of mask
    Parameters  3 d n

    The inner part of Vaswani et al., Attention Is All You Need, 2017.
    """

    def __init__(self, d: int = 64, H: int = 4, dh: int | None = None, causal: bool = False) -> None:
        super().__init__(d, H, dh, causal)
        self.out_proj = nn.Identity()


@mechanism("gqa")
class GroupedQueryAttention(Attention):
    """Grouped-query attention: groups of H / Hkv query heads share one key and value head.

    x [B, T, d] -> [B, T, d]: H query heads of width dh (d / H unless given), n = H dh, m = Hkv dh. Causal if
    ``causal``. The scores cost what those of H heads cost; projections, parameters and key-value cache shrink.

    Forward   q_proj, out_proj         2 B T d n each
              k_proj, v_proj           2 B T d m each
              scores, weighted_sum     2 B T² n each
              sum for n = d            2 B T d² (2 + 2 Hkv / H) + 4 B T² d
    Backward  twice the forward
    Saved     B (T d + 2 T n + 2 T m + H T²): x, q, the heads merged, k, v, the probabilities; and T² bytes of mask
    Parameters  2 d n + 2 d m

    Ainslie et al., GQA: Training Generalized Multi-Query Transformer Models from Multi-Head Checkpoints, 2023.
    """

    def __init__(self, d: int = 64, H: int = 4, Hkv: int = 2, dh: int | None = None, causal: bool = False) -> None:
        super().__init__(d, H, Hkv, dh, causal)


@mechanism("gqa-sdpa")
class FusedGroupedQueryAttention(GroupedQueryAttention):
    """Grouped-query attention by torch's fused kernel, which reads each key head once for its group.

    x [B, T, d] -> [B, T, d], as :class:`GroupedQueryAttention`. Causal if ``causal``.

    Forward, backward  as gqa
    Recompute  2 B T² n: the backward computes the scores again
    Saved      B (T d + 2 T n + 2 T m + H T): the logsumexp (float32) in place of the probabilities
    Parameters  2 d n + 2 d m

    Ainslie et al., GQA, 2023; Dao et al., FlashAttention, 2022.
    """

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=self.causal, enable_gqa=self.Hkv < self.H)


@mechanism("mqa")
class MultiQueryAttention(GroupedQueryAttention):
    """Multi-query attention: all H query heads share one key and value head.

    x [B, T, d] -> [B, T, d], as :class:`GroupedQueryAttention` with Hkv = 1. Causal if ``causal``.

    Forward   4 B T d n + 4 B T d dh + 4 B T² n; for n = d: 4 B T d² (1 + 1 / H) + 4 B T² d
    Backward  twice the forward
    Saved     B (T d + 2 T n + 2 T dh + H T²); and T² bytes of mask
    Parameters  2 d n + 2 d dh

    Shazeer, Fast Transformer Decoding: One Write-Head Is All You Need, 2019.
    """

    def __init__(self, d: int = 64, H: int = 4, dh: int | None = None, causal: bool = False) -> None:
        super().__init__(d, H, 1, dh, causal)


def two_sequences(B: int, T: int, S: int, d: int, **_: Any) -> tuple[Tensor, Tensor]:
    """x [B, T, d] and the memory it looks into, [B, S, d]."""
    return torch.randn(B, T, d), torch.randn(B, S, d)


@mechanism("cross-attention", shape={"B": 1, "T": 128, "S": 64}, inputs=two_sequences)
class CrossAttention(Attention):
    """Cross-attention: queries from one sequence, keys and values from another.

    x [B, T, d], memory [B, S, d] -> [B, T, d]: H heads of width dh (d / H unless given), n = H dh. Never causal.

    Forward   q_proj, out_proj         2 B T d n each
              k_proj, v_proj           2 B S d n each
              scores, weighted_sum     2 B T S n each
    Backward  twice the forward; 2 B S d n less for each of k_proj and v_proj when memory needs no gradient
    Saved     B (T d + S d + 2 T n + 2 S n + H T S): x, memory, q, the heads merged, k, v, the probabilities
    Parameters  4 d n

    Vaswani et al., Attention Is All You Need, 2017: the decoder's attention to the encoder.
    """

    def __init__(self, d: int = 64, H: int = 4, dh: int | None = None) -> None:
        super().__init__(d, H, H, dh, causal=False)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:  # type: ignore[override]
        return self.look_up(x, memory)

    def pairs(self, T: int, S: int | None = None) -> int:
        """(query, key) pairs per head: all of them."""
        return T * (T if S is None else S)
