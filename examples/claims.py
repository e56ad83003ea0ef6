"""Three claims about attention, as models that ``attnprof scale`` builds at any size.

    attnprof scale examples/claims.py:frozen_qk --vary N=128..4096 --phase backward --claim "O(N*d^2)"
    attnprof scale examples/claims.py:masked_window --vary T=128..4096 --claim "O(T*w*d + T*d^2)"
    attnprof scale examples/claims.py:attention --vary N=128..4096 --claim "6*s*d^2 + 4*s^2*d"

A builder takes sizes by name and returns a model with the arguments of one call. Sizes that do not vary have the
values they have here.
"""

# ruff: noqa: N803, N806 - sizes have the names that papers give them
from __future__ import annotations

import torch
from torch import Tensor, nn


class Attend(nn.Module):
    """softmax(Q Kᵀ / √dh) V of H heads; with a window, what is further back than w tokens is masked."""

    def __init__(self, H: int, w: int | None = None) -> None:
        super().__init__()
        self.H, self.w = H, w

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        N, d = q.shape[-2:]
        q, k, v = (x.unflatten(-1, (self.H, d // self.H)).transpose(1, 2) for x in (q, k, v))
        scores = q @ k.transpose(-1, -2) / (d // self.H) ** 0.5
        if self.w is not None:
            position = torch.arange(N, device=q.device)
            distance = position[:, None] - position
            scores = scores.masked_fill((distance < 0) | (distance >= self.w), float("-inf"))
        return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """Four projections around :class:`Attend`."""

    def __init__(self, d: int, H: int, w: int | None = None) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(d, d, bias=False) for _ in range(4))
        self.attend = Attend(H, w)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.attend(self.query(x), self.key(x), self.value(x)))


def attention(N: int = 512, d: int = 768, H: int = 12) -> tuple[nn.Module, tuple[Tensor]]:
    """Self-attention over N tokens of width d."""
    return Attention(d, H), (torch.randn(1, N, d, requires_grad=True),)


def frozen_qk(N: int = 512, d: int = 768, H: int = 12) -> tuple[nn.Module, tuple[Tensor]]:
    """The same, the query and key projections frozen: is its backward linear in N?"""
    model, inputs = attention(N, d, H)
    for projection in (model.query, model.key):
        projection.requires_grad_(False)
    return model, inputs


def masked_window(T: int = 512, w: int = 64, d: int = 256, H: int = 4) -> tuple[nn.Module, tuple[Tensor]]:
    """A causal window of w tokens, by masking all scores: is it linear in T?"""
    return Attention(d, H, w), (torch.randn(1, T, d),)
