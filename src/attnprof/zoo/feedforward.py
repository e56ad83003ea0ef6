"""Feed-forward networks: what a transformer block does to each token on its own."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.zoo.registry import mechanism, one_of, positive

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu}


@mechanism("ffn")
class FeedForward(nn.Module):
    """Two matrices with a nonlinearity between them.

    x [..., d] -> up [..., f] -> ReLU or GELU -> down [..., d]; each token alone, so causal in any use.

    For n tokens:
        forward     up 2 n d f + down 2 n d f = 4 n d f
        backward    8 n d f: each matrix has a gradient of its weight and one of its input
        saved       n d (input of up) + n f (ReLU: its output is also the input of down) or 2 n f (GELU: its input too)
        parameters  2 d f + f + d (without ``bias``: 2 d f)

    Vaswani et al., Attention Is All You Need, 2017 (ReLU); Hendrycks and Gimpel, Gaussian Error Linear Units, 2016.
    """

    def __init__(self, d: int = 64, f: int = 256, activation: str = "relu", bias: bool = True) -> None:
        super().__init__()
        positive(d=d, f=f)
        one_of(_ACTIVATIONS, activation=activation)
        self.d, self.f, self.activation = d, f, activation
        self.up = nn.Linear(d, f, bias)
        self.down = nn.Linear(f, d, bias)

    def forward(self, x: Tensor) -> Tensor:
        activate = _ACTIVATIONS[self.activation]
        out: Tensor = self.down(activate(self.up(x)))
        return out


@mechanism("swiglu")
class SwiGLU(nn.Module):
    """Two parallel matrices, one of them a gate, and one back: down(silu(gate(x)) * up(x)).

    x [..., d] -> gate and up [..., f] -> down [..., d]; each token alone, so causal in any use.

    For n tokens:
        forward     gate 2 n d f + up 2 n d f + down 2 n d f = 6 n d f
        backward    12 n d f
        saved       n d + 4 n f: the input, gate(x), silu(gate(x)), up(x) and their product
        parameters  3 d f (with ``bias``: + 2 f + d)

    Shazeer, GLU Variants Improve Transformer, 2020.
    """

    def __init__(self, d: int = 64, f: int = 256, bias: bool = False) -> None:
        super().__init__()
        positive(d=d, f=f)
        self.d, self.f = d, f
        self.gate = nn.Linear(d, f, bias)
        self.up = nn.Linear(d, f, bias)
        self.down = nn.Linear(f, d, bias)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(F.silu(self.gate(x)) * self.up(x))
        return out
