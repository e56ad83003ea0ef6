"""Multi-head latent attention: keys and values of all heads are made from one short vector per token.

That vector and a key for positions that all heads share are all a decoder has to cache. When decoding, the
projection that would make keys of the latent vectors is applied to the query instead, and the one that would make
values to their average: no key or value of any earlier token is ever made.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from attnprof.core.errors import AttnprofError
from attnprof.zoo.attention import attend, head_width, merge_heads, split_heads
from attnprof.zoo.decoding import tokens_before
from attnprof.zoo.registry import mechanism, positive


def rotate(x: Tensor, start: int, base: float = 10_000.0) -> Tensor:
    """Turn each pair of x [..., T, dr] by an angle that grows with its position, counted from ``start``."""
    T, dr = x.shape[-2:]
    precise = torch.promote_types(x.dtype, torch.float32)
    positions = torch.arange(start, start + T, dtype=precise, device=x.device)
    speeds = base ** (-torch.arange(0, dr, 2, dtype=precise, device=x.device) / dr)
    angles = positions[:, None] * speeds  # [T, dr / 2]
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2)


def per_head(x: Tensor, weights: Tensor) -> Tensor:
    """x [B, H, T, a] times weights [H, a, b] -> [B, H, T, b]: one product per head for all samples."""
    B, _, T, _ = x.shape
    y: Tensor = (x.transpose(0, 1).flatten(1, 2) @ weights).unflatten(1, (B, T))
    return y.transpose(0, 1)


@mechanism("mla")
class MultiHeadLatentAttention(nn.Module):
    """Multi-head latent attention as in training and prefill: keys and values are made from the latent vectors.

    x [B, T, d] -> [B, T, d]: H heads of width dh (d / H unless given), n = H dh, and dr more for positions in
    queries and keys; latent vectors of width dc for keys and values, dq for queries (None: queries straight from
    x). Causal unless ``causal`` is False.

    Forward   q_down                  2 B T d dq
              q_up                    2 B T dq H (dh + dr); without dq, q_up from x: 2 B T d H (dh + dr)
              kv_down                 2 B T d (dc + dr)
              k_up, v_up              2 B T dc n each
              scores                  2 B T² H (dh + dr)
              weighted_sum            2 B T² n
              out_proj                2 B T n d
    Backward  twice the forward
    Saved     B (T d + T (3 dq + 1) + T (3 dc + 2 dr + 1) + 2 T H (dh + dr) + 2 T n + H T²) + 2 T dr: x; each latent
              vector before, within and after its norm (nothing for dq None), with its scale; q, k; v, the heads
              merged; the probabilities; sines and cosines, once for all samples; and T² bytes of mask
    Parameters  d dq + dq + dq H (dh + dr), or d H (dh + dr); d (dc + dr) + dc + 2 dc n + n d

    DeepSeek-AI, DeepSeek-V2: A Strong, Economical, and Efficient Mixture-of-Experts Language Model, 2024; the
    rotation: Su et al., RoFormer: Enhanced Transformer with Rotary Position Embedding, 2021.
    """

    def __init__(
        self,
        d: int = 64,
        H: int = 4,
        dh: int | None = None,
        dr: int = 8,
        dc: int = 32,
        dq: int | None = 48,
        causal: bool = True,
    ) -> None:
        super().__init__()
        positive(dr=dr, dc=dc)
        if dr % 2:
            raise AttnprofError(f"dr must be even, since positions turn pairs of numbers: dr={dr}.")
        self.d, self.H, self.dh, self.dr, self.dc, self.dq = d, H, head_width(d, H, dh), dr, dc, dq
        self.causal = causal
        n, width = H * self.dh, H * (self.dh + dr)
        if dq is None:
            self.q_down: nn.Module = nn.Identity()
            self.q_up = nn.Linear(d, width, bias=False)
        else:
            positive(dq=dq)
            self.q_down = nn.Sequential(nn.Linear(d, dq, bias=False), nn.RMSNorm(dq, eps=1e-6))
            self.q_up = nn.Linear(dq, width, bias=False)
        self.kv_down = nn.Linear(d, dc + dr, bias=False)
        self.kv_norm = nn.RMSNorm(dc, eps=1e-6)
        self.k_up, self.v_up = nn.Linear(dc, n, bias=False), nn.Linear(dc, n, bias=False)
        self.out_proj = nn.Linear(n, d, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        content, position = self.queries(x, start=0)
        latent, shared = self.latents(x, start=0).split([self.dc, self.dr], -1)
        q = torch.cat([content, position], -1)
        k = torch.cat([split_heads(self.k_up(latent), self.H), shared.unsqueeze(1).expand(-1, self.H, -1, -1)], -1)
        y: Tensor = self.out_proj(merge_heads(attend(q, k, split_heads(self.v_up(latent), self.H), self.causal)))
        return y

    def queries(self, x: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """The part of the queries that meets contents [B, H, T, dh] and that for positions [B, H, T, dr]."""
        content, position = split_heads(self.q_up(self.q_down(x)), self.H).split([self.dh, self.dr], -1)
        return content, rotate(position, start)

    def latents(self, x: Tensor, start: int) -> Tensor:
        """All there is to remember of each token: [B, T, dc + dr], its latent vector and its key for positions."""
        latent, position = self.kv_down(x).split([self.dc, self.dr], -1)
        return torch.cat([self.kv_norm(latent), rotate(position, start)], -1)

    def pairs(self, T: int) -> int:
        """(query, key) pairs per head that are not masked. The work done is that of all T * T."""
        return T * (T + 1) // 2 if self.causal else T * T


def step_inputs(B: int, T: int, S: int, d: int, dc: int, dr: int, **_: Any) -> tuple[Tensor, Tensor]:
    """T new tokens [B, T, d], and the cache of those before: S tokens in all."""
    return torch.randn(B, T, d), torch.randn(B, tokens_before(S, T), dc + dr)


@mechanism("mla-decode", shape={"B": 1, "T": 1, "S": 128}, inputs=step_inputs)
class LatentDecoding(MultiHeadLatentAttention):
    """A decoding step of multi-head latent attention, whose cache is the latent vectors.

    x [B, T, d], kv_cache [B, S - T, dc + dr] or None -> y [B, T, d], kv_cache [B, S, dc + dr]. S counts the T new
    tokens too. The same weights and outputs as :class:`MultiHeadLatentAttention`; all heads look at one key per
    token, the latent vector itself. Causal.

    Forward   q_down, q_up, kv_down, out_proj   as mla
              absorb_k, v_up                    2 B T n dc each: of the new tokens' queries and averages only
              scores                            2 B T S H (dc + dr)
              weighted_sum                      2 B T S H dc
    Backward  twice the forward
    Saved     B (T d + T (3 dq + 1) + T (2 dc + dr + 1) + T H (dh + dr) + T H (dc + dr) + S (dc + dr) + H T S
              + T H dc + T n) + 2 T dr: as mla up to the queries, before and after absorbing; the cache, the
              probabilities, the averages, the heads merged, sines and cosines; and T S bytes of mask when T > 1
    Parameters  as mla
    Cache     B S (dc + dr) numbers, where heads of keys and values would take 2 B S n

    DeepSeek-AI, DeepSeek-V2, 2024.
    """

    def __init__(
        self, d: int = 64, H: int = 4, dh: int | None = None, dr: int = 8, dc: int = 32, dq: int | None = 48
    ) -> None:
        super().__init__(d, H, dh, dr, dc, dq, causal=True)

    def forward(self, x: Tensor, kv_cache: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        start = 0 if kv_cache is None else kv_cache.shape[1]
        content, position = self.queries(x, start)
        latents = self.latents(x, start)
        kv_cache = latents if kv_cache is None else torch.cat([kv_cache, latents], 1)

        k_up = self.k_up.weight.unflatten(0, (self.H, self.dh))  # [H, dh, dc]
        v_up = self.v_up.weight.unflatten(0, (self.H, self.dh))
        q = torch.cat([per_head(content, k_up), position], -1)  # [B, H, T, dc + dr]
        k = kv_cache.unsqueeze(1)  # one key for all heads: [B, 1, S, dc + dr]
        scale = (self.dh + self.dr) ** -0.5
        averages = attend(q, k, k[..., : self.dc], causal=x.shape[1] > 1, scale=scale)  # [B, H, T, dc]
        return self.out_proj(merge_heads(per_head(averages, v_up.transpose(1, 2)))), kv_cache
