"""Two profiles of one run name modules differently; neither may use the other's numbers for a checkpoint."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import attnprof

D = 4
UNIT = 2 * D * D * D


class Inner(nn.Module):
    """A checkpoint whose first op is in no module of its own: a product, then a Linear."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.ones(D, D))
        self.linear = nn.Linear(D, D, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(lambda x: self.linear(torch.relu(x @ self.mix)).sin(), x, use_reentrant=False)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(D, D, bias=False)
        self.inner = Inner()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.first(x))


def test_each_profile_books_the_replayed_product_to_its_own_record() -> None:
    net = Net()
    with attnprof.profile() as unnamed:  # makes records of its own before the net runs, so numbers differ
        nn.Linear(D, D)(torch.ones(1, D))
        with attnprof.profile(net) as named:
            net(torch.ones(D, D)).sum().backward()
    for prof, prefix in ((named, ""), (unnamed, "(Net).")):
        own = prof.report().by_module("recompute", inclusive=False)
        booked = {name: cost.matmul_flops for name, cost in own.items() if cost.matmul_flops}
        assert booked == {f"{prefix}inner": UNIT, f"{prefix}inner.linear": UNIT}
