"""Activations, forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oracle import references_activations as ref
from oracle.agreement import agree
from oracle.layouts import alike, few, shapes, tensors
from oracle.references_pointwise import elementwise, prelu, prelu_backward

aten = torch.ops.aten

FORWARD: list[tuple[Any, Callable[..., Any]]] = [
    (aten.silu.default, elementwise(ref.silu)),
    (aten.mish.default, elementwise(ref.mish)),
    (aten.hardswish.default, elementwise(ref.hardswish)),
    (aten.hardsigmoid.default, elementwise(ref.hardsigmoid)),
    (aten.relu.default, elementwise(ref.relu)),
    (aten.log_sigmoid_forward.default, ref.log_sigmoid_forward),
    (aten.leaky_relu.default, ref.leaky_relu),
    (aten.hardtanh.default, ref.hardtanh),
    (aten.elu.default, ref.elu),
    (aten.softplus.default, ref.softplus),
    (aten.gelu.default, ref.gelu),
]
BACKWARD: list[tuple[Any, Callable[..., Any]]] = [
    (aten.sigmoid_backward.default, elementwise(ref.sigmoid_backward)),
    (aten.tanh_backward.default, elementwise(ref.tanh_backward)),
    (aten.silu_backward.default, elementwise(ref.silu_backward)),
    (aten.mish_backward.default, elementwise(ref.mish_backward)),
    (aten.hardswish_backward.default, elementwise(ref.hardswish_backward)),
    (aten.hardsigmoid_backward.default, elementwise(ref.hardsigmoid_backward)),
    (aten.gelu_backward.default, ref.gelu_backward),
]


def _name(value: Any) -> str | None:
    return str(value) if isinstance(value, torch._ops.OpOverload) else None


@pytest.mark.parametrize(("op", "by"), FORWARD, ids=_name)
@few
@given(data=st.data())
def test_forward(op: Any, by: Callable[..., Any], data: st.DataObject) -> None:
    agree(op, data.draw(tensors()), by=by)


@pytest.mark.parametrize(("op", "by"), BACKWARD, ids=_name)
@few
@given(data=st.data())
def test_backward(op: Any, by: Callable[..., Any], data: st.DataObject) -> None:
    agree(op, *data.draw(alike(2)), by=by)


@few
@given(x=tensors(), grad=st.data())
def test_gelu_tanh(x: torch.Tensor, grad: st.DataObject) -> None:
    agree(aten.gelu.default, x, approximate="tanh", by=ref.gelu)
    agree(aten.gelu_backward.default, grad.draw(tensors(x.shape)), x, approximate="tanh", by=ref.gelu_backward)


@few
@given(operands=alike(2))
def test_relu_and_bounded_backward(operands: list[torch.Tensor]) -> None:
    agree(aten.threshold_backward.default, *operands, 0, by=ref.threshold_backward)
    agree(aten.leaky_relu_backward.default, *operands, 0.1, False, by=ref.leaky_relu_backward)
    agree(aten.hardtanh_backward.default, *operands, -1, 1, by=ref.hardtanh_backward)


@pytest.mark.parametrize("alpha", [1, 0.7])
@pytest.mark.parametrize("scale", [1, 1.05])
@few
@given(operands=alike(2))
def test_elu_selu_celu(alpha: float, scale: float, operands: list[torch.Tensor]) -> None:
    grad, x = operands
    agree(aten.elu.default, x, alpha, scale, 1, by=ref.elu)
    agree(aten.elu_backward.default, grad, alpha, scale, 1, False, x, by=ref.elu_backward)
    agree(aten.elu_backward.default, grad, alpha, scale, 1, True, x.clamp(-0.5), by=ref.elu_backward)


@few
@given(operands=alike(2))
def test_celu_scales_its_input(operands: list[torch.Tensor]) -> None:
    grad, x = operands
    agree(aten.elu.default, x, 0.5, 1, 2, by=ref.elu)
    agree(aten.elu.default, x, 1.5, 1, 1 / 1.5, by=ref.elu)
    agree(aten.elu_backward.default, grad, 1.5, 1, 1 / 1.5, False, x, by=ref.elu_backward)


@pytest.mark.parametrize("beta", [1, 2, 0.3])
@few
@given(operands=alike(2))
def test_softplus(beta: float, operands: list[torch.Tensor]) -> None:
    grad, x = operands
    agree(aten.softplus.default, x, beta, 1.5, by=ref.softplus)
    agree(aten.softplus_backward.default, grad, x, beta, 1.5, by=ref.softplus_backward)


@few
@given(operands=alike(2))
def test_log_sigmoid_backward_uses_the_kept_buffer(operands: list[torch.Tensor]) -> None:
    grad, x = operands
    x = x.contiguous()
    buffer = aten.log_sigmoid_forward(x)[1]
    agree(aten.log_sigmoid_backward.default, grad, x, buffer, by=ref.log_sigmoid_backward)


@few
@given(data=st.data(), shape=shapes(min_dims=1, max_dims=3))
def test_glu(data: st.DataObject, shape: list[int]) -> None:
    dim = data.draw(st.integers(0, len(shape) - 1))
    doubled = [2 * n if d == dim else n for d, n in enumerate(shape)]
    x, grad = data.draw(tensors(doubled)), data.draw(tensors(shape))
    agree(aten.glu.default, x, dim, by=ref.glu)
    agree(aten.glu_backward.default, grad, x, dim, by=ref.glu_backward)


@few
@given(data=st.data(), shape=shapes(min_dims=2, max_dims=4))
def test_prelu(data: st.DataObject, shape: list[int]) -> None:
    x, grad = data.draw(tensors(shape)), data.draw(tensors(shape))
    weight = torch.randn([1, shape[1]] + [1] * (len(shape) - 2), dtype=torch.float64)
    agree(aten._prelu_kernel.default, x, weight, by=prelu)
    agree(aten._prelu_kernel_backward.default, grad, x, weight, by=prelu_backward)
