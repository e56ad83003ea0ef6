"""What each counter says of small models: the tables of docs/other-tools.md, made by counting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor, nn

import attnprof
from attnprof import zoo
from crosscheck.models import Call, Routed, attend

B, T, D, H = 2, 64, 32, 4


@dataclass(frozen=True)
class Case:
    """A row: what runs, in the words of the table, and how."""

    name: str
    build: Callable[[], tuple[nn.Module, tuple[Any, ...]]]
    how: dict[str, Any] = field(default_factory=dict)
    no_grad: bool = False


def _x(*shape: int) -> Tensor:
    return torch.randn(*shape, requires_grad=True)


def _conv(**options: Any) -> Callable[[], tuple[nn.Module, tuple[Any, ...]]]:
    return lambda: (nn.Conv2d(D, D, 3, padding=1, **options), (_x(B, D, 8, 8),))


def _layer() -> tuple[nn.Module, tuple[Any, ...]]:
    return nn.TransformerEncoderLayer(D, H, 4 * D, batch_first=True).eval(), (torch.randn(B, T, D),)


def _tensor(*shape: int) -> tuple[Any, ...]:
    return (torch.randn(*shape),)


def _causal(weight: Tensor, x: Tensor) -> Tensor:
    return attend(weight, x, is_causal=True)


FORWARD = (
    Case("`Linear`", lambda: (nn.Linear(D, D), (_x(B, T, D),))),
    Case("`Conv2d`", _conv()),
    Case("`Conv2d`, depthwise", _conv(groups=D)),
    Case("`LayerNorm`", lambda: (nn.LayerNorm(D), (_x(B, T, D),))),
    Case("`GELU`", lambda: (nn.GELU(), (_x(B, T, D),))),
    Case("`LSTM`", lambda: (nn.LSTM(D, D, batch_first=True), (_x(B, T, D),))),
    Case("`MultiheadAttention`", lambda: (nn.MultiheadAttention(D, H, batch_first=True), (_x(B, T, D),) * 3)),
    Case("attention by SDPA (`zoo: sdpa`)", lambda: (zoo.build("sdpa", d=D, H=H), (_x(B, T, D),))),
    Case("SDPA, causal", lambda: (Call(_causal, D), _tensor(B, H, T, D))),
    Case("`TransformerEncoderLayer`, training", lambda: (_layer()[0].train(), _layer()[1])),
    Case("the same, evaluation, `no_grad`", _layer, no_grad=True),
    Case("`W @ x`, x batched", lambda: (Call(lambda w, x: w @ x, D), _tensor(B, H, D, T))),
    Case("mixture of experts, routed", lambda: (Routed(), _tensor(B * T, 4))),
    Case("`x @ W`, and `W @ W` unused", lambda: (Call(lambda w, x: (w @ w, x @ w)[1], D), _tensor(T, D))),
)
BACKWARD = (
    Case("`Linear`", lambda: (nn.Linear(D, D), (_x(B, T, D),))),
    Case("`Conv2d`", _conv()),
    Case("`Conv2d`, 4 groups", _conv(groups=4)),
    Case("`Conv2d`, depthwise", _conv(groups=D)),
    Case("`LSTM`", lambda: (nn.LSTM(D, D, batch_first=True), (_x(B, T, D),))),
    Case("`MultiheadAttention`", lambda: (nn.MultiheadAttention(D, H, batch_first=True), (_x(B, T, D),) * 3)),
    Case("attention by SDPA (`zoo: sdpa`)", lambda: (zoo.build("sdpa", d=D, H=H), (_x(B, T, D),))),
    Case("SDPA, causal", lambda: (Call(_causal, D), _tensor(B, H, T, D))),
    Case("`Linear` and a step of AdamW", lambda: (nn.Linear(D, D), _tensor(B, T, D)), {"optimizer": "adamw"}),
)


def forward_table() -> str:
    """The forwards: FLOPs of contractions, of theory, and of the rest, then what the others say."""
    rows = []
    for case in FORWARD:
        report = _counted(case, "torch,fvcore")
        torch_, fvcore = (check.total for check in report.crosschecks)
        assert torch_ is not None
        assert fvcore is not None
        told = f"{fvcore.said:,}" + ("" if fvcore.said == fvcore.theirs else f" → {fvcore.theirs:,}")
        rows.append([case.name, *_ours(report), f"{torch_.theirs:,}", told])
    return _table(["forward", "theory", "matmul", "vector", "torch", "fvcore → FLOPs"], rows)


def backward_table() -> str:
    """With the backward, which fvcore has not."""
    rows = []
    for case in BACKWARD:
        report = _counted(case, "torch", backward=True)
        (check,) = report.crosschecks
        assert check.total is not None
        ratio = f"{check.total.theirs / check.total.matmul:.2f}"
        rows.append([case.name, *_ours(report), f"{check.total.theirs:,}", ratio])
    return _table(["forward and backward", "theory", "matmul", "vector", "torch", "torch ÷ matmul"], rows)


def _counted(case: Case, tools: str, **how: Any) -> attnprof.Report:
    torch.manual_seed(0)
    model, args = case.build()
    with torch.set_grad_enabled(not case.no_grad):
        report = attnprof.crosscheck(model, args, tools=tools, **{**how, **case.how})
    for check in report.crosschecks:
        assert check.unexplained == 0
    return report


def _ours(report: attnprof.Report) -> list[str]:
    """What theory predicts of the whole, if it does, and both kinds of FLOPs as they were counted."""
    whole = [c for c in report.comparisons if not c.module and c.quantity == "matmul_flops"]
    known = whole and not any(c.uncovered for c in whole)
    theory = f"{sum(c.predicted for c in whole):,}" if known else "–"
    return [theory, f"{report.total.matmul_flops:,}", f"{report.total.vector_flops:,}"]


def _table(headings: list[str], rows: list[list[str]]) -> str:
    align = ("left", *("right" for _ in headings[1:]))
    return tabulate(rows, headings, tablefmt="pipe", disable_numparse=True, colalign=align)


#: The tables of the page, by the names that it marks them with.
TABLES = {"forward": forward_table, "backward": backward_table}
