"""Reductions over random dimensions, scans, softmax and log-softmax, forward and backward."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oracle import references_reductions as ref
from oracle.agreement import agree
from oracle.layouts import few, more, shapes, tensors

aten = torch.ops.aten

WHOLE: list[tuple[Any, Callable[..., Any]]] = [
    (aten.sum.default, ref.reduction(ref.SUM)),
    (aten.mean.default, ref.reduction(ref.mean)),
    (aten.prod.default, ref.reduction(ref.PROD)),
    (aten.max.default, ref.reduction(ref.AMAX)),
    (aten.min.default, ref.reduction(ref.AMIN)),
    (aten.argmax.default, ref.reduction(ref.argmax, torch.int64)),
]
BY_DIMS: list[tuple[Any, Callable[..., Any]]] = [
    (aten.sum.dim_IntList, ref.reduction(ref.SUM)),
    (aten.mean.dim, ref.reduction(ref.mean)),
    (aten.amax.default, ref.reduction(ref.AMAX)),
    (aten.amin.default, ref.reduction(ref.AMIN)),
    (aten.logsumexp.default, ref.reduction(ref.logsumexp)),
]
BY_DIM: list[tuple[Any, Callable[..., Any]]] = [
    (aten.prod.dim_int, ref.reduction(ref.PROD)),
    (aten.argmax.default, ref.reduction(ref.argmax, torch.int64)),
    (aten.argmin.default, ref.reduction(ref.argmin, torch.int64)),
    (aten.max.dim, ref.max_dim),
    (aten.min.dim, ref.min_dim),
]


def _name(value: Any) -> str | None:
    return str(value) if isinstance(value, torch._ops.OpOverload) else None


@st.composite
def _with_dims(draw: Any, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, list[int]]:
    shape = draw(shapes(min_dims=1))
    dims = draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, unique=True))
    return draw(tensors(shape, dtype)), dims


@pytest.mark.parametrize(("op", "by"), WHOLE, ids=_name)
@few
@given(data=st.data())
def test_whole_tensor(op: Any, by: Callable[..., Any], data: st.DataObject) -> None:
    agree(op, data.draw(tensors(like=shapes(max_dims=3))), by=by)


@pytest.mark.parametrize(("op", "by"), BY_DIMS, ids=_name)
@few
@given(data=st.data(), keepdim=st.booleans())
def test_over_dims(op: Any, by: Callable[..., Any], data: st.DataObject, keepdim: bool) -> None:
    x, dims = data.draw(_with_dims())
    agree(op, x, dims, keepdim, by=by)


@pytest.mark.parametrize(("op", "by"), BY_DIM, ids=_name)
@few
@given(data=st.data(), keepdim=st.booleans())
def test_over_one_dim(op: Any, by: Callable[..., Any], data: st.DataObject, keepdim: bool) -> None:
    x, dims = data.draw(_with_dims())
    agree(op, x.clone(), dims[0], keepdim, by=by)


@few
@given(drawn=_with_dims(), correction=st.sampled_from([0, 1]), keepdim=st.booleans())
def test_variance(drawn: Any, correction: int, keepdim: bool) -> None:
    x, dims = drawn
    if math.prod(x.shape[d] for d in dims) <= correction:
        x = torch.randn([n + 1 for n in x.shape], dtype=torch.float64)
    options = {"correction": correction, "keepdim": keepdim}
    agree(aten.var.correction, x, dims, **options, by=ref.var)
    agree(aten.std.correction, x, dims, **options, by=ref.std)
    agree(aten.var_mean.correction, x, dims, **options, by=ref.var_mean)


@pytest.mark.parametrize("p", [2, 1, 3, math.inf, 0])
@few
@given(drawn=_with_dims(), keepdim=st.booleans())
def test_norms(p: float, drawn: Any, keepdim: bool) -> None:
    x, dims = drawn
    agree(aten.linalg_vector_norm.default, x, p, dims, keepdim, by=ref.vector_norm)
    agree(aten.linalg_vector_norm.default, x, p, by=ref.vector_norm)


@few
@given(drawn=_with_dims(torch.bool), keepdim=st.booleans())
def test_any_and_all(drawn: Any, keepdim: bool) -> None:
    x, dims = drawn
    agree(aten.any.dim, x, dims[0], keepdim, by=ref.reduction(ref.any_of, torch.bool))
    agree(aten.all.dim, x, dims[0], keepdim, by=ref.reduction(ref.all_of, torch.bool))
    agree(aten.any.default, x, by=ref.reduction(ref.any_of, torch.bool))
    agree(aten.all.default, x, by=ref.reduction(ref.all_of, torch.bool))


@few
@given(drawn=_with_dims(torch.int64))
def test_integers(drawn: Any) -> None:
    x, dims = drawn
    agree(aten.sum.dim_IntList, x, dims, by=ref.reduction(ref.SUM))
    agree(aten.cumsum.default, x, dims[0], by=ref.CUMSUM)


@few
@given(drawn=_with_dims())
def test_aminmax(drawn: Any) -> None:
    x, dims = drawn
    agree(aten.aminmax.default, x, dim=dims[0], by=ref.aminmax)


@few
@given(drawn=_with_dims())
def test_scans(drawn: Any) -> None:
    x, dims = drawn
    agree(aten.cumsum.default, x, dims[0], by=ref.CUMSUM)
    agree(aten.cumprod.default, x, dims[0], by=ref.CUMPROD)
    agree(aten.cummax.default, x, dims[0], by=ref.running_max)


@few
@given(drawn=_with_dims())
def test_reducing_nothing_costs_nothing(drawn: Any) -> None:
    x, dims = drawn
    empty = torch.empty([0 if d in dims else n for d, n in enumerate(x.shape)], dtype=torch.float64)
    agree(aten.sum.dim_IntList, empty, dims, by=ref.reduction(ref.SUM))
    agree(aten.prod.dim_int, empty, dims[0], by=ref.reduction(ref.PROD))
    agree(aten.cumsum.default, empty, dims[0], by=ref.CUMSUM)


@more
@given(drawn=_with_dims())
def test_softmax(drawn: Any) -> None:
    x, (dim, *_) = drawn
    agree(aten._softmax.default, x, dim, False, by=ref.softmax)
    agree(aten._safe_softmax.default, x, dim, by=ref.safe_softmax)
    agree(aten._log_softmax.default, x, dim, False, by=ref.log_softmax)


@few
@given(drawn=_with_dims())
def test_safe_softmax_of_masked_rows(drawn: Any) -> None:
    x, (dim, *_) = drawn
    x = x.clone()
    x.select(dim, 0).fill_(-math.inf)
    agree(aten._safe_softmax.default, x, dim, by=ref.safe_softmax)


@more
@given(drawn=_with_dims(), data=st.data())
def test_softmax_backward(drawn: Any, data: st.DataObject) -> None:
    x, (dim, *_) = drawn
    grad = data.draw(tensors(x.shape))
    y, log_y = x.softmax(dim), x.log_softmax(dim)
    agree(aten._softmax_backward_data.default, grad, y, dim, torch.float64, by=ref.softmax_backward)
    agree(aten._log_softmax_backward_data.default, grad, log_y, dim, torch.float64, by=ref.log_softmax_backward)
