"""Pooling in any dimension. Windows are dense: a tap on the padding compares or adds a constant no memory holds."""

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


def max_pool_backward(m: Machine, grad: Buffer, x: Buffer, *options: Any) -> Buffer:
    """Each gradient is added to the element its window chose; the input itself is not read."""
    chosen = options[-1]
    dims = len(options[0]) if len(options) > 1 else 2
    places = list(indices(x.shape[-dims:]))
    out = m.zeros(x.shape, x.dtype)
    for i in indices(grad.shape):
        place = i[:-dims] + places[int(chosen[i])]
        out[place] = out[place] + grad[i]
    return out


def avg_pool(
    m: Machine,
    x: Buffer,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Buffer:
    """The sum of the window's taps over its size: k - 1 additions and a division."""
    dims = len(kernel)
    stride, padding = stride or kernel, _each(padding, dims)
    lead, plane = x.shape[:-dims], x.shape[-dims:]
    sizes = [_extent(*a, 1, ceil_mode) for a in zip(plane, kernel, stride, padding, strict=True)]
    out = m.new([*lead, *sizes], x.dtype)
    for head, spot in product(indices(lead), indices(sizes)):
        taps = _window(spot, kernel, stride, padding, plane)
        values = [_plain(x[head + t]) if t is not None else 0.0 for t in taps]
        m.scalar_op(len(values) - 1)  # additions, of padding too, which plain constants would escape
        divisor = divisor_override or _window_size(spot, kernel, stride, padding, plane, count_include_pad)
        m.scalar_op(1)
        out[head + spot] = sum(values) / divisor
    return out


def _window(
    spot: Place, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], plane: Sequence[int]
) -> list[Place | None]:
    """The elements of a window, None for a tap on the padding."""
    places = []
    for tap in indices(kernel):
        place = tuple(o * s + u - p for o, s, u, p in zip(spot, stride, tap, padding, strict=True))
        places.append(place if all(0 <= i < n for i, n in zip(place, plane, strict=True)) else None)
    return places


def _window_size(
    spot: Place,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    plane: Sequence[int],
    count_include_pad: bool,
) -> int:
    """What a mean divides by: the window cut off at the padding's edge, or at the input's."""
    size = 1
    for o, k, s, p, n in zip(spot, kernel, stride, padding, plane, strict=True):
        low, high = o * s - p, min(o * s - p + k, n + p)
        size *= high - low if count_include_pad else min(high, n) - max(low, 0)
    return size


def avg_pool_backward(
    m: Machine,
    grad: Buffer,
    x: Buffer,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Buffer:
    """g over the window's size, added to every tap; taps on the padding are taps."""
    dims = len(kernel)
    plane = x.shape[-dims:]
    out = m.zeros(x.shape, x.dtype)
    for i in indices(grad.shape):
        head, spot = i[:-dims], i[-dims:]
        divisor = divisor_override or _window_size(spot, kernel, stride, padding, plane, count_include_pad)
        share = grad[i] / divisor
        for tap in _window(spot, kernel, stride, padding, plane):
            if tap is None:
                m.scalar_op(1)
            else:
                out[head + tap] = out[head + tap] + share
    return out


def _cells(size: int, out: int) -> list[range]:
    """Adaptive windows of one dimension: they cover it, and overlap when it does not divide."""
    return [range(o * size // out, -(-(o + 1) * size // out)) for o in range(out)]


def _adaptive(plane: Sequence[int], sizes: Sequence[int]) -> dict[Place, list[Place]]:
    """The elements of every adaptive window, by output position."""
    cells = [_cells(n, o) for n, o in zip(plane, sizes, strict=True)]
    return {spot: list(product(*(c[o] for c, o in zip(cells, spot, strict=True)))) for spot in indices(sizes)}


def adaptive_avg_pool(m: Machine, x: Buffer, output_size: Sequence[int]) -> Buffer:
    """The mean of each adaptive window."""
    dims = len(output_size)
    windows = _adaptive(x.shape[-dims:], output_size)
    out = m.new([*x.shape[:-dims], *output_size], x.dtype)
    for i in indices(out.shape):
        window = [x[i[:-dims] + place] for place in windows[i[-dims:]]]
        out[i] = total(window) / len(window)
    return out


def adaptive_avg_pool_backward(dims: int) -> Any:
    """g over the window's size, added to every element of the window."""

    def reference(m: Machine, grad: Buffer, x: Buffer) -> Buffer:
        windows = _adaptive(x.shape[-dims:], grad.shape[-dims:])
        out = m.zeros(x.shape, x.dtype)
        for i in indices(grad.shape):
            window = windows[i[-dims:]]
            share = grad[i] / len(window)
            for place in window:
                out[i[:-dims] + place] = out[i[:-dims] + place] + share
        return out

    return reference


def adaptive_max_pool(m: Machine, x: Buffer, output_size: Sequence[int]) -> tuple[Buffer, Buffer]:
    """The largest of each adaptive window and where it is."""
    dims = len(output_size)
    plane = x.shape[-dims:]
    numbers = {place: n for n, place in enumerate(indices(plane))}
    windows = _adaptive(plane, output_size)
    shape = [*x.shape[:-dims], *output_size]
    out, at = m.new(shape, x.dtype), m.new(shape, torch.int64)
    for i in indices(shape):
        first, *rest = windows[i[-dims:]]
        best, where = x[i[:-dims] + first], first
        for place in rest:
            candidate = x[i[:-dims] + place]
            if candidate > best:
                best, where = candidate, place
        out[i], at[i] = best, numbers[where]
    return out, at
