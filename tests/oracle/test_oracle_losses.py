"""Losses, forward and backward, under every reduction."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oracle import references_losses as ref
from oracle.agreement import agree
from oracle.layouts import alike, few, shapes, spread, tensors

aten = torch.ops.aten
REDUCTIONS = [ref.NONE, ref.MEAN, ref.SUM]
SHAPES = shapes(max_dims=3)


def _gradient(x: torch.Tensor, reduction: int) -> torch.Tensor:
    return torch.randn(x.shape if reduction == ref.NONE else (), dtype=torch.float64)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@few
@given(operands=alike(2, like=SHAPES))
def test_mse(reduction: int, operands: list[torch.Tensor]) -> None:
    x, y = operands
    agree(aten.mse_loss.default, x, y, reduction, by=ref.mse_loss)
    grad = _gradient(x, reduction)
    agree(aten.mse_loss_backward.default, grad, x, y, reduction, by=ref.mse_loss_backward)


@pytest.mark.parametrize("beta", [1, 0.6])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@few
@given(operands=alike(2, like=SHAPES))
def test_smooth_l1(reduction: int, beta: float, operands: list[torch.Tensor]) -> None:
    x, y = operands
    agree(aten.smooth_l1_loss.default, x, y, reduction, beta, by=ref.smooth_l1_loss)
    grad = _gradient(x, reduction)
    agree(aten.smooth_l1_loss_backward.default, grad, x, y, reduction, beta, by=ref.smooth_l1_loss_backward)


@pytest.mark.parametrize("delta", [1, 0.6])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@few
@given(operands=alike(2, like=SHAPES))
def test_huber(reduction: int, delta: float, operands: list[torch.Tensor]) -> None:
    x, y = operands
    agree(aten.huber_loss.default, x, y, reduction, delta, by=ref.huber_loss)
    grad = _gradient(x, reduction)
    agree(aten.huber_loss_backward.default, grad, x, y, reduction, delta, by=ref.huber_loss_backward)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@few
@given(data=st.data(), shape=SHAPES)
def test_binary_cross_entropy(reduction: int, weighted: bool, data: st.DataObject, shape: list[int]) -> None:
    x, y = data.draw(tensors(shape, kind="unit")), data.draw(tensors(shape, kind="unit"))
    weight = data.draw(tensors(shape, kind="positive")) if weighted else None
    agree(aten.binary_cross_entropy.default, x, y, weight, reduction, by=ref.binary_cross_entropy)
    arguments = (_gradient(x, reduction), x, y, weight, reduction)
    agree(aten.binary_cross_entropy_backward.default, *arguments, by=ref.binary_cross_entropy_backward)


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@few
@given(data=st.data(), shape=SHAPES)
def test_bce_with_logits(reduction: int, weighted: bool, positive: bool, data: st.DataObject, shape: list[int]) -> None:
    x, y = data.draw(tensors(shape)), data.draw(tensors(shape, kind="unit"))
    weight = data.draw(tensors(shape, kind="positive")) if weighted else None
    pos_weight = data.draw(tensors(shape, kind="positive")) if positive else None
    arguments = (x, y, weight, pos_weight, reduction)
    agree(aten.binary_cross_entropy_with_logits.default, *arguments, by=ref.bce_with_logits)


@few
@given(operands=alike(2, like=SHAPES), reduction=st.sampled_from(REDUCTIONS))
def test_soft_margin(operands: list[torch.Tensor], reduction: int) -> None:
    agree(aten.soft_margin_loss.default, *operands, reduction, by=ref.soft_margin_loss)


def _nll(
    forward: Any, backward: Any, x: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None, reduction: int
) -> None:
    ignore = -100
    agree(forward, x, target, weight, reduction, ignore, by=ref.nll_loss)
    total_weight = forward(x, target, weight, reduction, ignore)[1]
    grad = torch.randn(target.shape if reduction == ref.NONE else (), dtype=torch.float64)
    agree(backward, grad, x, target, weight, reduction, ignore, total_weight, by=ref.nll_loss_backward)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@few
@given(rows=st.integers(1, 5), classes=st.integers(1, 4), data=st.data())
def test_nll(reduction: int, weighted: bool, rows: int, classes: int, data: st.DataObject) -> None:
    x = data.draw(tensors([rows, classes], expanded=False))
    weight = torch.rand(classes, dtype=torch.float64) + 0.5 if weighted else None
    target = spread(rows, classes)
    _nll(aten.nll_loss_forward.default, aten.nll_loss_backward.default, x, target, weight, reduction)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@few
@given(n=st.integers(1, 2), classes=st.integers(1, 4), h=st.integers(1, 2), w=st.integers(1, 2))
def test_nll_of_pixels(reduction: int, weighted: bool, n: int, classes: int, h: int, w: int) -> None:
    x = torch.randn(n, classes, h, w, dtype=torch.float64)
    weight = torch.rand(classes, dtype=torch.float64) + 0.5 if weighted else None
    target = spread(n * h * w, classes).reshape(n, h, w)
    _nll(aten.nll_loss2d_forward.default, aten.nll_loss2d_backward.default, x, target, weight, reduction)
