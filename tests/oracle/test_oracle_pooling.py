"""Pooling, forward and backward."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from oracle import references_pooling as ref
from oracle.agreement import agree
from oracle.layouts import few, more, tensors

aten = torch.ops.aten
many = settings(few, max_examples=60)


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
    agree(aten.max_pool2d_with_indices_backward.default, grad, x, *options, chosen, by=ref.max_pool_backward)


@few
@given(x=_images(low=3), dilation=st.integers(1, 2))
def test_dilated_max_pool(x: torch.Tensor, dilation: int) -> None:
    agree(aten.max_pool2d_with_indices.default, x, [2, 2], [1, 1], [0, 0], [dilation] * 2, by=ref.max_pool)


@few
@given(size=st.integers(2, 3), kernel=st.integers(1, 2), stride=st.integers(1, 2))
def test_volumes(size: int, kernel: int, stride: int) -> None:
    x = torch.randn(1, 2, size, size, size + 1, dtype=torch.float64)
    window = ([kernel, 2, kernel], [stride] * 3, [0, 0, 0])
    agree(aten.max_pool3d_with_indices.default, x, *window, by=ref.max_pool)
    out, chosen = aten.max_pool3d_with_indices(x, *window)
    grad, options = torch.randn_like(out), ([1] * 3, False, chosen)
    agree(aten.max_pool3d_with_indices_backward.default, grad, x, *window, *options, by=ref.max_pool_backward)
    agree(aten.avg_pool3d.default, x, *window, by=ref.avg_pool)
    agree(aten.avg_pool3d_backward.default, grad, x, *window, False, True, None, by=ref.avg_pool_backward)


@many
@given(drawn=_windows(), ceil_mode=st.booleans(), count_include_pad=st.booleans(), divisor=st.sampled_from([None, 3]))
def test_avg_pool(drawn: Any, ceil_mode: bool, count_include_pad: bool, divisor: int | None) -> None:
    x, *window = drawn
    options = (*window, ceil_mode, count_include_pad, divisor)
    agree(aten.avg_pool2d.default, x, *options, by=ref.avg_pool)
    grad = torch.randn(aten.avg_pool2d(x, *options).shape, dtype=torch.float64)
    agree(aten.avg_pool2d_backward.default, grad, x, *options, by=ref.avg_pool_backward)


@more
@given(x=_images(), size=st.lists(st.integers(1, 4), min_size=2, max_size=2))
def test_adaptive_pools(x: torch.Tensor, size: list[int]) -> None:
    grad = torch.randn(*x.shape[:2], *size, dtype=torch.float64)
    agree(aten._adaptive_avg_pool2d.default, x, size, by=ref.adaptive_avg_pool)
    agree(aten._adaptive_avg_pool2d_backward.default, grad, x, by=ref.adaptive_avg_pool_backward(2))
    agree(aten.adaptive_max_pool2d.default, x, size, by=ref.adaptive_max_pool)
    chosen = aten.adaptive_max_pool2d(x, size)[1]
    agree(aten.adaptive_max_pool2d_backward.default, grad, x, chosen, by=ref.max_pool_backward)


@few
@given(
    shape=st.lists(st.integers(1, 3), min_size=3, max_size=3), size=st.lists(st.integers(1, 3), min_size=3, max_size=3)
)
def test_adaptive_pools_of_volumes(shape: list[int], size: list[int]) -> None:
    x = torch.randn(1, 2, *shape, dtype=torch.float64)
    agree(aten._adaptive_avg_pool3d.default, x, size, by=ref.adaptive_avg_pool)
    grad = torch.randn(1, 2, *size, dtype=torch.float64)
    agree(aten._adaptive_avg_pool3d_backward.default, grad, x, by=ref.adaptive_avg_pool_backward(3))
    agree(aten.adaptive_max_pool3d.default, x, size, by=ref.adaptive_max_pool)
