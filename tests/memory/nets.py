"""The modules whose saved activations have a closed form, and what those are for N tokens of width d."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from training.attention import Block


class Applied(nn.Module):
    """A module around one function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any) -> Any:
        return self.function(*args)


class ReluFFN(nn.Module):
    """Two matrices with a ReLU between them."""

    def __init__(self, d: int, f: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(d, f), nn.Linear(f, d)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.relu(self.up(x)))


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x))."""

    def __init__(self, d: int, f: int) -> None:
        super().__init__()
        self.gate, self.up, self.down = (nn.Linear(*s, bias=False) for s in ((d, f), (d, f), (f, d)))

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Stack(nn.Module):
    """L blocks, one after the other."""

    def __init__(self, layers: int, d: int, heads: int, fused: bool = False) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(d, heads, fused) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def probabilities(batch: int, tokens: int, heads: int, width: int, fused: bool) -> int:
    """Bytes that the softmax of attention leaves: its output, or of a fused one a float32 logsumexp per row."""
    return batch * heads * tokens * (4 if fused else tokens * width)


def attention_bytes(batch: int, tokens: int, d: int, heads: int, width: int, fused: bool) -> int:
    """The input, q, k, v, the weighted sum that is the output projection's input; and the probabilities."""
    return width * 5 * batch * tokens * d + probabilities(batch, tokens, heads, width, fused)


def block_bytes(batch: int, tokens: int, d: int, heads: int, width: int, fused: bool) -> int:
    """Two norms (input, mean and rstd per token), attention (5 N d), the feed-forward (input, 4 d before and
    after the GELU): N d (2 + 5 + 1 + 4 + 4) + 4 N, and the probabilities."""
    return width * batch * tokens * (16 * d + 4) + probabilities(batch, tokens, heads, width, fused)
