"""Convolutions: groups, stride, dilation, padding, transposition, and every mask of gradients."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from oracle import references_convolution as ref
from oracle.agreement import agree
from oracle.layouts import few, more, tensors

aten = torch.ops.aten
MASKS = [mask for mask in product([True, False], repeat=3) if any(mask)]
many = settings(few, max_examples=60)


@st.composite
def _convolutions(draw: Any, dims: int, transposed: bool) -> tuple[Any, ...]:
    """(x, weight, stride, padding, dilation, transposed, output_padding, groups) of a valid convolution."""
    groups = draw(st.integers(1, 2))
    cin, cout = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))

    def each(low: int, high: int) -> list[int]:
        return [draw(st.integers(low, high)) for _ in range(dims)]

    largest = 4 if dims < 3 else 3
    size, kernel, stride, padding, dilation = each(1, largest), each(1, 3), each(1, 3), each(0, 2), each(1, 2)
    extra = [0] * dims
    if transposed:
        extra = [draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True)]
    for n, k, s, p, d, e in zip(size, kernel, stride, padding, dilation, extra, strict=True):
        reach = d * (k - 1)
        assume((n - 1) * s - 2 * p + reach + e + 1 > 0 if transposed else n + 2 * p > reach)
    x = draw(tensors([draw(st.integers(1, 2)), cin, *size], expanded=False))
    channels = [cin, cout // groups] if transposed else [cout, cin // groups]
    weight = draw(tensors([*channels, *kernel], expanded=False))
    return x, weight, stride, padding, dilation, transposed, extra, groups


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dims", [1, 2])
@many
@given(data=st.data(), biased=st.booleans())
def test_forward(dims: int, transposed: bool, data: st.DataObject, biased: bool) -> None:
    x, weight, *options = data.draw(_convolutions(dims, transposed))
    channels = weight.shape[1] * options[-1] if transposed else weight.shape[0]
    bias = torch.randn(channels, dtype=torch.float64) if biased else None
    agree(aten.convolution.default, x, weight, bias, *options, by=ref.convolution)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("transposed", [False, True])
@more
@given(data=st.data(), dims=st.integers(1, 2))
def test_backward(mask: tuple[bool, ...], transposed: bool, data: st.DataObject, dims: int) -> None:
    x, weight, *options = data.draw(_convolutions(dims, transposed))
    channels = weight.shape[1] * options[-1] if transposed else weight.shape[0]
    grad = data.draw(tensors(aten.convolution(x, weight, None, *options).shape, expanded=False))
    arguments = (grad, x, weight, [channels], *options, list(mask))
    agree(aten.convolution_backward.default, *arguments, by=ref.convolution_backward)


@few
@given(data=st.data())
def test_three_dimensions(data: st.DataObject) -> None:
    x, weight, *options = data.draw(_convolutions(3, False))
    agree(aten.convolution.default, x, weight, None, *options, by=ref.convolution)
    grad = torch.randn(aten.convolution(x, weight, None, *options).shape, dtype=torch.float64)
    arguments = (grad, x, weight, [weight.shape[0]], *options, [True, True, True])
    agree(aten.convolution_backward.default, *arguments, by=ref.convolution_backward)


@few
@given(channels=st.integers(1, 4), size=st.integers(2, 4), stride=st.integers(1, 3))
def test_depthwise_and_pointwise(channels: int, size: int, stride: int) -> None:
    x = torch.randn(2, channels, size, size, dtype=torch.float64)
    depthwise = torch.randn(channels, 1, 2, 2, dtype=torch.float64)
    pointwise = torch.randn(3, channels, 1, 1, dtype=torch.float64)
    for weight, groups in [(depthwise, channels), (pointwise, 1)]:
        options = ([stride] * 2, [0, 0], [1, 1], False, [0, 0], groups)
        agree(aten.convolution.default, x, weight, None, *options, by=ref.convolution)
        grad = torch.randn(aten.convolution(x, weight, None, *options).shape, dtype=torch.float64)
        arguments = (grad, x, weight, [weight.shape[0]], *options, [True, True, True])
        agree(aten.convolution_backward.default, *arguments, by=ref.convolution_backward)
