"""Normalisations, forward and backward, with every mask of outputs."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oracle import references_norms as ref
from oracle.agreement import agree
from oracle.layouts import few, more, shapes, tensors

aten = torch.ops.aten
EPS = 1e-5
MASKS = [mask for mask in product([True, False], repeat=3) if any(mask)]


def _maybe(draw: Any, shape: list[int], given_: bool) -> torch.Tensor | None:
    return draw(tensors(shape, expanded=False)) if given_ else None


@st.composite
def _layer(draw: Any) -> tuple[torch.Tensor, list[int]]:
    shape = draw(shapes(min_dims=1, max_dims=3))
    return draw(tensors(shape)), shape[draw(st.integers(0, len(shape) - 1)) :]


@more
@given(drawn=_layer(), weighted=st.booleans(), biased=st.booleans(), data=st.data())
def test_layer_norm(drawn: Any, weighted: bool, biased: bool, data: st.DataObject) -> None:
    x, normalized = drawn
    weight, bias = _maybe(data.draw, normalized, weighted), _maybe(data.draw, normalized, biased)
    agree(aten.native_layer_norm.default, x, normalized, weight, bias, EPS, by=ref.layer_norm)


@pytest.mark.parametrize("mask", MASKS)
@few
@given(drawn=_layer(), weighted=st.booleans(), data=st.data())
def test_layer_norm_backward(mask: tuple[bool, ...], drawn: Any, weighted: bool, data: st.DataObject) -> None:
    x, normalized = drawn
    weighted = weighted or mask[1] or mask[2]
    weight, bias = _maybe(data.draw, normalized, weighted), _maybe(data.draw, normalized, weighted)
    _, mean, rstd = aten.native_layer_norm(x, normalized, weight, bias, EPS)
    grad = data.draw(tensors(x.shape))
    arguments = (grad, x, normalized, mean, rstd, weight, bias, list(mask))
    agree(aten.native_layer_norm_backward.default, *arguments, by=ref.layer_norm_backward)


@st.composite
def _channelled(draw: Any, expanded: bool = True) -> torch.Tensor:
    shape = [draw(st.integers(2, 3)), draw(st.integers(1, 3)), *draw(shapes(max_dims=2, max_size=3))]
    return draw(tensors(shape, expanded=expanded))


@more
@given(x=_channelled(), affine=st.booleans(), training=st.booleans(), tracked=st.booleans())
def test_batch_norm(x: torch.Tensor, affine: bool, training: bool, tracked: bool) -> None:
    c = [x.shape[1]]
    weight, bias = (torch.randn(c).double(), torch.randn(c).double()) if affine else (None, None)
    running = (torch.randn(c).double(), torch.rand(c).double() + 0.5) if tracked or not training else (None, None)
    agree(aten.native_batch_norm.default, x, weight, bias, *running, training, 0.1, EPS, by=ref.batch_norm)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("training", [True, False])
@few
@given(x=_channelled(), affine=st.booleans(), data=st.data())
def test_batch_norm_backward(
    mask: tuple[bool, ...], training: bool, x: torch.Tensor, affine: bool, data: st.DataObject
) -> None:
    # torch's CPU kernel returns wrong numbers for a channels-last input beside a contiguous gradient of height 1,
    # so both are contiguous here; an expanded input stays expanded.
    x, grad = (t if 0 in t.stride() else t.contiguous() for t in (x, data.draw(tensors(x.shape))))
    c = [x.shape[1]]
    weight = torch.randn(c).double() if affine or mask[1] or mask[2] else None
    running = torch.randn(c).double(), torch.rand(c).double() + 0.5
    _, mean, invstd = aten.native_batch_norm(x, weight, None, *(r.clone() for r in running), training, 0.1, EPS)
    arguments = (grad, x, weight, *running, mean, invstd, training, EPS, list(mask))
    agree(aten.native_batch_norm_backward.default, *arguments, by=ref.batch_norm_backward)


@st.composite
def _grouped(draw: Any) -> tuple[torch.Tensor, int]:
    groups, size = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    shape = [draw(st.integers(1, 2)), groups * size, *draw(shapes(min_dims=1, max_dims=2, max_size=3))]
    return torch.randn(shape, dtype=torch.float64), groups


@more
@given(drawn=_grouped(), weighted=st.booleans(), biased=st.booleans())
def test_group_norm(drawn: Any, weighted: bool, biased: bool) -> None:
    x, groups = drawn
    n, c = x.shape[:2]
    weight = torch.randn(c).double() if weighted else None
    bias = torch.randn(c).double() if biased else None
    sizes = (n, c, x.numel() // (n * c), groups)
    agree(aten.native_group_norm.default, x, weight, bias, *sizes, EPS, by=ref.group_norm)


@pytest.mark.parametrize("mask", MASKS)
@few
@given(drawn=_grouped(), weighted=st.booleans())
def test_group_norm_backward(mask: tuple[bool, ...], drawn: Any, weighted: bool) -> None:
    x, groups = drawn
    n, c = x.shape[:2]
    weight = torch.randn(c).double() if weighted or mask[1] or mask[2] else None
    sizes = (n, c, x.numel() // (n * c), groups)
    _, mean, rstd = aten.native_group_norm(x, weight, None, *sizes, EPS)
    arguments = (torch.randn_like(x), x, mean, rstd, weight, *sizes, list(mask))
    agree(aten.native_group_norm_backward.default, *arguments, by=ref.group_norm_backward)
