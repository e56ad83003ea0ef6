"""Models that other counters see in other ways, with the arguments of one call."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import attnprof

Build = Callable[[], tuple[nn.Module, tuple[Any, ...]]]


class Call(nn.Module):
    """A function of tensors as a module, with a square weight."""

    def __init__(self, function: Callable[..., Any], width: int = 4) -> None:
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.randn(width, width))

    def forward(self, *tensors: Tensor) -> Any:
        return self.function(self.weight, *tensors)


class Siblings(nn.Module):
    """Three projections of one input, behind a dropout that drops nothing."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.first = nn.Linear(width, width, bias=False)
        self.drop = nn.Dropout(0.0)
        self.q = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(width, width, bias=False)
        self.v = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(self.first(x))
        found: Tensor = self.q(x) + self.k(x) + self.v(x)
        return found


class Shared(nn.Module):
    """One Linear under three names, called three times."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.b = self.a
        self.c = nn.Sequential(self.a, nn.ReLU())

    def forward(self, x: Tensor) -> Any:
        return self.b(self.c(self.a(x)))


class Recursive(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)

    def forward(self, x: Tensor, times: int = 2) -> Any:
        return self(self.a(x), times - 1) if times else x


class Direct(nn.Module):
    """Calls a part of it by ``forward``, which no hook sees."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Any:
        return self.a.forward(x)


class Named(nn.Module):
    """Takes what no trace takes, and returns what no trace returns."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)

    def forward(self, x: Tensor, scale: float = 2.0, mask: Tensor | None = None) -> dict[str, Any]:
        y = self.a(x) * scale
        return {"y": y if mask is None else y * mask, "count": 3, "none": None}


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
        self.last = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Any:
        return self.last(checkpoint(self.inner, x, use_reentrant=False))


class Routed(nn.Module):
    """Experts that are given the rows that a gate sends them: how many depends on values."""

    def __init__(self, experts: int = 3) -> None:
        super().__init__()
        self.gate = nn.Linear(4, experts)
        self.experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(experts))

    def forward(self, x: Tensor) -> Tensor:
        chosen, out = self.gate(x).argmax(-1), torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            rows = (chosen == i).nonzero().squeeze(-1)
            if rows.numel():
                out = out.index_add(0, rows, expert(x[rows]))
        return out


class MadeAnew(nn.Module):
    """Makes a part of itself in each call."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Any:
        return nn.Softmax(-1)(self.a(x))


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return a @ b

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        a, b = ctx.saved_tensors
        return gradient @ b.T, a.T @ gradient


def _norms() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.GroupNorm(2, 4), nn.Upsample(scale_factor=2),
        nn.InstanceNorm2d(4), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3), nn.LayerNorm(3),
    )  # fmt: skip


def attend(weight: Tensor, x: Tensor, **options: Any) -> Tensor:
    return F.scaled_dot_product_attention(x @ weight, x, x, **options)


def _image(channels: int = 4, size: int = 9) -> Tensor:
    return torch.randn(2, channels, size, size, requires_grad=True)


def _encoder(**options: Any) -> nn.Module:
    return nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, **options)


