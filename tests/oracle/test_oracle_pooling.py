"""Pooling and interpolation, forward and backward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from oracle import references_pooling as ref
from oracle.agreement import agree
from oracle.layouts import few, more, tensors

aten = torch.ops.aten
many = settings(few, max_examples=20)


@st.composite
def _images(draw: Any, low: int = 1) -> torch.Tensor:
    plane = [draw(st.integers(low, 5)), draw(st.integers(low, 5))]
    return draw(tensors([draw(st.integers(1, 2)), 2, *plane], expanded=False))


@st.composite
def _windows(draw: Any) -> tuple[torch.Tensor, list[int], list[int], list[int]]:
    x = draw(_images())
    kernel = [draw(st.integers(1, min(3, n + 1))) for n in x.shape[2:]]
    padding = [draw(st.integers(0, k // 2)) for k in kernel]
    stride = [draw(st.integers(1, 3)) for _ in kernel]
    assume(all(n + 2 * p >= k for n, p, k in zip(x.shape[2:], padding, kernel, strict=True)))
    return x, kernel, stride, padding


@many
@given(drawn=_windows(), ceil_mode=st.booleans())
def test_max_pool(drawn: Any, ceil_mode: bool) -> None:
    x, *window = drawn
    options = (*window, [1, 1], ceil_mode)
    agree(aten.max_pool2d_with_indices.default, x, *options, by=ref.max_pool)
    out, chosen = aten.max_pool2d_with_indices(x, *options)
    grad = torch.randn(out.shape, dtype=torch.float64)
    agree(aten.max_pool2d_with_indices_backward.default, grad, x, *options, chosen, by=ref.max_pool2d_backward)


@few
@given(x=_images(low=3), dilation=st.integers(1, 2))
def test_dilated_max_pool(x: torch.Tensor, dilation: int) -> None:
    agree(aten.max_pool2d_with_indices.default, x, [2, 2], [1, 1], [0, 0], [dilation] * 2, by=ref.max_pool)


@few
@given(size=st.integers(2, 3), kernel=st.integers(1, 2), stride=st.integers(1, 2))
def test_max_pool_of_volumes(size: int, kernel: int, stride: int) -> None:
    x = torch.randn(1, 2, size, size, size, dtype=torch.float64)
    agree(aten.max_pool3d_with_indices.default, x, [kernel] * 3, [stride] * 3, by=ref.max_pool)


@many
@given(drawn=_windows(), ceil_mode=st.booleans(), count_include_pad=st.booleans(), divisor=st.sampled_from([None, 3]))
def test_avg_pool(drawn: Any, ceil_mode: bool, count_include_pad: bool, divisor: int | None) -> None:
    x, *window = drawn
    options = (*window, ceil_mode, count_include_pad, divisor)
    agree(aten.avg_pool2d.default, x, *options, by=ref.avg_pool2d)
    grad = torch.randn(aten.avg_pool2d(x, *options).shape, dtype=torch.float64)
    agree(aten.avg_pool2d_backward.default, grad, x, *options, by=ref.avg_pool2d_backward)


@more
@given(x=_images(), size=st.lists(st.integers(1, 4), min_size=2, max_size=2))
def test_adaptive_pools(x: torch.Tensor, size: list[int]) -> None:
    agree(aten._adaptive_avg_pool2d.default, x, size, by=ref.adaptive_avg_pool2d)
    agree(aten.adaptive_max_pool2d.default, x, size, by=ref.adaptive_max_pool2d)
    grad = torch.randn(*x.shape[:2], *size, dtype=torch.float64)
    agree(aten._adaptive_avg_pool2d_backward.default, grad, x, by=ref.adaptive_avg_pool2d_backward)


@more
@given(x=_images(), size=st.lists(st.integers(1, 6), min_size=2, max_size=2))
def test_nearest(x: torch.Tensor, size: list[int]) -> None:
    agree(aten.upsample_nearest2d.default, x, size, by=ref.upsample_nearest2d)
    grad = torch.randn(*x.shape[:2], *size, dtype=torch.float64)
    agree(aten.upsample_nearest2d_backward.default, grad, size, list(x.shape), by=ref.upsample_nearest2d_backward)


@pytest.mark.parametrize("align_corners", [False, True])
@more
@given(x=_images(), factor=st.integers(2, 3))
def test_bilinear(align_corners: bool, x: torch.Tensor, factor: int) -> None:
    size = [factor * n for n in x.shape[2:]]
    agree(aten.upsample_bilinear2d.default, x, size, align_corners, by=ref.upsample_bilinear2d)
    grad = torch.randn(*x.shape[:2], *size, dtype=torch.float64)
    arguments = (grad, size, list(x.shape), align_corners)
    agree(aten.upsample_bilinear2d_backward.default, *arguments, by=ref.upsample_bilinear2d_backward)
