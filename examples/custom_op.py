"""Price an op of your own: `attnprof run examples/custom_op.py:build`.

An op that attnprof does not know is never counted as zero without a word: every report names it, and
`--strict` refuses it. One function gives it a price.
"""

import torch
from torch import Tensor, nn

import attnprof


@torch.library.custom_op("mylib::scaled_square", mutates_args=())
def scaled_square(x: Tensor, weight: Tensor) -> Tensor:
    """(x W)², one fused kernel in real life."""
    return (x @ weight).square()


@scaled_square.register_fake
def _(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[1])


@attnprof.cost("mylib::scaled_square")
def scaled_square_cost(op: attnprof.OpSignature) -> attnprof.Work:
    """[m, k] x [k, n]: k multiply-adds per output, then one multiplication each."""
    m, k = op.tensor("x").shape
    n = op.tensor("weight").shape[1]
    return attnprof.Work(matmul=2 * m * k * n, vector=m * n)


class Squared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(128, 256))

    def forward(self, x: Tensor) -> Tensor:
        return scaled_square(x, self.weight)


def build() -> tuple[nn.Module, tuple[Tensor]]:
    return Squared().requires_grad_(False), (torch.randn(32, 128),)