MODELS: dict[str, Build] = {
    "mlp": lambda: (nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 2)), (torch.randn(3, 4),)),
    "conv": lambda: (nn.Conv2d(4, 8, 3, padding=1), (_image(),)),
    "grouped conv": lambda: (nn.Conv2d(4, 8, 3, groups=2), (_image(),)),
    "depthwise conv": lambda: (nn.Conv2d(4, 4, 3, groups=4), (_image(),)),
    "transposed conv": lambda: (nn.ConvTranspose2d(4, 8, 3, stride=2), (_image(),)),
    "grouped transposed conv": lambda: (nn.ConvTranspose2d(4, 8, 3, stride=2, groups=2), (_image(),)),
    "unbatched conv": lambda: (nn.Conv1d(4, 8, 3), (torch.randn(4, 9),)),
    "complex conv": lambda: (nn.Conv1d(4, 8, 3, dtype=torch.complex64), (torch.randn(2, 4, 9, dtype=torch.complex64),)),
    "complex linear": lambda: (nn.Linear(4, 8, dtype=torch.complex64), (torch.randn(2, 4, dtype=torch.complex64),)),
    "norms": lambda: (_norms(), (_image(3, 8),)),
    "LSTM": lambda: (nn.LSTM(4, 5, batch_first=True), (torch.randn(2, 3, 4),)),
    "projected LSTM": lambda: (nn.LSTM(4, 6, 2, proj_size=3, bidirectional=True), (torch.randn(3, 2, 4),)),
    "GRU": lambda: (nn.GRU(4, 5), (torch.randn(3, 2, 4),)),
    "RNN": lambda: (nn.RNN(4, 5), (torch.randn(3, 2, 4),)),
    "LSTM cell": lambda: (nn.LSTMCell(4, 5), (torch.randn(2, 4),)),
    "MHA": lambda: (nn.MultiheadAttention(16, 4, batch_first=True), (torch.randn(2, 5, 16),) * 3),
    "encoder layer": lambda: (_encoder(), (torch.randn(2, 5, 16),)),
    "encoder layer, eval": lambda: (_encoder().eval(), (torch.randn(2, 5, 16),)),
    "transformer": lambda: (nn.Transformer(16, 4, 1, 1, 32, batch_first=True), (torch.randn(2, 5, 16),) * 2),
    "bilinear": lambda: (nn.Bilinear(3, 4, 5), (torch.randn(2, 3), torch.randn(2, 4))),
    "SDPA": lambda: (Call(attend), (torch.randn(2, 3, 5, 4),)),
    "causal SDPA": lambda: (Call(lambda w, x: attend(w, x, is_causal=True)), (torch.randn(2, 3, 5, 4),)),
    "einsum": lambda: (Call(lambda w, x: torch.einsum("bij,jk->bik", x, w)), (torch.randn(2, 3, 4),)),
    "outer einsum": lambda: (Call(lambda w, x: torch.einsum("bi,jk->bijk", x, w)), (torch.randn(2, 3),)),
    "matmul, second batched": lambda: (Call(lambda w, x: w @ x), (torch.randn(3, 4, 7),)),
    "baddbmm": lambda: (Call(lambda w, a, b: torch.baddbmm(w, a, b)), (torch.randn(2, 4, 3), torch.randn(2, 3, 4))),
    "linalg.matmul": lambda: (Call(lambda w, x: torch.linalg.matmul(w, x)), (torch.randn(4, 3),)),
    "fft": lambda: (Call(lambda w, x: torch.fft.fft(x @ w).abs()), (torch.randn(3, 4),)),
    "cdist": lambda: (Call(lambda w, x: torch.cdist(x, w)), (torch.randn(30, 4),)),
    "solve": lambda: (Call(lambda w, x: torch.linalg.solve(w, x)), (torch.randn(4, 3),)),
    "unused": lambda: (Call(lambda w, x: (w @ w @ w, x @ w)[1]), (torch.randn(3, 4),)),
    "autograd.Function": lambda: (Call(lambda w, x: _Product.apply(x, w).relu()), (torch.randn(3, 4),)),
    "siblings": lambda: (Siblings(), (torch.randn(2, 5, 4),)),
    "shared": lambda: (Shared(), (torch.randn(2, 4),)),
    "recursive": lambda: (Recursive(), (torch.randn(2, 4),)),
    "direct": lambda: (Direct(), (torch.randn(2, 4),)),
    "dict out": lambda: (Named(), (torch.randn(2, 4), 3.0, torch.ones(2, 4))),
    "checkpointed": lambda: (Checkpointed(), (torch.randn(2, 4),)),
    "routed": lambda: (Routed(), (torch.randn(9, 4),)),
    "made anew": lambda: (MadeAnew(), (torch.randn(3, 4),)),
}  # fmt: skip


@cache
def report_of(name: str) -> attnprof.Report:
    """A training step of one of these, cross-checked with all counters; counted once for all tests."""
    torch.manual_seed(0)
    model, args = MODELS[name]()
    return attnprof.crosscheck(model, args, backward=True)
