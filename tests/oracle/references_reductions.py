"""Reductions over chosen dimensions, scans, and the softmaxes."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import torch

from oracle.buffers import Buffer, Machine, indices
from oracle.counting import exp, largest, log, maximum, product, smallest, sqrt, total, value

Row = list[tuple[int, ...]]


def rows(shape: Sequence[int], dims: Sequence[int] | None) -> list[tuple[tuple[int, ...], Row]]:
    """The kept index (reduced dimensions at 0) and the indices it reduces, for every row."""
    reduced = {d % len(shape) for d in dims} if dims else set(range(len(shape)))
    outer = [1 if d in reduced else n for d, n in enumerate(shape)]
    inner = [n if d in reduced else 1 for d, n in enumerate(shape)]
    return [(o, [tuple(map(operator.add, o, i)) for i in indices(inner)]) for o in indices(outer)]


def reduced_shape(shape: Sequence[int], dims: Sequence[int] | None, keepdim: bool) -> list[int]:
    """The output's shape."""
    reduced = {d % len(shape) for d in dims} if dims else set(range(len(shape)))
    if keepdim:
        return [1 if d in reduced else n for d, n in enumerate(shape)]
    return [n for d, n in enumerate(shape) if d not in reduced]


def _outputs(
    m: Machine,
    f: Callable[[list[Any]], tuple[Any, ...]],
    x: Buffer,
    dims: Sequence[int] | None,
    keepdim: bool,
    dtypes: Sequence[torch.dtype],
) -> tuple[Buffer, ...]:
    shape = reduced_shape(x.shape, dims, keepdim)
    outs = tuple(m.new(shape, dtype) for dtype in dtypes)
    for place, (_, row) in zip(indices(shape), rows(x.shape, dims), strict=True):
        for out, result in zip(outs, f([x[i] for i in row]), strict=True):
            out[place] = result
    return outs


def reduction(f: Callable[[list[Any]], Any], dtype: torch.dtype | None = None) -> Callable[..., Buffer]:
    """The definition of an op that is ``f`` of every row: ``op(x, dims=None, keepdim=False)``."""

    def reference(m: Machine, x: Buffer, dims: Any = None, keepdim: bool = False, **_: Any) -> Buffer:
        dims = [dims] if isinstance(dims, int) else dims
        return _outputs(m, lambda row: (f(row),), x, dims, keepdim, [dtype or x.dtype])[0]

    return reference


def mean(row: list[Any]) -> Any:
    return total(row) / len(row)


def centred_squares(row: list[Any]) -> tuple[Any, Any]:
    """The mean and the sum of squares about it."""
    centre = mean(row)
    centred = [v - centre for v in row]
    return centre, total([v * v for v in centred])


def var(m: Machine, x: Buffer, dims: Any = None, *, correction: int = 1, keepdim: bool = False) -> Buffer:
    return reduction(lambda row: centred_squares(row)[1] / (len(row) - correction))(m, x, dims, keepdim)


def std(m: Machine, x: Buffer, dims: Any = None, *, correction: int = 1, keepdim: bool = False) -> Buffer:
    return reduction(lambda row: sqrt(centred_squares(row)[1] / (len(row) - correction)))(m, x, dims, keepdim)


def var_mean(
    m: Machine, x: Buffer, dims: Any = None, *, correction: int = 1, keepdim: bool = False
) -> tuple[Buffer, ...]:
    def f(row: list[Any]) -> tuple[Any, Any]:
        centre, squares = centred_squares(row)
        return squares / (len(row) - correction), centre

    return _outputs(m, f, x, dims, keepdim, [x.dtype, x.dtype])


def _first(row: list[Any], wins: Callable[[Any, Any], Any]) -> tuple[Any, int]:
    best, at = row[0], 0
    for i, v in enumerate(row[1:], 1):
        if wins(v, best):
            best, at = v, i
    return best, at


def argmax(row: list[Any]) -> int:
    return _first(row, operator.gt)[1]


def argmin(row: list[Any]) -> int:
    return _first(row, operator.lt)[1]


def max_dim(m: Machine, x: Buffer, dim: int, keepdim: bool = False) -> tuple[Buffer, ...]:
    """The largest and where it is: one comparison finds both."""
    return _outputs(m, lambda row: _first(row, operator.gt), x, [dim], keepdim, [x.dtype, torch.int64])


def min_dim(m: Machine, x: Buffer, dim: int, keepdim: bool = False) -> tuple[Buffer, ...]:
    return _outputs(m, lambda row: _first(row, operator.lt), x, [dim], keepdim, [x.dtype, torch.int64])


