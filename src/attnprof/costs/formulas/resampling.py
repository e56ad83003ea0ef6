"""Resampling grids: each result is a weighted sum of neighbours, dimension by dimension.

Weights depend on the position along one dimension and are worked out once per dimension, not per element. A
dimension of k taps takes k products and k - 1 additions per result of that dimension. The adjoint multiplies
and adds at every tap.
"""

from __future__ import annotations

from fractions import Fraction
from math import floor, prod

from attnprof.core.signature import OpSignature
from attnprof.core.work import Work
from attnprof.costs.registry import cost, movement, traffic
from attnprof.costs.traffic import default, reading
from attnprof.costs.windows import distinct_in

_NEAREST = [f"aten.{kind}{d}d" for kind in ("upsample_nearest", "_upsample_nearest_exact") for d in (1, 2, 3)]
#: Taps per dimension.
_TAPS = {
    "aten.upsample_linear1d": 2,
    "aten.upsample_bilinear2d": 2,
    "aten.upsample_trilinear3d": 2,
    "aten.upsample_bicubic2d": 4,
}
#: Half the width of the filter: with antialiasing it widens with the scale when shrinking.
_SUPPORT = {"aten._upsample_bilinear2d_aa": 1, "aten._upsample_bicubic2d_aa": 2, "aten._upsample_lanczos2d_aa": 3}


def _dims(op: OpSignature) -> int:
    return next(d for d in (1, 2, 3) if f"{d}d" in op.packet)


def _forward_name(op: OpSignature) -> str:
    return op.packet.removesuffix("_backward")


movement(_NEAREST)


@cost(*_TAPS)
def interpolate(op: OpSignature) -> Work:
    """The innermost dimension first: per result 2 k - 1, for each of the taps of the dimensions outside it.

    Linear in d dimensions: 3, 9, 21. Cubic in two: 4 x 7 + 7 = 35.
    """
    k, dims = _TAPS[op.packet], _dims(op)
    return Work(vector=op.out.numel * sum((2 * k - 1) * k**outer for outer in range(dims)))


@cost(*(f"{name}_backward" for name in _NEAREST))
def nearest_backward(op: OpSignature) -> Work:
    """Each gradient is added to its neighbour."""
    return Work(vector=op.tensor("grad_output").numel)


@cost(*(f"{name}_backward" for name in _TAPS))
def interpolate_backward(op: OpSignature) -> Work:
    """Each gradient times the weights of one dimension after the other, k + k^2 + ..., and added at the k^d taps."""
    k, dims = _TAPS[_forward_name(op)], _dims(op)
    return Work(vector=op.tensor("grad_output").numel * (sum(k**i for i in range(1, dims + 1)) + k**dims))


def _filter_taps(positions: int, outputs: int, support: int, align_corners: bool) -> int:
    """Taps of all results along a dimension: those positions within the support of the centre of each."""
    scale = _scale(positions, outputs, align_corners)
    reach = support * max(scale, Fraction(1))
    total = 0
    for o in range(outputs):
        centre = scale * (o + Fraction(1, 2))
        low = max(0, floor(centre - reach + Fraction(1, 2)))
        total += min(positions, floor(centre + reach + Fraction(1, 2))) - low
    return total


def _scale(positions: int, outputs: int, align_corners: bool) -> Fraction:
    """Input positions per output position."""
    if align_corners:
        return Fraction(positions - 1, outputs - 1) if outputs > 1 else Fraction(0)
    return Fraction(positions, outputs)


def _antialias_passes(op: OpSignature, size: tuple[int, ...], out: tuple[int, ...]) -> tuple[int, int]:
    """(taps, results) of the pass over columns, then over rows; a pass that changes nothing is left out."""
    *lead, h, w = size
    planes, support = prod(lead), _SUPPORT[_forward_name(op)]
    corners = bool(op.number("align_corners"))
    taps = planes * h * _filter_taps(w, out[-1], support, corners) if w != out[-1] else 0
    results = planes * h * out[-1] if w != out[-1] else 0
    if h != out[-2]:
        taps += planes * out[-1] * _filter_taps(h, out[-2], support, corners)
        results += planes * out[-2] * out[-1]
    return taps, results


@cost(*_SUPPORT)
def antialias(op: OpSignature) -> Work:
    """Two passes of weighted sums, each result k products and k - 1 additions, k the filter's taps there."""
    taps, results = _antialias_passes(op, op.tensor("self").shape, op.out.shape)
    return Work(vector=2 * taps - results)


@cost(*(f"{name}_backward" for name in _SUPPORT))
def antialias_backward(op: OpSignature) -> Work:
    """The passes' adjoints: a product and an addition at every tap."""
    taps, _ = _antialias_passes(op, op.ints("input_size"), op.tensor("grad_output").shape)
    return Work(vector=2 * taps)


