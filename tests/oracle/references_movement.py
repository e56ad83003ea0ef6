"""Data movement: nothing is computed; only what survives is read."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import torch

from oracle.buffers import Buffer, Machine, indices
from oracle.counting import total

Place = tuple[int, ...]


def copied(m: Machine, x: Buffer, *_: Any, **options: Any) -> Buffer:
    """A copy, cast when a dtype is given."""
    out = m.new(x.shape, options.get("dtype") or x.dtype)
    for i in indices(x.shape):
        out[i] = x[i]
    return out


def copy_(m: Machine, x: Buffer, source: Buffer) -> Buffer:
    """The old contents are not read."""
    source = source.expand(x.shape)
    for i in indices(x.shape):
        x[i] = source[i]
    return x


def filled_(m: Machine, x: Buffer, number: Any = 0) -> Buffer:
    """Written, unread."""
    for i in indices(x.shape):
        x[i] = number[()] if isinstance(number, Buffer) else number
    return x


def filled_like(m: Machine, x: Buffer, number: Any = 0, **_: Any) -> Buffer:
    """The shape is taken, the contents are not read."""
    return filled_(m, m.new(x.shape, x.dtype), number)


def ones_like(m: Machine, x: Buffer, **_: Any) -> Buffer:
    return filled_like(m, x, 1)


def created(number: Any) -> Any:
    """``zeros``, ``ones``: written out of nothing."""

    def reference(m: Machine, shape: Sequence[int], *, dtype: torch.dtype) -> Buffer:
        return filled_(m, m.new(shape, dtype), number)

    return reference


def full(m: Machine, shape: Sequence[int], number: Any, *, dtype: torch.dtype) -> Buffer:
    return filled_(m, m.new(shape, dtype), number)


def arange(m: Machine, end: int) -> Buffer:
    out = m.new([end], torch.int64)
    for i in range(end):
        out[i] = i
    return out


def cat(m: Machine, tensors: Sequence[Buffer], dim: int = 0) -> Buffer:
    shape = list(tensors[0].shape)
    shape[dim] = sum(t.shape[dim] for t in tensors)
    out = m.new(shape, tensors[0].dtype)
    start = 0
    for t in tensors:
        for i in indices(t.shape):
            out[(*i[:dim], i[dim] + start, *i[dim + 1 :])] = t[i]
        start += t.shape[dim]
    return out


def stack(m: Machine, tensors: Sequence[Buffer], dim: int = 0) -> Buffer:
    first = tensors[0].shape
    out = m.new([*first[:dim], len(tensors), *first[dim:]], tensors[0].dtype)
    for k, t in enumerate(tensors):
        for i in indices(t.shape):
            out[(*i[:dim], k, *i[dim:])] = t[i]
    return out


def flip(m: Machine, x: Buffer, dims: Sequence[int]) -> Buffer:
    out = m.new(x.shape, x.dtype)
    for i in indices(x.shape):
        out[tuple(n - 1 - v if d in dims else v for d, (v, n) in enumerate(zip(i, x.shape, strict=True)))] = x[i]
    return out


def roll(m: Machine, x: Buffer, shifts: Sequence[int], dims: Sequence[int]) -> Buffer:
    by = dict(zip(dims, shifts, strict=True))
    out = m.new(x.shape, x.dtype)
    for i in indices(x.shape):
        out[tuple((v + by.get(d, 0)) % n for d, (v, n) in enumerate(zip(i, x.shape, strict=True)))] = x[i]
    return out


def repeat(m: Machine, x: Buffer, repeats: Sequence[int]) -> Buffer:
    source = x.expand([1] * (len(repeats) - len(x.shape)) + list(x.shape))
    out = m.new([n * r for n, r in zip(source.shape, repeats, strict=True)], x.dtype)
    for i in indices(out.shape):
        out[i] = source[tuple(v % n for v, n in zip(i, source.shape, strict=True))]
    return out


def triangle(upper: bool) -> Any:
    """``tril`` and ``triu``: the triangle is read, everything is written."""

    def reference(m: Machine, x: Buffer, diagonal: int = 0) -> Buffer:
        out = m.new(x.shape, x.dtype)
        for i in indices(x.shape):
            offset = i[-1] - i[-2]
            kept = offset >= diagonal if upper else offset <= diagonal
            out[i] = x[i] if kept else 0
        return out

    return reference


def constant_pad_nd(m: Machine, x: Buffer, pad: Sequence[int], number: float = 0) -> Buffer:
    """Pairs from the last dimension backwards; a negative pad crops, and what is cropped is not read."""
    before, after = [0] * len(x.shape), [0] * len(x.shape)
    for k in range(len(pad) // 2):
        before[-1 - k], after[-1 - k] = pad[2 * k], pad[2 * k + 1]
    out = m.new([n + b + a for n, b, a in zip(x.shape, before, after, strict=True)], x.dtype)
    for i in indices(out.shape):
        source = tuple(v - b for v, b in zip(i, before, strict=True))
        inside = all(0 <= v < n for v, n in zip(source, x.shape, strict=True))
        out[i] = x[source] if inside else number
    return out


def _reflected(v: int, n: int) -> int:
    v = abs(v)
    return 2 * (n - 1) - v if v >= n else v


def _clamped(v: int, n: int) -> int:
    return min(max(v, 0), n - 1)


_EDGES = {"reflection": _reflected, "replication": _clamped}


def edge_pad2d(kind: str) -> Any:
    """Reflection and replication padding: every output copies an input."""
    source = _EDGES[kind]

    def reference(m: Machine, x: Buffer, padding: Sequence[int]) -> Buffer:
        left, right, top, bottom = padding
        *lead, h, w = x.shape
        out = m.new([*lead, h + top + bottom, w + left + right], x.dtype)
        for i in indices(out.shape):
            out[i] = x[(*i[:-2], source(i[-2] - top, h), source(i[-1] - left, w))]
        return out

    return reference


def edge_pad2d_backward(kind: str) -> Any:
    """Each gradient is added to the input its output copied; the input itself is not read."""
    source = _EDGES[kind]

    def reference(m: Machine, grad: Buffer, x: Buffer, padding: Sequence[int]) -> Buffer:
        left, _, top, _ = padding
        *_, h, w = x.shape
        out = m.zeros(x.shape, x.dtype)
        for i in indices(grad.shape):
            place = (*i[:-2], source(i[-2] - top, h), source(i[-1] - left, w))
            out[place] = out[place] + grad[i]
        return out

    return reference


def slice_backward(m: Machine, grad: Buffer, sizes: Sequence[int], dim: int, start: int, end: int, step: int) -> Buffer:
    """Zeros, and the gradient where the slice was."""
    out = m.zeros(sizes, grad.dtype)
    for i in indices(grad.shape):
        out[(*i[:dim], start + step * i[dim], *i[dim + 1 :])] = grad[i]
    return out


def select_backward(m: Machine, grad: Buffer, sizes: Sequence[int], dim: int, at: int) -> Buffer:
    out = m.zeros(sizes, grad.dtype)
    for i in indices(grad.shape):
        out[(*i[:dim], at, *i[dim:])] = grad[i]
    return out


def unfold_backward(m: Machine, grad: Buffer, sizes: Sequence[int], dim: int, size: int, step: int) -> Buffer:
    """Windows overlap: every gradient is added to the element it looked at."""
    out = m.zeros(sizes, grad.dtype)
    for i in indices(grad.shape):
        place = (*i[:dim], i[dim] * step + i[-1], *i[dim + 1 : -1])
        out[place] = out[place] + grad[i]
    return out


def slice_scatter(m: Machine, x: Buffer, source: Buffer, dim: int, start: int, end: int, step: int) -> Buffer:
    """A copy with a slice replaced: that slice of ``x`` is not read."""
    out = m.new(x.shape, x.dtype)
    replaced = {start + step * k: k for k in range(source.shape[dim])}
    for i in indices(x.shape):
        k = replaced.get(i[dim])
        out[i] = x[i] if k is None else source[(*i[:dim], k, *i[dim + 1 :])]
    return out


def select_scatter(m: Machine, x: Buffer, source: Buffer, dim: int, at: int) -> Buffer:
    out = m.new(x.shape, x.dtype)
    for i in indices(x.shape):
        out[i] = source[(*i[:dim], *i[dim + 1 :])] if i[dim] == at else x[i]
    return out


def trace(m: Machine, x: Buffer) -> Buffer:
    """The sum of the diagonal, and nothing else is read."""
    out = m.new([], x.dtype)
    out[()] = total([x[i, i] for i in range(min(x.shape))])
    return out


def im2col(
    m: Machine, x: Buffer, kernel: Sequence[int], dilation: Sequence[int], padding: Sequence[int], stride: Sequence[int]
) -> Buffer:
    """Every window as a column; padding reads nothing."""
    n, c, h, w = x.shape
    rows, columns = (
        (size + 2 * p - d * (k - 1) - 1) // s + 1
        for size, k, d, p, s in zip((h, w), kernel, dilation, padding, stride, strict=True)
    )
    out = m.new([n, c * kernel[0] * kernel[1], rows * columns], x.dtype)
    for b, ch, u, v, r, q in product(*map(range, (n, c, *kernel, rows, columns))):
        y = r * stride[0] + u * dilation[0] - padding[0]
        z = q * stride[1] + v * dilation[1] - padding[1]
        inside = 0 <= y < h and 0 <= z < w
        out[b, (ch * kernel[0] + u) * kernel[1] + v, r * columns + q] = x[b, ch, y, z] if inside else 0
    return out
