"""The attention layer and the block whose training costs the tests state: N tokens, width d, H heads.

With P = N d² and A = N² d, a projection's forward is 2 P, and the scores and the weighted sum are 2 A each.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Multi-head attention, fused or with its scores and softmax written out."""

    def __init__(self, d: int, heads: int, fused: bool) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(d, d) for _ in range(4))
        self.heads, self.fused = heads, fused

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (self.heads, -1)).transpose(-3, -2) for layer in (self.q, self.k, self.v))
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            scores = q @ k.transpose(-2, -1) * (q.shape[-1] ** -0.5)
            y = torch.softmax(scores, dim=-1) @ v
        return self.o(y.transpose(-3, -2).flatten(-2))


class Block(nn.Module):
    """A pre-norm transformer block with a feed-forward width of 4 d."""

    def __init__(self, d: int, heads: int, fused: bool) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.attention = Attention(d, heads, fused)
        self.up, self.down = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm_1(x))
        return x + self.down(F.gelu(self.up(self.norm_2(x))))


def sizes(n: int, d: int) -> tuple[int, int]:
    """(P, A)."""
    return n * d * d, n * n * d
