"""Elementwise definitions: one function of scalars, applied at every output index."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from oracle.buffers import Buffer, Machine, indices
from oracle.counting import clamp, maximum, minimum, scaled, select


def pointwise(
    m: Machine, f: Callable[..., Any], *operands: Any, out: Buffer | None = None, dtype: torch.dtype | None = None
) -> Buffer:
    """``f`` at every index of the broadcast shape; operands are buffers or plain numbers."""
    buffers = [o for o in operands if isinstance(o, Buffer)]
    shape = torch.broadcast_shapes(*(b.shape for b in buffers))
    if out is None:
        out = m.new(shape, dtype or buffers[0].dtype)
    opened = [o.expand(shape) if isinstance(o, Buffer) else o for o in operands]
    for i in indices(shape):
        out[i] = f(*(o[i] if isinstance(o, Buffer) else o for o in opened))
    return out


def elementwise(f: Callable[..., Any], dtype: torch.dtype | None = None) -> Callable[..., Buffer]:
    """The definition of a functional op that is ``f`` of its tensors and scalars."""

    def reference(m: Machine, *operands: Any) -> Buffer:
        return pointwise(m, f, *operands, dtype=dtype)

    return reference


def inplace(f: Callable[..., Any]) -> Callable[..., Buffer]:
    """The definition of an op that overwrites its first argument with ``f`` of it and the others."""

    def reference(m: Machine, *operands: Any) -> Buffer:
        return pointwise(m, f, *operands, out=operands[0])

    return reference


def add(m: Machine, a: Any, b: Any, alpha: float = 1) -> Buffer:
    """a + alpha b."""
    return pointwise(m, lambda x, y: x + scaled(y, alpha), a, b)


def add_(m: Machine, a: Buffer, b: Any, alpha: float = 1) -> Buffer:
    """a <- a + alpha b."""
    return pointwise(m, lambda x, y: x + scaled(y, alpha), a, b, out=a)


def sub(m: Machine, a: Any, b: Any, alpha: float = 1) -> Buffer:
    """a - alpha b."""
    return pointwise(m, lambda x, y: x - scaled(y, alpha), a, b)


def rsub(m: Machine, a: Any, b: Any, alpha: float = 1) -> Buffer:
    """b - alpha a."""
    return pointwise(m, lambda x, y: y - scaled(x, alpha), a, b)


def addcmul(m: Machine, a: Buffer, t1: Buffer, t2: Buffer, value: float = 1) -> Buffer:
    """a + value t1 t2."""
    return pointwise(m, lambda x, p, q: x + scaled(p, value) * q, a, t1, t2)


def addcmul_(m: Machine, a: Buffer, t1: Buffer, t2: Buffer, value: float = 1) -> Buffer:
    """a <- a + value t1 t2."""
    return pointwise(m, lambda x, p, q: x + scaled(p, value) * q, a, t1, t2, out=a)


def addcdiv(m: Machine, a: Buffer, t1: Buffer, t2: Buffer, value: float = 1) -> Buffer:
    """a + value t1 / t2."""
    return pointwise(m, lambda x, p, q: x + scaled(p, value) / q, a, t1, t2)


def addcdiv_(m: Machine, a: Buffer, t1: Buffer, t2: Buffer, value: float = 1) -> Buffer:
    """a <- a + value t1 / t2."""
    return pointwise(m, lambda x, p, q: x + scaled(p, value) / q, a, t1, t2, out=a)


def lerp(m: Machine, a: Buffer, b: Buffer, weight: Any) -> Buffer:
    """a + weight (b - a)."""
    return pointwise(m, lambda x, y, w: x + w * (y - x), a, b, weight)


def lerp_(m: Machine, a: Buffer, b: Buffer, weight: Any) -> Buffer:
    """a <- a + weight (b - a)."""
    return pointwise(m, lambda x, y, w: x + w * (y - x), a, b, weight, out=a)


def clamp_between(m: Machine, a: Buffer, low: Any = None, high: Any = None) -> Buffer:
    """min(max(a, low), high), one comparison per bound given."""
    if high is None:
        return pointwise(m, maximum, a, low)
    if low is None:
        return pointwise(m, minimum, a, high)
    return pointwise(m, clamp, a, low, high)


def where(m: Machine, condition: Buffer, a: Buffer, b: Buffer) -> Buffer:
    """A dense choice: both sides are read, nothing is computed."""
    return pointwise(m, lambda c, x, y: (x, y)[0] if c else y, condition, a, b, dtype=a.dtype)


def masked_fill(m: Machine, a: Buffer, mask: Buffer, number: Any) -> Buffer:
    """a where the mask is false, the number elsewhere; the number may be a 0-dim tensor."""
    return pointwise(m, lambda x, c, v: select(c, v, x), a, mask, number)


def masked_fill_(m: Machine, a: Buffer, mask: Buffer, number: Any) -> Buffer:
    """The same in place: dense, since the mask is not known."""
    return pointwise(m, lambda x, c, v: select(c, v, x), a, mask, number, out=a)


def prelu(m: Machine, x: Buffer, weight: Buffer) -> Buffer:
    """x where positive, weight x elsewhere."""
    return pointwise(m, lambda v, w: select(v > 0, v, v * w), x, weight)


def prelu_backward(m: Machine, grad: Buffer, x: Buffer, weight: Buffer) -> tuple[Buffer, Buffer]:
    """One comparison decides both gradients: (g or w g, 0 or x g), elementwise."""
    dx, dw = m.new(x.shape, x.dtype), m.new(x.shape, x.dtype)
    w = weight.expand(x.shape)
    for i in indices(x.shape):
        positive = x[i] > 0
        dx[i] = select(positive, grad[i], w[i] * grad[i])
        dw[i] = select(positive, 0.0, x[i] * grad[i])
    return dx, dw


def comparing(f: Callable[..., Any]) -> Callable[..., Buffer]:
    """A predicate: a boolean output."""
    return elementwise(f, torch.bool)
