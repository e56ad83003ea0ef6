"""Gathers and scatters: they touch what the indices select, and an accumulating one adds once per source element."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import torch

from oracle.buffers import Buffer, Machine, indices

Place = tuple[int, ...]
Places = Sequence[Buffer | None]


def _replaced(place: Place, dim: int, by: int) -> Place:
    return (*place[:dim], by, *place[dim + 1 :])


def _copied_but(m: Machine, x: Buffer, skipped: set[Place]) -> Buffer:
    """A copy of ``x`` without the places that will be overwritten: those are not read."""
    out = m.new(x.shape, x.dtype)
    for i in indices(x.shape):
        if i not in skipped:
            out[i] = x[i]
    return out


def embedding(m: Machine, weight: Buffer, index: Buffer, *_: Any) -> Buffer:
    out = m.new([*index.shape, weight.shape[1]], weight.dtype)
    for i in indices(index.shape):
        row = int(index[i])
        for j in range(weight.shape[1]):
            out[(*i, j)] = weight[row, j]
    return out


def embedding_dense_backward(
    m: Machine, grad: Buffer, index: Buffer, num_weights: int, padding_idx: int, scale_grad_by_freq: bool
) -> Buffer:
    """Zeros, and every gradient row added to the row it came from."""
    out = m.zeros([num_weights, grad.shape[-1]], grad.dtype)
    for i in indices(index.shape):
        row = int(index[i])
        for j in range(grad.shape[-1]):
            out[row, j] = out[row, j] + grad[(*i, j)]
    return out


def gather(m: Machine, x: Buffer, dim: int, index: Buffer) -> Buffer:
    out = m.new(index.shape, x.dtype)
    for i in indices(index.shape):
        out[i] = x[_replaced(i, dim, int(index[i]))]
    return out


def index_select(m: Machine, x: Buffer, dim: int, index: Buffer) -> Buffer:
    shape = list(x.shape)
    shape[dim] = index.shape[0]
    out = m.new(shape, x.dtype)
    for i in indices(shape):
        out[i] = x[_replaced(i, dim, int(index[i[dim]]))]
    return out


def take(m: Machine, x: Buffer, index: Buffer) -> Buffer:
    """Elements by their number in row-major order."""
    places = list(indices(x.shape))
    out = m.new(index.shape, x.dtype)
    for i in indices(index.shape):
        out[i] = x[places[int(index[i])]]
    return out


def _addressed(x: Buffer, index: Sequence[Buffer | None]) -> tuple[list[int], list[tuple[Place, Place]]]:
    """Advanced indexing by tensors in the leading dimensions: the result's shape, and (result, source) places."""
    tensors = [t for t in index if t is not None]
    shape = torch.broadcast_shapes(*(t.shape for t in tensors))
    opened = [t.expand(shape) for t in tensors]
    first = next(d for d, t in enumerate(index) if t is not None)
    head, tail = x.shape[:first], x.shape[first + len(tensors) :]
    pairs = []
    for h, i, t in product(indices(head), indices(shape), indices(tail)):
        pairs.append((h + i + t, h + tuple(int(b[i]) for b in opened) + t))
    return [*head, *shape, *tail], pairs


def index(m: Machine, x: Buffer, chosen: Places) -> Buffer:
    shape, pairs = _addressed(x, chosen)
    out = m.new(shape, x.dtype)
    for place, source in pairs:
        out[place] = x[source]
    return out


def index_put_(m: Machine, x: Buffer, chosen: Places, values: Buffer, accumulate: bool = False) -> Buffer:
    """In place: what is not accumulated is overwritten unread."""
    shape, pairs = _addressed(x, chosen)
    values = values.expand(shape)
    for place, target in pairs:
        x[target] = x[target] + values[place] if accumulate else values[place]
    return x


def index_put(m: Machine, x: Buffer, chosen: Places, values: Buffer, accumulate: bool = False) -> Buffer:
    _, pairs = _addressed(x, chosen)
    out = _copied_but(m, x, set() if accumulate else {target for _, target in pairs})
    return index_put_(m, out, chosen, values, accumulate)


def scatter(m: Machine, x: Buffer, dim: int, at: Buffer, source: Any) -> Buffer:
    """A copy whose chosen elements are replaced: those of ``x`` are not read."""
    targets = {i: _replaced(i, dim, int(at[i])) for i in indices(at.shape)}
    out = _copied_but(m, x, set(targets.values()))
    for i, target in targets.items():
        out[target] = source[i] if isinstance(source, Buffer) else source
    return out


def scatter_(m: Machine, x: Buffer, dim: int, at: Buffer, source: Any) -> Buffer:
    for i in indices(at.shape):
        x[_replaced(i, dim, int(at[i]))] = source[i] if isinstance(source, Buffer) else source
    return x


def scatter_add_(m: Machine, x: Buffer, dim: int, at: Buffer, source: Buffer) -> Buffer:
    for i in indices(at.shape):
        target = _replaced(i, dim, int(at[i]))
        x[target] = x[target] + source[i]
    return x


def scatter_add(m: Machine, x: Buffer, dim: int, at: Buffer, source: Buffer) -> Buffer:
    return scatter_add_(m, _copied_but(m, x, set()), dim, at, source)


def index_add_(m: Machine, x: Buffer, dim: int, at: Buffer, source: Buffer, *, alpha: float = 1) -> Buffer:
    for i in indices(source.shape):
        target = _replaced(i, dim, int(at[i[dim]]))
        x[target] = x[target] + (source[i] if alpha == 1 else source[i] * alpha)
    return x


def index_add(m: Machine, x: Buffer, dim: int, at: Buffer, source: Buffer, *, alpha: float = 1) -> Buffer:
    return index_add_(m, _copied_but(m, x, set()), dim, at, source, alpha=alpha)


def index_copy(m: Machine, x: Buffer, dim: int, at: Buffer, source: Buffer) -> Buffer:
    chosen = {int(at[k]) for k in range(at.shape[0])}
    out = _copied_but(m, x, {i for i in indices(x.shape) if i[dim] in chosen})
    for i in indices(source.shape):
        out[_replaced(i, dim, int(at[i[dim]]))] = source[i]
    return out


def index_fill(m: Machine, x: Buffer, dim: int, at: Buffer, number: float) -> Buffer:
    chosen = {int(at[k]) for k in range(at.shape[0])}
    out = _copied_but(m, x, {i for i in indices(x.shape) if i[dim] in chosen})
    for i in indices(x.shape):
        if i[dim] in chosen:
            out[i] = number
    return out


def masked_select(m: Machine, x: Buffer, mask: Buffer) -> Buffer:
    """The whole mask is read, and what it selects."""
    chosen = [i for i in indices(mask.shape) if mask[i]]
    out = m.new([len(chosen)], x.dtype)
    for k, i in enumerate(chosen):
        out[k] = x[i]
    return out


def nonzero(m: Machine, x: Buffer) -> Buffer:
    """The indices of what is not zero: a selection."""
    chosen = [i for i in indices(x.shape) if x[i]]
    out = m.new([len(chosen), len(x.shape)], torch.int64)
    for k, i in enumerate(chosen):
        for d, v in enumerate(i):
            out[k, d] = v
    return out
