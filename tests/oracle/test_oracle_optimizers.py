"""Optimizer kernels, their foreach parts, and the three implementations of a whole step against each other."""

from __future__ import annotations

import operator
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from attnprof.core.cost import Cost
from attnprof.costs.pricing import price
from oracle import counting as c
from oracle import references_optimizers as ref
from oracle import references_pointwise as pw
from oracle.agreement import agree
from oracle.layouts import few, more, shapes
from oracle.references_reductions import vector_norm
from support import ops_of

aten = torch.ops.aten
TENSORS = st.lists(shapes(max_dims=2), min_size=1, max_size=3)


def _lists(shapes_: list[list[int]], count: int, positive: int = 0) -> list[list[torch.Tensor]]:
    """Lists of tensors of the given shapes; the last ``positive`` of the lists hold positive numbers."""
    drawn = [[torch.randn(s, dtype=torch.float64) for s in shapes_] for _ in range(count)]
    return [[t.abs() + 0.1 for t in row] if k >= count - positive else row for k, row in enumerate(drawn)]


def _steps(shapes_: list[list[int]]) -> list[torch.Tensor]:
    return [torch.tensor(3.0) for _ in shapes_]


@pytest.mark.parametrize("op", [aten._fused_adamw_.default, aten._fused_adam_.default])
@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("maximize", [False, True])
@few
@given(shapes_=TENSORS, decay=st.sampled_from([0.0, 0.01]))
def test_fused_adam(op: Any, amsgrad: bool, maximize: bool, shapes_: list[list[int]], decay: float) -> None:
    p, g, m, v, top = _lists(shapes_, 5, positive=2)
    options = {"lr": 1e-2, "beta1": 0.9, "beta2": 0.999, "weight_decay": decay, "eps": 1e-8}
    by = ref.adamw_ if "adamw" in str(op) else ref.adam_
    lists = (p, g, m, v, top if amsgrad else [], _steps(shapes_))
    agree(op, *lists, **options, amsgrad=amsgrad, maximize=maximize, by=by)


@few
@given(shapes_=TENSORS)
def test_fused_adamw_unscales_gradients_in_place(shapes_: list[list[int]]) -> None:
    p, g, m, v = _lists(shapes_, 4, positive=1)
    options = {"lr": 1e-2, "beta1": 0.9, "beta2": 0.999, "weight_decay": 0.01, "eps": 1e-8}
    scale = torch.tensor(2.0, dtype=torch.float32)
    flags = {"amsgrad": False, "maximize": False, "grad_scale": scale}
    agree(aten._fused_adamw_.default, p, g, m, v, [], _steps(shapes_), **options, **flags, by=ref.adamw_)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("is_first_step", [False, True])
@few
@given(shapes_=TENSORS, decay=st.sampled_from([0.0, 0.01]), nesterov=st.booleans(), maximize=st.booleans())
def test_fused_sgd(
    momentum: float, is_first_step: bool, shapes_: list[list[int]], decay: float, nesterov: bool, maximize: bool
) -> None:
    p, g, buffers = _lists(shapes_, 3)
    options = {"weight_decay": decay, "momentum": momentum, "lr": 0.1, "dampening": 0.0, "maximize": maximize}
    flags = {"nesterov": nesterov and momentum > 0, "is_first_step": is_first_step and momentum > 0}
    agree(aten._fused_sgd_.default, p, g, buffers if momentum else [], **options, **flags, by=ref.sgd_)


@more
@given(shapes_=TENSORS, decay=st.sampled_from([0.0, 0.01]), maximize=st.booleans())
def test_fused_adagrad(shapes_: list[list[int]], decay: float, maximize: bool) -> None:
    p, g, sums = _lists(shapes_, 3, positive=1)
    options = {"lr": 0.1, "lr_decay": 0.01, "weight_decay": decay, "eps": 1e-10, "maximize": maximize}
    agree(aten._fused_adagrad_.default, p, g, sums, _steps(shapes_), **options, by=ref.adagrad_)


@few
@given(shapes_=TENSORS)
def test_amp_unscale(shapes_: list[list[int]]) -> None:
    grads = [torch.randn(s) for s in shapes_]
    op = aten._amp_foreach_non_finite_check_and_unscale_.default
    agree(op, grads, torch.zeros(()), torch.tensor(0.5), by=ref.unscale_)


