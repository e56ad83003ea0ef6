"""A small training loop whose optimizer is to be counted, and the sizes that counts are stated in."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

import attnprof
from training.counts import phase_vector, steps

ROWS, D, HIDDEN, OUT = 5, 3, 7, 2
#: Shapes of the trained tensors.
MATRICES = ((HIDDEN, D), (OUT, HIDDEN))
VECTORS = (HIDDEN, OUT)
#: Trained elements, and trained tensors: a step counter each.
N = sum(m * n for m, n in MATRICES) + sum(VECTORS)
P = len(MATRICES) + len(VECTORS)
F32 = 4  # bytes

LOOP, FOREACH, FUSED = {"foreach": False}, {"foreach": True}, {"fused": True}


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(D, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, OUT))


def trained(build: Callable[[nn.Module], torch.optim.Optimizer], count: int) -> attnprof.Report:
    """Steps of a training loop, each ended with ``prof.step()``; no op of them is unpriced."""
    torch.manual_seed(0)
    model = net()
    optimizer = build(model)
    with attnprof.profile(model, recount_every=1) as prof:
        for _ in range(count):
            model(torch.randn(ROWS, D)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            prof.step()
    report = prof.report()
    assert report.unpriced == {}
    return report


def step_flops(build: Callable[[nn.Module], torch.optim.Optimizer], count: int) -> list[tuple[int, int]]:
    """Per step the vector FLOPs that create state, and those of a steady step."""
    found = steps(trained(build, count))
    return [(phase_vector(step, "optimizer_init"), phase_vector(step, "optimizer")) for step in found]
