"""Pooling and interpolation. Windows are dense: a tap on the padding compares or adds a constant no memory holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import torch

from oracle.buffers import Buffer, Machine, indices
from oracle.counting import total

Place = tuple[int, ...]


def _each(values: Any, dims: int) -> list[int]:
    values = [values] if isinstance(values, int) else list(values)
    return values * dims if len(values) == 1 else values


def _extent(size: int, k: int, s: int, p: int, d: int, ceil_mode: bool) -> int:
    """Outputs along one dimension; with ceil_mode the last window must still start inside input or left padding."""
    span = size + 2 * p - d * (k - 1) - 1
    out = (math.ceil(span / s) if ceil_mode else span // s) + 1
    return out - 1 if ceil_mode and (out - 1) * s >= size + p else out


def max_pool(
    m: Machine, x: Buffer, kernel: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> tuple[Buffer, Buffer]:
    """The largest of each window and its position in the plane: one comparison per tap after the first."""
    dims = len(_each(kernel, 2))
    kernel = _each(kernel, dims)
    stride, padding, dilation = _each(stride or kernel, dims), _each(padding, dims), _each(dilation, dims)
    lead, plane = x.shape[:-dims], x.shape[-dims:]
    sizes = [_extent(*a, ceil_mode) for a in zip(plane, kernel, stride, padding, dilation, strict=True)]
    out, at = m.new([*lead, *sizes], x.dtype), m.new([*lead, *sizes], torch.int64)
    for head, spot in product(indices(lead), indices(sizes)):
        best: Any = None
        where: int = -1
        for tap in indices(kernel):
            place = [o * s + u * d - p for o, s, u, d, p in zip(spot, stride, tap, dilation, padding, strict=True)]
            inside = all(0 <= i < n for i, n in zip(place, plane, strict=True))
            candidate = x[head + tuple(place)] if inside else -math.inf
            flat = 0
            for i, n in zip(place, plane, strict=True):
                flat = flat * n + i
            if best is None:
                best, where = candidate, flat if inside else -1
                continue
            m.scalar_op(1)  # the comparison, which two constants on the padding would escape
            if _plain(candidate) > _plain(best):
                best, where = candidate, flat
        out[head + spot], at[head + spot] = best, where
    return out, at


def _plain(v: Any) -> Any:
    return getattr(v, "value", v)


def max_pool2d_backward(m: Machine, grad: Buffer, x: Buffer, *options: Any) -> Buffer:
    """Each gradient is added to the element its window chose; the input itself is not read."""
    *_, chosen = options
    plane = x.shape[-2:]
    out = m.zeros(x.shape, x.dtype)
    for i in indices(grad.shape):
        place = (*i[:-2], *divmod(int(chosen[i]), plane[1]))
        out[place] = out[place] + grad[i]
    return out


def avg_pool2d(
    m: Machine,
    x: Buffer,
    kernel: Any,
    stride: Any = (),
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Buffer:
    """The sum of the window's taps over its size: k - 1 additions and a division."""
    kernel = _each(kernel, 2)
    stride, padding = _each(stride or kernel, 2), _each(padding, 2)
    lead, plane = x.shape[:-2], x.shape[-2:]
    sizes = [_extent(*a, 1, ceil_mode) for a in zip(plane, kernel, stride, padding, strict=True)]
    out = m.new([*lead, *sizes], x.dtype)
    for head, spot in product(indices(lead), indices(sizes)):
        taps = _window(spot, kernel, stride, padding, plane)
        values = [x[head + t] if t is not None else 0.0 for t in taps]
        summed = values[0]
        for v in values[1:]:
            m.scalar_op(1)
            summed = _plain(summed) + _plain(v)
        m.scalar_op(1)
        out[head + spot] = _plain(summed) / _divisor(
            spot, kernel, stride, padding, plane, count_include_pad, divisor_override
        )
    return out


def _window(
    spot: Place, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], plane: Sequence[int]
) -> list[Place | None]:
    places = []
    for tap in indices(kernel):
        place = tuple(o * s + u - p for o, s, u, p in zip(spot, stride, tap, padding, strict=True))
        places.append(place if all(0 <= i < n for i, n in zip(place, plane, strict=True)) else None)
    return places


def _divisor(
    spot: Place,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    plane: Sequence[int],
    count_include_pad: bool,
    divisor_override: int | None,
) -> int:
    if divisor_override:
        return divisor_override
    size = 1
    for o, k, s, p, n in zip(spot, kernel, stride, padding, plane, strict=True):
        low, high = o * s - p, min(o * s - p + k, n + p)
        size *= high - low if count_include_pad else min(high, n) - max(low, 0)
    return size


