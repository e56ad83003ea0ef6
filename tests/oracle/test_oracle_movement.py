"""Copies, fills, concatenation, padding, triangles and the gradients of views."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oracle import references_movement as ref
from oracle.agreement import agree
from oracle.layouts import few, more, shapes, tensors

aten = torch.ops.aten


@few
@given(x=tensors())
def test_copies(x: torch.Tensor) -> None:
    agree(aten.clone.default, x, memory_format=torch.contiguous_format, by=ref.copied)
    agree(aten._to_copy.default, x, dtype=torch.float32, by=ref.copied)
    agree(aten.copy_.default, torch.zeros(x.shape, dtype=torch.float64), x, by=ref.copy_)
    agree(aten.copy_.default, torch.zeros(x.shape, dtype=torch.float32), x, by=ref.copy_)


@few
@given(x=tensors(expanded=False))
def test_fills_write_and_do_not_read(x: torch.Tensor) -> None:
    agree(aten.fill_.Scalar, x, 3.0, by=ref.filled_)
    agree(aten.zero_.default, x, by=ref.filled_)
    agree(aten.zeros_like.default, x, by=ref.filled_like)
    agree(aten.ones_like.default, x, by=ref.ones_like)
    agree(aten.full_like.default, x, 2.0, by=ref.filled_like)


@few
@given(shape=shapes(max_dims=3), n=st.integers(1, 5))
def test_creation_only_writes(shape: list[int], n: int) -> None:
    agree(aten.zeros.default, shape, dtype=torch.float64, by=ref.created(0))
    agree(aten.ones.default, shape, dtype=torch.float32, by=ref.created(1))
    agree(aten.full.default, shape, 2.5, dtype=torch.float64, by=ref.full)
    agree(aten.arange.default, n, by=ref.arange)


@more
@given(data=st.data(), shape=shapes(min_dims=1, max_dims=3), count=st.integers(1, 3))
def test_cat_and_stack(data: st.DataObject, shape: list[int], count: int) -> None:
    dim = data.draw(st.integers(0, len(shape) - 1))
    pieces = [data.draw(tensors([k + 1 if d == dim else n for d, n in enumerate(shape)])) for k in range(count)]
    agree(aten.cat.default, pieces, dim, by=ref.cat)
    agree(aten.stack.default, [data.draw(tensors(shape)) for _ in range(count)], dim, by=ref.stack)


@few
@given(x=tensors(like=shapes(min_dims=1, max_dims=3)), shift=st.integers(-2, 3), times=st.integers(1, 3))
def test_flip_roll_repeat(x: torch.Tensor, shift: int, times: int) -> None:
    agree(aten.flip.default, x, [0], by=ref.flip)
    agree(aten.roll.default, x, [shift], [x.dim() - 1], by=ref.roll)
    agree(aten.repeat.default, x, [2, times] + [1] * (x.dim() - 1), by=ref.repeat)


@more
@given(data=st.data(), shape=shapes(min_dims=2, max_dims=3), diagonal=st.integers(-3, 3))
def test_triangles(data: st.DataObject, shape: list[int], diagonal: int) -> None:
    x = data.draw(tensors(shape, expanded=False))
    agree(aten.tril.default, x, diagonal, by=ref.triangle(upper=False))
    agree(aten.triu.default, x, diagonal, by=ref.triangle(upper=True))
    agree(aten.trace.default, x.reshape(-1, shape[-1]), by=ref.trace)


@more
@given(data=st.data(), shape=shapes(min_dims=1, max_dims=3, min_size=3))
def test_constant_padding_and_cropping(data: st.DataObject, shape: list[int]) -> None:
    x = data.draw(tensors(shape))
    pad = data.draw(st.lists(st.integers(-1, 2), min_size=2, max_size=2))
    pad += data.draw(st.lists(st.integers(-1, 2), min_size=2, max_size=2)) if len(shape) > 1 else []
    agree(aten.constant_pad_nd.default, x, pad, 1.5, by=ref.constant_pad_nd)


@pytest.mark.parametrize("kind", ["reflection", "replication"])
@few
@given(h=st.integers(2, 4), w=st.integers(2, 4), padding=st.lists(st.integers(0, 1), min_size=4, max_size=4))
def test_edge_padding(kind: str, h: int, w: int, padding: list[int]) -> None:
    x = torch.randn(1, 2, h, w, dtype=torch.float64)
    forward, backward = getattr(aten, f"{kind}_pad2d").default, getattr(aten, f"{kind}_pad2d_backward").default
    agree(forward, x, padding, by=ref.edge_pad2d(kind))
    agree(backward, torch.randn_like(forward(x, padding)), x, padding, by=ref.edge_pad2d_backward(kind))


@st.composite
def _slices(draw: Any) -> tuple[list[int], int, int, int, int]:
    shape = draw(shapes(min_dims=1, max_dims=3))
    dim = draw(st.integers(0, len(shape) - 1))
    start = draw(st.integers(0, shape[dim] - 1))
    return shape, dim, start, draw(st.integers(start + 1, shape[dim])), draw(st.integers(1, 2))


@more
@given(drawn=_slices(), data=st.data())
def test_gradients_of_views_write_the_whole_input(drawn: Any, data: st.DataObject) -> None:
    shape, dim, start, end, step = drawn
    cut = [-(-(end - start) // step) if d == dim else n for d, n in enumerate(shape)]
    without = [n for d, n in enumerate(shape) if d != dim]
    grad = data.draw(tensors(cut))
    agree(aten.slice_backward.default, grad, shape, dim, start, end, step, by=ref.slice_backward)
    agree(aten.select_backward.default, data.draw(tensors(without)), shape, dim, start, by=ref.select_backward)


@more
@given(drawn=_slices(), data=st.data())
def test_replacing_a_slice_does_not_read_it(drawn: Any, data: st.DataObject) -> None:
    shape, dim, start, end, step = drawn
    cut = [-(-(end - start) // step) if d == dim else n for d, n in enumerate(shape)]
    without = [n for d, n in enumerate(shape) if d != dim]
    x, source = data.draw(tensors(shape)), data.draw(tensors(cut))
    agree(aten.slice_scatter.default, x, source, dim, start, end, step, by=ref.slice_scatter)
    agree(aten.select_scatter.default, x, data.draw(tensors(without)), dim, start, by=ref.select_scatter)


@few
@given(n=st.integers(2, 5), size=st.integers(1, 2), step=st.integers(1, 2), rest=st.integers(1, 2))
def test_gradient_of_overlapping_windows_accumulates(n: int, size: int, step: int, rest: int) -> None:
    windows = torch.zeros(n, rest).unfold(0, size, step)
    grad = torch.randn(windows.shape, dtype=torch.float64)
    agree(aten.unfold_backward.default, grad, [n, rest], 0, size, step, by=ref.unfold_backward)


@more
@given(h=st.integers(2, 4), w=st.integers(2, 4), stride=st.integers(1, 3), padding=st.integers(0, 1))
def test_im2col_reads_what_its_windows_see(h: int, w: int, stride: int, padding: int) -> None:
    x = torch.randn(1, 2, h, w, dtype=torch.float64)
    agree(aten.im2col.default, x, [2, 1], [1, 1], [padding] * 2, [stride] * 2, by=ref.im2col)
