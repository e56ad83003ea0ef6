"""Windows that slide over a dimension: which positions they see, and how many taps they have."""

from __future__ import annotations

from attnprof.core.signature import OpSignature
from attnprof.core.tensor import TensorMeta


def setting(op: OpSignature, name: str, dims: int, default: int | None = None) -> tuple[int, ...]:
    """A setting per spatial dimension; a single number stands for all; an empty one for ``default``."""
    values = op.ints(name)
    if not values and default is not None:
        values = (default,)
    return values * dims if len(values) == 1 else values


def seen(positions: int, outputs: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """How many of ``positions`` some tap of some output sees: o stride + u dilation - padding within [0, positions)."""
    if not outputs or not kernel:
        return 0
    if dilation == 1 and stride <= kernel:  # windows that meet or overlap see one interval
        end = min((outputs - 1) * stride + kernel - padding, positions)
        return max(0, end - max(0, -padding))
    taps = [u * dilation - padding for u in range(kernel)]
    return len({p for o in range(outputs) for tap in taps if 0 <= (p := o * stride + tap) < positions})


def meeting(outputs: int, positions: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """How many of ``outputs`` windows have a tap within ``positions``: some lie wholly in the padding."""
    taps = [u * dilation - padding for u in range(kernel)]
    return sum(any(0 <= o * stride + tap < positions for tap in taps) for o in range(outputs))


def adaptive(positions: int, outputs: int) -> list[tuple[int, int]]:
    """The windows [start, end) of an adaptive pool: floor(o n / m) to ceil((o + 1) n / m)."""
    return [(o * positions // outputs, -(-(o + 1) * positions // outputs)) for o in range(outputs)]


def distinct_in(x: TensorMeta, reached: list[int]) -> int:
    """Distinct elements when ``reached`` of the positions of each of the last dimensions are read."""
    lead, total = len(x.shape) - len(reached), 1
    strides = x.stride or (1,) * len(x.shape)
    for i, (n, stride) in enumerate(zip(x.shape, strides, strict=True)):
        count = n if i < lead else reached[i - lead]
        total *= min(count, 1) if stride == 0 else count
    return min(total, x.distinct)