@pytest.mark.parametrize("alpha", [1, -0.1])
@few
@given(shapes_=TENSORS)
def test_foreach_binary(alpha: float, shapes_: list[list[int]]) -> None:
    a, b = _lists(shapes_, 2, positive=1)
    agree(aten._foreach_add.List, a, b, alpha=alpha, by=ref.each(pw.add))
    agree(aten._foreach_add_.List, a, b, alpha=alpha, by=ref.each_(pw.add_))
    agree(aten._foreach_add_.Scalar, a, 2.0, by=ref.each_(ref.overwriting(operator.add)))
    agree(aten._foreach_sub_.List, a, b, by=ref.each_(ref.overwriting(operator.sub)))
    agree(aten._foreach_mul_.Scalar, a, 0.9, by=ref.each_(ref.overwriting(operator.mul)))
    agree(aten._foreach_mul.List, a, b, by=ref.each(pw.elementwise(operator.mul)))
    agree(aten._foreach_div_.List, a, b, by=ref.each_(ref.overwriting(operator.truediv)))
    agree(aten._foreach_maximum_.List, a, b, by=ref.each_(ref.overwriting(c.maximum)))
    scalar = torch.tensor(0.5, dtype=torch.float64)
    agree(aten._foreach_mul_.Tensor, a, scalar, by=ref.each_(ref.overwriting(operator.mul)))


@few
@given(shapes_=TENSORS)
def test_foreach_unary_and_norm(shapes_: list[list[int]]) -> None:
    (a,) = _lists(shapes_, 1, positive=1)
    agree(aten._foreach_sqrt.default, a, by=ref.each(pw.elementwise(c.sqrt)))
    agree(aten._foreach_neg.default, a, by=ref.each(pw.elementwise(operator.neg)))
    agree(aten._foreach_abs.default, a, by=ref.each(pw.elementwise(abs)))
    agree(aten._foreach_norm.Scalar, a, 2, by=ref.each(vector_norm))
    agree(aten._foreach_norm.Scalar, a, 1, by=ref.each(vector_norm))


@pytest.mark.parametrize("value", [1, 0.1])
@few
@given(shapes_=TENSORS)
def test_foreach_ternary(value: float, shapes_: list[list[int]]) -> None:
    a, b, d = _lists(shapes_, 3, positive=1)
    agree(aten._foreach_addcmul_.Scalar, a, b, b, value, by=ref.each_(pw.addcmul_))
    agree(aten._foreach_addcdiv_.Scalar, a, b, d, value, by=ref.each_(pw.addcdiv_))
    agree(aten._foreach_lerp_.Scalar, a, b, 0.1, by=ref.each_(pw.lerp_))


def _second_step(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> tuple[Cost, Counter[str]]:
    """The cost of a steady step: the first one creates state."""
    for p in parameters:
        p.grad = torch.randn_like(p)
    optimizer.step()
    ops = ops_of(optimizer.step)
    return Cost.sum(price(op).cost for op in ops), Counter(price(op).status for op in ops)


OPTIMIZERS: list[tuple[Any, dict[str, Any]]] = [
    (torch.optim.AdamW, {"weight_decay": 0.01}),
    (torch.optim.AdamW, {"weight_decay": 0.01, "amsgrad": True}),
    (torch.optim.Adam, {"weight_decay": 0.01}),
    (torch.optim.SGD, {"lr": 0.1}),
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    (torch.optim.Adagrad, {}),
]


@pytest.mark.parametrize(("kind", "options"), OPTIMIZERS, ids=lambda v: getattr(v, "__name__", None))
def test_loop_foreach_and_fused_do_the_same_arithmetic(kind: Any, options: dict[str, Any]) -> None:
    costs = []
    for implementation in ({"foreach": False}, {"foreach": True}, {"fused": True}):
        parameters = [nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(5))]
        cost, statuses = _second_step(kind(parameters, **options, **implementation), parameters)
        assert not statuses["unpriced"]
        costs.append(cost)
    loop, foreach, fused = costs
    assert loop.vector_flops == foreach.vector_flops == fused.vector_flops
    assert fused.bytes <= min(loop.bytes, foreach.bytes)  # it keeps intermediates on the chip