def avg_pool2d_backward(
    m: Machine,
    grad: Buffer,
    x: Buffer,
    kernel: Any,
    stride: Any,
    padding: Any,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Buffer:
    """g over the window's size, added to every tap; taps on the padding are taps."""
    kernel = _each(kernel, 2)
    stride, padding = _each(stride or kernel, 2), _each(padding, 2)
    plane = x.shape[-2:]
    out = m.zeros(x.shape, x.dtype)
    for i in indices(grad.shape):
        head, spot = i[:-2], i[-2:]
        share = grad[i] / _divisor(spot, kernel, stride, padding, plane, count_include_pad, divisor_override)
        for tap in _window(spot, kernel, stride, padding, plane):
            if tap is None:
                m.scalar_op(1)
            else:
                out[head + tap] = out[head + tap] + share
    return out


def _cells(size: int, out: int) -> list[range]:
    """Adaptive windows of one dimension: they cover it, and overlap when it does not divide."""
    return [range(o * size // out, -(-(o + 1) * size // out)) for o in range(out)]


def adaptive_avg_pool2d(m: Machine, x: Buffer, output_size: Sequence[int]) -> Buffer:
    """The mean of each adaptive window."""
    rows, columns = (_cells(n, o) for n, o in zip(x.shape[-2:], output_size, strict=True))
    out = m.new([*x.shape[:-2], *output_size], x.dtype)
    for i in indices(out.shape):
        window = [x[(*i[:-2], r, c)] for r, c in product(rows[i[-2]], columns[i[-1]])]
        out[i] = total(window) / len(window)
    return out


def adaptive_avg_pool2d_backward(m: Machine, grad: Buffer, x: Buffer) -> Buffer:
    """g over the window's size, added to every element of the window."""
    rows, columns = (_cells(n, o) for n, o in zip(x.shape[-2:], grad.shape[-2:], strict=True))
    out = m.zeros(x.shape, x.dtype)
    for i in indices(grad.shape):
        window = list(product(rows[i[-2]], columns[i[-1]]))
        share = grad[i] / len(window)
        for r, c in window:
            out[(*i[:-2], r, c)] = out[(*i[:-2], r, c)] + share
    return out


def adaptive_max_pool2d(m: Machine, x: Buffer, output_size: Sequence[int]) -> tuple[Buffer, Buffer]:
    """The largest of each adaptive window and where it is."""
    rows, columns = (_cells(n, o) for n, o in zip(x.shape[-2:], output_size, strict=True))
    shape = [*x.shape[:-2], *output_size]
    out, at = m.new(shape, x.dtype), m.new(shape, torch.int64)
    for i in indices(shape):
        places = list(product(rows[i[-2]], columns[i[-1]]))
        best, where = x[(*i[:-2], *places[0])], places[0]
        for place in places[1:]:
            candidate = x[(*i[:-2], *place)]
            if candidate > best:
                best, where = candidate, place
        out[i], at[i] = best, where[0] * x.shape[-1] + where[1]
    return out, at


def upsample_nearest2d(
    m: Machine, x: Buffer, output_size: Sequence[int], scales_h: float | None = None, scales_w: float | None = None
) -> Buffer:
    """Each output copies one input element."""
    out = m.new([*x.shape[:2], *output_size], x.dtype)
    for n, c, h, w in indices(out.shape):
        out[n, c, h, w] = x[n, c, h * x.shape[2] // output_size[0], w * x.shape[3] // output_size[1]]
    return out


def upsample_nearest2d_backward(
    m: Machine, grad: Buffer, output_size: Sequence[int], input_size: Sequence[int], *_: Any
) -> Buffer:
    """Each gradient is added to the element its output copied."""
    out = m.zeros(input_size, grad.dtype)
    for n, c, h, w in indices(grad.shape):
        place = (n, c, h * input_size[2] // output_size[0], w * input_size[3] // output_size[1])
        out[place] = out[place] + grad[n, c, h, w]
    return out


Ends = tuple[tuple[int, float], tuple[int, float]]


def _ends(o: int, size: int, out: int, align_corners: bool) -> Ends:
    """The two neighbours of an output position in one dimension, with their weights."""
    if align_corners:
        source = o * (size - 1) / (out - 1) if out > 1 else 0.0
    else:
        source = max((o + 0.5) * size / out - 0.5, 0.0)
    low = min(int(source), size - 1)
    return (low, 1 - (source - low)), (min(low + 1, size - 1), source - low)


def upsample_bilinear2d(m: Machine, x: Buffer, output_size: Sequence[int], align_corners: bool, *_: Any) -> Buffer:
    """Interpolate along the row above and the row below, then between them: three times a w0 + b w1."""
    out = m.new([*x.shape[:2], *output_size], x.dtype)
    for n, c, h, w in indices(out.shape):
        (top, above), (bottom, below) = _ends(h, x.shape[2], output_size[0], align_corners)
        (left, before), (right, after) = _ends(w, x.shape[3], output_size[1], align_corners)
        first = x[n, c, top, left] * before + x[n, c, top, right] * after
        second = x[n, c, bottom, left] * before + x[n, c, bottom, right] * after
        out[n, c, h, w] = first * above + second * below
    return out


def upsample_bilinear2d_backward(
    m: Machine, grad: Buffer, output_size: Sequence[int], input_size: Sequence[int], align_corners: bool, *_: Any
) -> Buffer:
    """The forward's steps turned round: g to two rows, each to two columns, four additions."""
    out = m.zeros(input_size, grad.dtype)
    for n, c, h, w in indices(grad.shape):
        (top, above), (bottom, below) = _ends(h, input_size[2], output_size[0], align_corners)
        (left, before), (right, after) = _ends(w, input_size[3], output_size[1], align_corners)
        g = grad[n, c, h, w]
        for row, share in ((top, g * above), (bottom, g * below)):
            for column, weight in ((left, before), (right, after)):
                out[n, c, row, column] = out[n, c, row, column] + share * weight
    return out