def _looked_at(op: OpSignature, positions: int, outputs: int) -> int:
    """Positions along a dimension that some result looks at. The scale is that of the sizes."""
    name, seen = op.packet, set[int]()
    if name in _NEAREST:
        return min(positions, outputs)
    corners = bool(op.number("align_corners"))
    scale, k = _scale(positions, outputs, corners), _TAPS[name]
    for o in range(outputs):
        centre = scale * o if corners else scale * (o + Fraction(1, 2)) - Fraction(1, 2)
        if k == 2:
            centre = max(centre, Fraction(0))
        first = floor(centre) - (k // 2 - 1)
        for position in range(first, first + k):
            seen.add(min(max(position, 0), positions - 1))
    return len(seen)


@traffic(*_NEAREST, *_TAPS)
def interpolate_traffic(op: OpSignature) -> tuple[int, int]:
    """The positions that some result looks at: all of them unless the grid shrinks."""
    x, dims = op.tensor("self"), _dims(op)
    pairs = zip(x.shape[-dims:], op.out.shape[-dims:], strict=True)
    return distinct_in(x, [_looked_at(op, n, m) for n, m in pairs]) * x.width, default(op)[1]


def _unnormalising(op: OpSignature) -> int:
    """From [-1, 1] to positions: ((c + 1) n - 1) / 2 is 4, with corners aligned (c + 1) ((n - 1) / 2) is 2.

    Padding by the border clamps (2); by reflection folds: |c - low| 2, fmod, divide and floor 2, both directions 3,
    clamp 2.
    """
    padding = {0: 0, 1: 2, 2: 10}[int(op.number("padding_mode"))]
    return (2 if op.number("align_corners") else 4) + padding


def _weights(dims: int, cubic: bool) -> int:
    """Weights of one sample's corners: d = c - floor(c) and 1 - d per dimension, then the products of 2^dims corners.

    Cubic: d, then four polynomials of d per dimension: arguments 3, inner 5 each, outer 6 each.
    """
    if cubic:
        return dims * (1 + 3 + 2 * 5 + 2 * 6)
    return 2 * dims + sum(1 << i for i in range(2, dims + 1))


_SAMPLERS = (
    "aten.grid_sampler_2d",
    "aten.grid_sampler_3d",
    "aten._grid_sampler_2d_cpu_fallback",
    "aten.cudnn_grid_sampler",
)
_SAMPLERS_BACKWARD = (
    "aten.grid_sampler_2d_backward",
    "aten.grid_sampler_3d_backward",
    "aten._grid_sampler_2d_cpu_fallback_backward",
    "aten.cudnn_grid_sampler_backward",
)
_BILINEAR, _NEAREST_MODE, _BICUBIC = 0, 1, 2


def _samples(op: OpSignature) -> tuple[int, int]:
    """(samples, dimensions): the grid holds a coordinate per dimension."""
    grid = op.tensor("grid")
    dims = grid.shape[-1]
    return grid.numel // max(dims, 1), dims


@cost(*_SAMPLERS)
def grid_sampler(op: OpSignature) -> Work:
    """Per sample its position and weights; per result a weighted sum of the corners (nearest: a rounding, a copy)."""
    samples, dims = _samples(op)
    mode, position = op.number("interpolation_mode"), dims * _unnormalising(op)
    if mode == _NEAREST_MODE:
        return Work(vector=samples * (position + dims))
    if mode == _BICUBIC:  # 4 rows of 4 taps, then 4 rows: 5 times 7
        return Work(vector=samples * (position + _weights(dims, True)) + op.out.numel * 35)
    return Work(vector=samples * (position + _weights(dims, False)) + op.out.numel * (2 * 2**dims - 1))


@cost(*_SAMPLERS_BACKWARD)
def grid_sampler_backward(op: OpSignature) -> Work:
    """Position and weights again. dX: per gradient and corner a product and an addition.

    d grid: per gradient and corner the value times the gradient, then for each coordinate a product with the weight's
    slope and an addition; per coordinate the scale of its position. Nearest: additions for dX, nothing for the grid.
    """
    samples, dims = _samples(op)
    grad, mode = op.tensor("grad_output").numel, op.number("interpolation_mode")
    to_input, to_grid = op.flags("output_mask") or (True, True)
    position = dims * _unnormalising(op)
    if mode == _NEAREST_MODE:
        return Work(vector=samples * (position + dims) + grad * to_input)
    cubic = mode == _BICUBIC
    corners = 16 if cubic else 2**dims
    # cubic: the product of two weights per corner, and the slopes of the four polynomials (4 operations) per dimension
    per_sample = position + _weights(dims, cubic) + (16 + dims * 16 if cubic else 0)
    per_gradient = corners * 2 * to_input + corners * (1 + 2 * dims) * to_grid
    return Work(vector=samples * (per_sample + dims * to_grid) + grad * per_gradient)


def _sampled_bytes(op: OpSignature) -> int:
    """Bytes of the input that the samples can touch: their corners in every channel, at most all there is."""
    samples, dims = _samples(op)
    corners = {_NEAREST_MODE: 1, _BICUBIC: 16}.get(int(op.number("interpolation_mode")), int(2**dims))
    x = op.tensor("input")
    return min(samples * corners * x.shape[1], x.distinct) * x.width


@traffic(*_SAMPLERS)
def grid_sampler_traffic(op: OpSignature) -> tuple[int, int]:
    """The grid, and the corners it points at; where that is, is data."""
    return op.tensor("grid").bytes + _sampled_bytes(op), default(op)[1]


@traffic(*_SAMPLERS_BACKWARD)
def grid_sampler_backward_traffic(op: OpSignature) -> tuple[int, int]:
    """Gradient and grid; of the input the corners, only for the grid's gradient. dX is written whole."""
    _, to_grid = op.flags("output_mask") or (True, True)
    read, written = reading(op, "grad_output", "grid")
    needs_input = to_grid and op.number("interpolation_mode") != _NEAREST_MODE
    return read + needs_input * _sampled_bytes(op), written


@cost("aten.affine_grid_generator", "aten.cudnn_affine_grid_generator")
def affine_grid(op: OpSignature) -> Work:
    """The d + 1 homogeneous coordinates of every position times theta: a contraction over d + 1."""
    return Work(matmul=2 * op.out.numel * op.tensor("theta").shape[-1])
