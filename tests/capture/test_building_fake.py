"""Models built fake can be converted while they are built: `.to(dtype)`, `.half()`, tied weights kept tied."""

from __future__ import annotations

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

import attnprof


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wte = nn.Embedding(1000, 64)
        self.head = nn.Linear(64, 1000, bias=False)
        self.head.weight = self.wte.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.wte(ids))
        return out


def test_conversions_while_building() -> None:
    before = nn.Module._apply
    with attnprof.fake_tensors():
        model = Tied().to(torch.bfloat16).half().double()
        ids = torch.zeros(2, 8, dtype=torch.int64)
    assert nn.Module._apply is before
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert model.head.weight is model.wte.weight
    assert all(isinstance(p, FakeTensor) for p in model.parameters())
    report = attnprof.run(model, (ids,), fake=True)
    assert report.by_module()["head"].matmul_flops == 2 * (2 * 8) * 64 * 1000
