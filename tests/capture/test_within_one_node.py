"""Ops that one autograd node runs before and after something else ran inside it; outputs that a node keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attnprof
from attnprof.core.trace import Trace
from support import ops_of

D = 4


class _Around(torch.autograd.Function):
    """The identity. Its backward: a product, ``between``, another product."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, between: Callable[[Tensor], Any]) -> Tensor:
        ctx.between = between
        return x * 1

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        gradient = gradient @ torch.eye(D)
        ctx.between(gradient)
        return gradient @ torch.eye(D), None


class Around(nn.Module):
    def __init__(self, between: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return _Around.apply(x, self.between)  # type: ignore[no-any-return]


def products(trace: Trace) -> list[tuple[str, str]]:
    """Module and phase of every product, in order."""
    return [(trace.modules[s.module].fqn, s.phase) for op, s in trace.events() if op.op == "aten.mm.default"]


def captured(between: Callable[[Tensor], Any]) -> Trace:
    net = nn.Sequential(nn.Tanh(), Around(between))
    x = torch.ones(D, D, requires_grad=True)
    with attnprof.profile(net) as prof:
        net(x).sum().backward()
    return prof.trace


def test_a_module_run_within_a_node_does_not_change_where_the_node_is() -> None:
    inner = nn.Linear(D, D, bias=False)
    assert products(captured(inner)) == [("1", "backward"), ("1.between", "recompute"), ("1", "backward")]


def test_another_backward_within_a_node_does_not_change_where_the_node_is() -> None:
    inner = nn.Linear(D, D, bias=False)
    with torch.enable_grad():
        loss = inner(torch.ones(D, D)).sum()  # before the capture: its nodes belong to no module

    found = products(captured(lambda _: loss.backward()))
    assert found == [("1", "backward"), ("(outside)", "backward"), ("1", "backward")]


def test_an_optimizer_step_within_a_node_is_the_optimizers() -> None:
    parameter = nn.Parameter(torch.ones(D))
    parameter.grad = torch.ones(D)
    optimizer = torch.optim.SGD([parameter], lr=1.0, foreach=False)
    trace = captured(lambda _: optimizer.step())
    assert products(trace) == [("1", "backward"), ("1", "backward")]
    steps = [(trace.modules[s.module].fqn, s.phase) for op, s in trace.events() if op.op == "aten.add_.Tensor"]
    assert steps == [("(optimizer)", "optimizer")]


def test_grad_mode_within_a_node_makes_a_recompute_and_ends() -> None:
    """Once a node of torch's own has run with grad mode off, a product with it on is a checkpoint made by hand."""

    def again(gradient: Tensor) -> None:
        with torch.enable_grad():
            gradient @ torch.eye(D)

    assert products(captured(again)) == [("1", "backward"), ("1", "recompute"), ("1", "backward")]


@pytest.mark.parametrize("op", [torch.exp, torch.softmax, torch.relu])
def test_an_output_that_its_node_keeps_is_detached_once(op: Callable[..., Tensor]) -> None:
    """Autograd detaches it, and torch names its plain class as it would a subclass: still one op, run once."""
    x = torch.ones(D, requires_grad=True)

    def run() -> None:
        (op(x, 0) if op is torch.softmax else op(x)).sum().backward()

    expected = [signature.op for signature in ops_of(run)]
    x.grad = None
    with attnprof.profile() as prof:
        run()
    found = [signature.op for signature, _ in prof.trace.events()]
    assert found == expected
    assert "aten.detach.default" in found
