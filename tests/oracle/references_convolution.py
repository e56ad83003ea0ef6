"""Convolutions of any dimension, transposed ones included, and their gradients.

Every tap of every output is a multiply-add, padding included: a tap on the padding multiplies a zero that no
memory holds. A transposed convolution runs the same taps the other way, cropped ones included. An element of
the input or of the gradient is read if one of its taps meets a real element on the other side, since the
result depends on no other; the weight is read whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from oracle.buffers import Buffer, Machine, indices
from oracle.counting import total

Place = tuple[int, ...]
Sums = dict[Place, Any]


class Geometry:
    """Which position of the wide side each tap of each position of the narrow side falls on.

    For a convolution the wide side is the input and the narrow one the output; transposed, the other way.
    """

    def __init__(
        self, weight: Buffer, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], groups: int
    ) -> None:
        self.kernel = weight.shape[2:]
        dims = len(self.kernel)
        self.stride, self.padding, self.dilation = (_each(v, dims) for v in (stride, padding, dilation))
        self.groups = groups
        self.narrow_channels, self.wide_per_group = weight.shape[0], weight.shape[1]

    def taps(self, narrow: Sequence[int], wide: Sequence[int]) -> Iterator[tuple[Place, Place, Place | None]]:
        """(narrow index, weight index, wide index or None on the padding) of every multiply-add."""
        per_group = self.narrow_channels // self.groups
        for place in indices([narrow[0], self.narrow_channels, *narrow[2:]]):
            n, c, *at = place
            for tap in indices([self.wide_per_group, *self.kernel]):
                channel = (c // per_group) * self.wide_per_group + tap[0]
                spot = [
                    o * s + k * d - p
                    for o, k, s, d, p in zip(at, tap[1:], self.stride, self.dilation, self.padding, strict=True)
                ]
                inside = all(0 <= i < size for i, size in zip(spot, wide[2:], strict=True))
                yield place, (c, *tap), (n, channel, *spot) if inside else None


def _each(values: Sequence[int], dims: int) -> Sequence[int]:
    return list(values) * dims if len(values) == 1 else values


def _add(m: Machine, sums: Sums, place: Place | None, a: Any, b: Any) -> None:
    """One multiply-add onto the sum at ``place``; nobody keeps what falls on the padding."""
    result = m.multiply_add(sums.get(place, 0) if place is not None else 0, a, b)
    if place is not None:
        sums[place] = result


def _sizes(x: Buffer, weight: Buffer, g: Geometry, transposed: bool, output_padding: Sequence[int]) -> list[int]:
    """The output's shape."""
    dims = range(len(g.kernel))
    reach = [g.dilation[d] * (g.kernel[d] - 1) for d in dims]
    if transposed:
        extra = _each(output_padding, len(g.kernel))
        sizes = [(x.shape[2 + d] - 1) * g.stride[d] - 2 * g.padding[d] + reach[d] + extra[d] + 1 for d in dims]
        return [x.shape[0], weight.shape[1] * g.groups, *sizes]
    sizes = [(x.shape[2 + d] + 2 * g.padding[d] - reach[d] - 1) // g.stride[d] + 1 for d in dims]
    return [x.shape[0], weight.shape[0], *sizes]


def convolution(
    m: Machine,
    x: Buffer,
    weight: Buffer,
    bias: Buffer | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Buffer:
    g = Geometry(weight, stride, padding, dilation, groups)
    shape = _sizes(x, weight, g, transposed, output_padding)
    sums: Sums = {}
    narrow, wide = (x.shape, shape) if transposed else (shape, x.shape)
    for small, tap, large in g.taps(narrow, wide):
        x_at, out_at = (small, large) if transposed else (large, small)
        _add(m, sums, out_at, x[x_at] if large is not None else 0, weight[tap])
    out = m.new(shape, x.dtype)
    for i in indices(shape):
        v = sums.get(i, 0)
        out[i] = v + bias[i[1]] if bias is not None else v
    return out


def convolution_backward(
    m: Machine,
    grad: Buffer,
    x: Buffer,
    weight: Buffer,
    bias_sizes: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    output_mask: Sequence[bool],
) -> tuple[Buffer | None, ...]:
    """dX and dW walk the forward's taps with the roles exchanged; db sums the gradients of a channel."""
    g = Geometry(weight, stride, padding, dilation, groups)
    narrow, wide = (x.shape, grad.shape) if transposed else (grad.shape, x.shape)
    dx: Sums = {}
    dw: Sums = {}
    for small, tap, large in g.taps(narrow, wide):
        x_at, grad_at = (small, large) if transposed else (large, small)
        grad_value = grad[grad_at] if large is not None and (output_mask[0] or output_mask[1]) else 0
        if output_mask[0]:
            _add(m, dx, x_at, grad_value, weight[tap])
        if output_mask[1]:
            _add(m, dw, tap, grad_value, x[x_at] if large is not None else 0)
    outputs: list[Buffer | None] = [None, None, None]
    for position, (sums, like) in enumerate([(dx, x), (dw, weight)]):
        if output_mask[position]:
            out = outputs[position] = m.new(like.shape, like.dtype)
            for i in indices(like.shape):
                out[i] = sums.get(i, 0)
    if output_mask[2]:
        out = outputs[2] = m.new([grad.shape[1]], grad.dtype)
        for c in range(grad.shape[1]):
            out[c] = total([grad[i] for i in indices(grad.shape) if i[1] == c])
    return tuple(outputs)