def aminmax(m: Machine, x: Buffer, *, dim: int | None = None, keepdim: bool = False) -> tuple[Buffer, ...]:
    dims = None if dim is None else [dim]
    return _outputs(m, lambda row: (smallest(row), largest(row)), x, dims, keepdim, [x.dtype, x.dtype])


def any_of(row: list[Any]) -> Any:
    result = row[0]
    for v in row[1:]:
        result = result | v
    return result


def all_of(row: list[Any]) -> Any:
    result = row[0]
    for v in row[1:]:
        result = result & v
    return result


def norm(row: list[Any], p: float) -> Any:
    """(sum |x|^p)^(1/p); squares need no absolute value."""
    if p == 2:
        return sqrt(total([v * v for v in row]))
    if p == 1:
        return total([abs(v) for v in row])
    if p == math.inf:
        return largest([abs(v) for v in row])
    if p == 0:
        return total([v != 0 for v in row])
    return total([abs(v) ** p for v in row]) ** (1 / p)


def vector_norm(m: Machine, x: Buffer, ord: float = 2, dim: Any = None, keepdim: bool = False) -> Buffer:
    return reduction(lambda row: norm(row, ord))(m, x, dim, keepdim)


def logsumexp(row: list[Any]) -> Any:
    """max + log(sum e^(x - max))."""
    top = largest(row)
    return log(total([exp(v - top) for v in row])) + top


def scan(f: Callable[[Any, Any], Any]) -> Callable[..., Buffer]:
    """Running sum, product, ...: one operation per element after the first of its row."""

    def reference(m: Machine, x: Buffer, dim: int) -> Buffer:
        out = m.new(x.shape, x.dtype)
        for _, row in rows(x.shape, [dim]):
            for i, v in zip(row, accumulate((x[i] for i in row), f), strict=True):
                out[i] = v
        return out

    return reference


def running_max(m: Machine, x: Buffer, dim: int) -> tuple[Buffer, Buffer]:
    """Running maximum and where it was."""
    out, at = m.new(x.shape, x.dtype), m.new(x.shape, torch.int64)
    for _, row in rows(x.shape, [dim]):
        best, where = x[row[0]], 0
        out[row[0]], at[row[0]] = best, 0
        for j, i in enumerate(row[1:], 1):
            if x[i] >= best:
                best, where = x[i], j
            out[i], at[i] = best, where
    return out, at


def softmax_row(row: list[Any]) -> list[Any]:
    top = largest(row)
    powers = [exp(v - top) for v in row]
    denominator = total(powers)
    return [p / denominator for p in powers]


def _by_row(f: Callable[..., list[Any]]) -> Callable[..., Buffer]:
    def reference(m: Machine, *arguments: Any) -> Buffer:
        buffers = [a for a in arguments if isinstance(a, Buffer)]
        dim = arguments[len(buffers)]
        out = m.new(buffers[0].shape, buffers[0].dtype)
        for _, row in rows(out.shape, [dim]):
            for i, v in zip(row, f(*([b[i] for i in row] for b in buffers)), strict=True):
                out[i] = v
        return out

    return reference


def _log_softmax_row(row: list[Any]) -> list[Any]:
    top = largest(row)
    centred = [v - top for v in row]
    shift = log(total([exp(v) for v in centred]))
    return [v - shift for v in centred]


def _softmax_backward_row(grad: list[Any], y: list[Any]) -> list[Any]:
    """y (g - sum g y)."""
    products = [g * v for g, v in zip(grad, y, strict=True)]
    dot = total(products)
    return [p - v * dot for p, v in zip(products, y, strict=True)]


def _log_softmax_backward_row(grad: list[Any], y: list[Any]) -> list[Any]:
    """g - e^y sum g."""
    s = total(grad)
    return [g - exp(v) * s for g, v in zip(grad, y, strict=True)]


def _safe_softmax_row(row: list[Any]) -> list[Any]:
    """Softmax, and zeros for a row masked whole: a test on the maximum, free as a selection is."""
    if all(value(v) == -math.inf for v in row):
        for v in row:
            v.value = 0.0
        return [0.0 for _ in softmax_row(row)]
    return softmax_row(row)


softmax = _by_row(softmax_row)
log_softmax = _by_row(_log_softmax_row)
softmax_backward = _by_row(_softmax_backward_row)
log_softmax_backward = _by_row(_log_softmax_backward_row)
safe_softmax = _by_row(_safe_softmax_row)
SUM, PROD = total, product
AMAX, AMIN = largest, smallest
CUMSUM, CUMPROD = scan(operator.add), scan(operator.mul)
LOGCUMSUMEXP = scan(lambda a, b: maximum(a, b) + log(exp(a - maximum(a, b)) + exp(b - maximum(a, b))))
