"""Gathers and scatters.

Indices are spread out: a price sees shapes, and assumes as many distinct rows as there can be.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oracle import references_indexing as ref
from oracle.agreement import agree
from oracle.layouts import few, more, shapes, spread, tensors

aten = torch.ops.aten


@more
@given(vocabulary=st.integers(1, 6), width=st.integers(1, 3), shape=shapes(max_dims=2), seed=st.integers(0, 99))
def test_embedding(vocabulary: int, width: int, shape: list[int], seed: int) -> None:
    weight = torch.randn(vocabulary, width, dtype=torch.float64)
    index = spread(torch.Size(shape).numel(), vocabulary, seed).reshape(shape)
    agree(aten.embedding.default, weight, index, by=ref.embedding)
    grad = torch.randn(*shape, width, dtype=torch.float64)
    arguments = (grad, index, vocabulary, -1, False)
    agree(aten.embedding_dense_backward.default, *arguments, by=ref.embedding_dense_backward)


@st.composite
def _along(draw: Any, distinct: bool = False) -> tuple[torch.Tensor, int, torch.Tensor]:
    """A tensor, one of its dimensions, and indices into it; ``distinct`` ones never repeat along the dimension."""
    shape = draw(shapes(min_dims=1, max_dims=3))
    dim = draw(st.integers(0, len(shape) - 1))
    count = draw(st.integers(1, shape[dim] if distinct else 5))
    x = draw(tensors(shape, expanded=False))
    return x, dim, spread(count, shape[dim], draw(st.integers(0, 99)))


def _everywhere(x: torch.Tensor, dim: int, line: torch.Tensor) -> torch.Tensor:
    """The same indices for every line of ``x`` along ``dim``."""
    shape = [len(line) if d == dim else n for d, n in enumerate(x.shape)]
    view = [len(line) if d == dim else 1 for d in range(x.dim())]
    return line.reshape(view).expand(shape).contiguous()


@more
@given(drawn=_along())
def test_gathers(drawn: Any) -> None:
    x, dim, line = drawn
    agree(aten.gather.default, x, dim, _everywhere(x, dim, line), by=ref.gather)
    agree(aten.index_select.default, x, dim, line, by=ref.index_select)
    agree(aten.take.default, x, spread(len(line), x.numel()), by=ref.take)
    agree(aten.index.Tensor, x, [None] * dim + [line], by=ref.index)


@few
@given(rows=st.integers(1, 3), columns=st.integers(1, 3), tail=shapes(max_dims=1))
def test_indexing_by_several_tensors(rows: int, columns: int, tail: list[int]) -> None:
    x = torch.randn(rows, columns, *tail, dtype=torch.float64)
    i, j = torch.randperm(rows)[:, None], torch.randperm(columns)[None, :]
    agree(aten.index.Tensor, x, [i, j], by=ref.index)
    values = torch.randn(rows, columns, *tail, dtype=torch.float64)
    for accumulate in (False, True):
        agree(aten.index_put_.default, x.clone(), [i, j], values, accumulate, by=ref.index_put_)


@pytest.mark.parametrize("accumulate", [False, True])
@more
@given(drawn=_along(distinct=True), scalar=st.booleans())
def test_index_put(accumulate: bool, drawn: Any, scalar: bool) -> None:
    x, dim, line = drawn
    shape = [len(line) if d == dim else n for d, n in enumerate(x.shape)]
    values = torch.randn([] if scalar else shape, dtype=torch.float64)
    index = [None] * dim + [line]
    agree(aten.index_put.default, x, index, values, accumulate, by=ref.index_put)
    agree(aten.index_put_.default, x.clone(), index, values, accumulate, by=ref.index_put_)


@more
@given(drawn=_along(distinct=True))
def test_scatters(drawn: Any) -> None:
    x, dim, line = drawn
    index = _everywhere(x, dim, line)
    source = torch.randn(index.shape, dtype=torch.float64)
    agree(aten.scatter.src, x, dim, index, source, by=ref.scatter)
    agree(aten.scatter.value, x, dim, index, 2.0, by=ref.scatter)
    agree(aten.scatter_.src, x.clone(), dim, index, source, by=ref.scatter_)
    agree(aten.scatter_.value, x.clone(), dim, index, 2.0, by=ref.scatter_)
    agree(aten.index_copy.default, x, dim, line, source, by=ref.index_copy)
    agree(aten.index_fill.int_Scalar, x, dim, line, 2.0, by=ref.index_fill)


@more
@given(drawn=_along(), alpha=st.sampled_from([1, 2]))
def test_accumulating_scatters(drawn: Any, alpha: int) -> None:
    x, dim, line = drawn
    index = _everywhere(x, dim, line)
    source = torch.randn(index.shape, dtype=torch.float64)
    agree(aten.scatter_add.default, x, dim, index, source, by=ref.scatter_add)
    agree(aten.scatter_add_.default, x.clone(), dim, index, source, by=ref.scatter_add_)
    agree(aten.index_add.default, x, dim, line, source, alpha=alpha, by=ref.index_add)
    agree(aten.index_add_.default, x.clone(), dim, line, source, alpha=alpha, by=ref.index_add_)


@few
@given(data=st.data(), shape=shapes(max_dims=3))
def test_selection_by_mask(data: st.DataObject, shape: list[int]) -> None:
    x, mask = data.draw(tensors(shape, expanded=False)), data.draw(tensors(shape, torch.bool, expanded=False))
    agree(aten.masked_select.default, x, mask, by=ref.masked_select)
    agree(aten.nonzero.default, mask, by=ref.nonzero)
