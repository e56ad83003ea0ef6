"""What tests of sparse attention share: the pattern as a rule on (query, key), the pairs that the counts show."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from zoo.checks import attention_by_position, by_sample_and_head, counted, pairs_of, shapes

Rule = Callable[[int, int], bool]


def masked_attention(net: Any, sees: Rule) -> Callable[[Tensor], Tensor]:
    """The module's projections, around a softmax over the keys that the rule keeps, one query after the other."""

    def forward(x: Tensor) -> Tensor:
        q, k, v = (x @ layer.weight.T for layer in (net.q_proj, net.k_proj, net.v_proj))
        y = by_sample_and_head(q, k, v, net.H, net.H, lambda *qkv: attention_by_position(*qkv, sees))
        return y @ net.out_proj.weight.T

    return forward


def assert_executes(
    build: Callable[..., Any], pairs: Callable[..., int], seed: int, part: str | None = None, **ranges: int
) -> None:
    """At random shapes the matmul FLOPs are the four projections' and 4 dh per head and executed pair.

    A projection is 2 B T d n with n = H dh; scores and weighted sum are 2 dh per pair each; the backward has for
    every product one for each of its factors. ``pairs``: of the module and T, how many a head executes;
    ``ranges``: the symbols to draw, each from 1 to its value; T is a multiple of that called ``part``.
    """
    for at in shapes(seed):
        B, T, H, dh = at.randint(1, 2), at.randint(1, 20), at.randint(1, 3), at.randint(1, 5)
        d = at.choice([H * dh, at.randint(1, 12)])
        symbols = {name: at.randint(1, most) for name, most in ranges.items()}
        T += -T % symbols[part] if part else 0
        net = build(d=d, H=H, dh=dh, **symbols)
        n, executed = H * dh, pairs(T=T, **symbols)
        flops = counted(net, torch.randn(B, T, d))
        assert flops.forward - 4 * 2 * B * T * d * n == 4 * dh * H * B * executed
        assert (flops.backward, flops.recompute) == (2 * flops.forward, 0)
        assert net.executed_pairs(T) == executed
        assert net.executed_pairs(T) >= net.pairs(T)
        assert sum(p.numel() for p in net.parameters()) == 4 * d * n


def assert_keeps(net: Any, sees: Rule, *lengths: int) -> None:
    """``pairs(T)`` is how many pairs the rule keeps."""
    for T in lengths:
        assert net.pairs(T) == pairs_of(sees, T)
