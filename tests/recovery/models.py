"""Functions of sizes and small modules whose counts are known, to be recovered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from attnprof.recovery.domain import domain
from attnprof.recovery.outcome import Outcome, Sizes
from attnprof.recovery.recover import Recovery


def recovered(count: Callable[..., int], **sizes: Any) -> tuple[Outcome, Recovery]:
    """What is found of a function of sizes, and what was counted for it."""

    def measure(at: Sizes) -> Mapping[str, int]:
        return {"count": count(**at)}

    recovery = Recovery(measure, [domain(name, given) for name, given in sizes.items()])
    return recovery.outcome("count"), recovery


class LastKeys(nn.Module):
    """Attention to the last w keys alone, or to all where there are fewer."""

    def __init__(self, w: int) -> None:
        super().__init__()
        self.w = w

    def forward(self, x: Tensor) -> Tensor:
        keys = x[:, -self.w :]
        return (x @ keys.mT).softmax(-1) @ keys


class Padded(nn.Module):
    """A linear layer on a sequence padded to a multiple of a block."""

    def __init__(self, d: int, block: int) -> None:
        super().__init__()
        self.block = block
        self.linear = nn.Linear(d, d)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(nn.functional.pad(x, (0, 0, 0, -x.shape[1] % self.block)))  # type: ignore[no-any-return]


class Switched(nn.Module):
    """All pairs up to a length, and sums of neighbours beyond it."""

    def __init__(self, longest: int) -> None:
        super().__init__()
        self.longest = longest

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] <= self.longest:
            return x @ x.mT @ x
        return x @ torch.ones(x.shape[-1], x.shape[-1])


class Doubling(nn.Module):
    """Prefix sums by rounds of doubling reach: ceil(log2 T) products with a d x d matrix of the whole sequence."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d, d))

    def forward(self, x: Tensor) -> Tensor:
        reach = 1
        while reach < x.shape[1]:
            x = (x + nn.functional.pad(x, (0, 0, reach, 0))[:, : x.shape[1]]) @ self.weight
            reach *= 2
        return x


class Routed(nn.Module):
    """Each token to one of two experts, by the sign of its first number."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.small, self.large = nn.Linear(d, d), nn.Linear(d, 2 * d)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        chosen = x[:, 0] > 0
        return self.small(x[chosen]), self.large(x[~chosen])


class Layers(nn.Module):
    """So many blocks alike, and a head."""

    def __init__(self, d: int, L: int) -> None:  # noqa: N803 - the symbols of formulas
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(d, d), nn.ReLU()) for _ in range(L))
        self.head = nn.Linear(d, 3)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)  # type: ignore[no-any-return]
