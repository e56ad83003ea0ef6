"""A model that raises leaves the capture whole: no warning, and later calls in the right modules."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

import attnprof


class Fragile(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def forward(self, x: Tensor, *, fail: bool = False) -> Tensor:
        y: Tensor = self.inner(x)
        if fail:
            raise ValueError("on purpose")
        return y


def test_an_exception_in_the_middle() -> None:
    model = nn.ModuleDict({"fragile": Fragile(), "after": nn.Linear(8, 8)})
    x = torch.zeros(4, 8)
    with warnings.catch_warnings(), attnprof.profile(model) as prof:
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="on purpose"):
            model["fragile"](x, fail=True)
        model["after"](x)
        x @ torch.ones(8, 8)
    forward = {fqn: cost.matmul_flops for fqn, cost in prof.report().by_module(inclusive=False).items()}
    linear = 2 * 4 * 8 * 8
    assert {name: flops for name, flops in forward.items() if flops} == {
        "fragile.inner": linear,
        "after": linear,
        "(outside)": linear,
    }
