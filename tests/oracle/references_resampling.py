"""Interpolation in any dimension: weighted sums along one dimension after the other, the last one first.

The weights of a position depend on shapes alone: they are index arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from oracle.buffers import Buffer, Machine, indices
from oracle.counting import total

#: Input positions of one dimension, each with its weight.
Taps = list[tuple[int, float]]
TapRule = Callable[[int, int, int, bool], Taps]


def _source(o: int, size: int, out: int, align_corners: bool) -> float:
    """Where output position ``o`` lies on the input."""
    if align_corners:
        return o * (size - 1) / (out - 1) if out > 1 else 0.0
    return (o + 0.5) * size / out - 0.5


def linear_taps(o: int, size: int, out: int, align_corners: bool) -> Taps:
    """The two neighbours."""
    source = max(_source(o, size, out, align_corners), 0.0)
    low = min(int(source), size - 1)
    return [(low, 1 - (source - low)), (min(low + 1, size - 1), source - low)]


def cubic_taps(o: int, size: int, out: int, align_corners: bool) -> Taps:
    """Four neighbours, clamped at the edges, weighted by Keys' kernel with a = -3/4."""
    source = _source(o, size, out, align_corners)
    low = int(source // 1)
    taps = []
    for position in range(low - 1, low + 3):
        d, a = abs(source - position), -0.75
        near = (a + 2) * d**3 - (a + 3) * d**2 + 1
        far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
        taps.append((min(max(position, 0), size - 1), near if d <= 1 else far))
    return taps


def _weighted(x: Buffer, place: tuple[int, ...], taps: Sequence[Taps]) -> Any:
    """The value at ``place`` in the first dimensions, interpolated over the others."""
    if not taps:
        return x[place]
    return total([_weighted(x, (*place, i), taps[1:]) * weight for i, weight in taps[0]])


def upsample(rule: TapRule) -> Callable[..., Buffer]:
    """Linear, bilinear, trilinear, bicubic."""

    def reference(m: Machine, x: Buffer, output_size: Sequence[int], align_corners: bool, *_: Any) -> Buffer:
        out = m.new([*x.shape[:2], *output_size], x.dtype)
        for i in indices(out.shape):
            sizes = zip(i[2:], x.shape[2:], output_size, strict=True)
            out[i] = _weighted(x, i[:2], [rule(o, n, size, align_corners) for o, n, size in sizes])
        return out

    return reference


def upsample_backward(rule: TapRule) -> Callable[..., Buffer]:
    """The forward's steps turned round: g shared out along the first dimension, then along the next, then added."""

    def reference(
        m: Machine, grad: Buffer, output_size: Sequence[int], input_size: Sequence[int], align_corners: bool, *_: Any
    ) -> Buffer:
        out = m.zeros(input_size, grad.dtype)
        for i in indices(grad.shape):
            shares: list[tuple[tuple[int, ...], Any]] = [(i[:2], grad[i])]
            for o, n, size in zip(i[2:], input_size[2:], output_size, strict=True):
                taps = rule(o, n, size, align_corners)
                shares = [((*place, j), share * weight) for place, share in shares for j, weight in taps]
            for place, share in shares:
                out[place] = out[place] + share
        return out

    return reference


def _nearest(i: tuple[int, ...], output_size: Sequence[int], input_size: Sequence[int]) -> tuple[int, ...]:
    spots = zip(i[2:], input_size[2:], output_size, strict=True)
    return (*i[:2], *(o * n // size for o, n, size in spots))


def nearest(m: Machine, x: Buffer, output_size: Sequence[int], *_: Any) -> Buffer:
    """Each output copies one input element."""
    out = m.new([*x.shape[:2], *output_size], x.dtype)
    for i in indices(out.shape):
        out[i] = x[_nearest(i, output_size, x.shape)]
    return out


def nearest_backward(
    m: Machine, grad: Buffer, output_size: Sequence[int], input_size: Sequence[int], *_: Any
) -> Buffer:
    """Each gradient is added to the element its output copied."""
    out = m.zeros(input_size, grad.dtype)
    for i in indices(grad.shape):
        place = _nearest(i, output_size, input_size)
        out[place] = out[place] + grad[i]
    return out
