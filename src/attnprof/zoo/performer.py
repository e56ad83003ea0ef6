"""Performer: softmax attention approximated by a linear one over random features of queries and keys."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnprof.zoo.attention import MultiHeadAttention
from attnprof.zoo.linear import linear_attention
from attnprof.zoo.registry import mechanism, positive


def orthogonal_features(r: int, dh: int) -> Tensor:
    """r random directions [r, dh], each as long as a normal vector; those within a block of dh are orthogonal."""
    blocks = [nn.init.orthogonal_(torch.empty(dh, dh)) for _ in range(0, r, dh)]  # uniform, as a bare QR is not
    lengths = torch.randn(r, dh).norm(dim=1, keepdim=True)
    directions: Tensor = torch.cat(blocks)[:r] * lengths
    return directions


def positive_features(x: Tensor, directions: Tensor, over: tuple[int, ...], eps: float) -> Tensor:
    """exp(ω·x - |x|² / 2) for each direction ω, whose products average to exp(x·y): [B, H, T, dh] -> [B, H, T, r].

    The largest exponent over the dimensions ``over`` is subtracted, so that nothing overflows; it cancels in
    the division by the normaliser. ``eps`` keeps that away from zero.
    """
    exponents = x @ directions.T - x.square().sum(-1, keepdim=True) / 2
    return torch.exp(exponents - exponents.amax(over, keepdim=True).detach()) + eps


@mechanism("performer")
class Performer(MultiHeadAttention):
    """Performer (FAVOR+): softmax attention approximated with r positive orthogonal random features.

    x [B, T, d] -> [B, T, d]: H heads of width dh (d / H unless given), n = H dh; all heads share the directions
    [r, dh], a buffer, which :meth:`redraw` draws anew. Not causal.

    Forward   projections              8 B T d n
              q_features, k_features   2 B T n r each
              state Σ φ(k) vᵀ          2 B T r n
              read φ(q) state          2 B T r n
              normaliser φ(q) Σ φ(k)   2 B T r H
              sum for n = d            8 B T d² + 8 B T r d + 2 B T r H
    Backward  projections 16 B T d n; features 2 B T n r each, since the directions need no gradient; the rest twice
              the forward: for n = d 16 B T d² + 12 B T r d + 4 B T r H
    Saved     B (T d + 5 T n + 4 H T r + H T + n r + H r): x, q, k, v, the weighted sum, the heads merged; the
              exponentials and φ of queries and keys; the normaliser; state and Σ φ(k)
    Parameters  4 d n, and a buffer of r dh

    It pays against 4 B T² d only where 8 r + 2 r H / d < 4 T.

    Choromanski et al., Rethinking Attention with Performers, 2021.
    """

    directions: Tensor

    def __init__(self, d: int = 64, H: int = 4, dh: int | None = None, r: int = 32, eps: float = 1e-6) -> None:
        super().__init__(d, H, dh)
        positive(r=r)
        self.r, self.eps = r, eps
        self.register_buffer("directions", orthogonal_features(r, self.dh))

    def redraw(self) -> None:
        """Draw other directions, as one does every so often in training."""
        self.directions.copy_(orthogonal_features(self.r, self.dh))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k = (x * self.dh**-0.25 for x in (q, k))  # together the 1 / √dh of the scores
        queries = positive_features(q, self.directions, over=(-1,), eps=self.eps)
        keys = positive_features(k, self.directions, over=(-2, -1), eps=self.eps)
        return linear_attention(queries, keys, v)
