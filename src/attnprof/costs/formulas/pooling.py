"""Pools and sliding windows of k taps: padding counts as a tap, but is not read."""

from __future__ import annotations

from math import prod

from attnprof.core.signature import OpSignature
from attnprof.core.tensor import TensorMeta
from attnprof.core.work import Work
from attnprof.costs.arithmetic import flops, is_complex
from attnprof.costs.registry import cost, movement, traffic
from attnprof.costs.traffic import default, reading
from attnprof.costs.windows import adaptive, distinct_in, seen, setting

_MAX = (
    "aten.max_pool2d_with_indices",
    "aten.max_pool3d_with_indices",
    "aten.mkldnn_max_pool2d",
    "aten.mkldnn_max_pool3d",
)
_FRACTIONAL = ("aten.fractional_max_pool2d", "aten.fractional_max_pool3d")
_AVERAGE = ("aten.avg_pool1d", "aten.avg_pool2d", "aten.avg_pool3d")
_WHOLE_OPS = ("aten.max_pool1d", "aten.max_pool2d", "aten.max_pool3d", "aten.quantized_max_pool1d")
_QUANTIZED = ("aten.quantized_max_pool2d", "aten.quantized_max_pool3d")


def _dims(op: OpSignature) -> int:
    """Spatial dimensions, from the name: 1d, 2d, 3d."""
    return next(d for d in (1, 2, 3) if f"{d}d" in op.packet)


@cost(*_MAX, *_FRACTIONAL, *_WHOLE_OPS, *_QUANTIZED)
def max_pool(op: OpSignature) -> Work:
    """k - 1 comparisons per result."""
    return Work(vector=op.out.numel * (prod(setting(op, "kernel_size", _dims(op))) - 1))


@cost(*_AVERAGE)
def avg_pool(op: OpSignature) -> Work:
    """k - 1 additions and a division per result."""
    return Work(vector=op.out.numel * prod(setting(op, "kernel_size", _dims(op))))


def _reached(op: OpSignature, x: TensorMeta, outputs: tuple[int, ...]) -> int:
    """Distinct input elements that some window sees."""
    dims = len(outputs)
    kernel = setting(op, "kernel_size", dims)
    stride = setting(op, "stride", dims) or kernel
    padding, dilation = setting(op, "padding", dims, 0), setting(op, "dilation", dims, 1)
    windows = zip(x.shape[-dims:], outputs, kernel, stride, padding, dilation, strict=True)
    return distinct_in(x, [seen(*window) for window in windows])


@traffic(*_MAX, *_AVERAGE, *_WHOLE_OPS, *_QUANTIZED)
def pool_traffic(op: OpSignature) -> tuple[int, int]:
    """The input positions that some window sees."""
    x, dims = op.tensor("self"), _dims(op)
    return _reached(op, x, op.out.shape[-dims:]) * x.width, default(op)[1]


_MAX_BACKWARD = (
    "aten.max_pool2d_with_indices_backward",
    "aten.max_pool3d_with_indices_backward",
    "aten.fractional_max_pool2d_backward",
    "aten.fractional_max_pool3d_backward",
    "aten.adaptive_max_pool2d_backward",
    "aten.adaptive_max_pool3d_backward",
)


@cost(*_MAX_BACKWARD)
def max_pool_backward(op: OpSignature) -> Work:
    """Each gradient is added to the element its maximum came from."""
    return Work(vector=op.tensor("grad_output").numel)


@traffic(*_MAX_BACKWARD)
def max_pool_backward_traffic(op: OpSignature) -> tuple[int, int]:
    """Gradient and indices; the input is not looked at."""
    return reading(op, "grad_output", "indices")


@cost("aten.avg_pool2d_backward", "aten.avg_pool3d_backward")
def avg_pool_backward(op: OpSignature) -> Work:
    """Each gradient is divided once and added at its k taps."""
    grad = op.tensor("grad_output")
    return Work(vector=grad.numel * (1 + prod(setting(op, "kernel_size", _dims(op)))))


_ADAPTIVE = (
    "aten.adaptive_avg_pool1d",
    "aten._adaptive_avg_pool2d",
    "aten._adaptive_avg_pool3d",
    "aten.adaptive_avg_pool2d",
    "aten.adaptive_avg_pool3d",
    "aten.mkldnn_adaptive_avg_pool2d",
)
_ADAPTIVE_BACKWARD = (
    "aten._adaptive_avg_pool2d_backward",
    "aten._adaptive_avg_pool3d_backward",
    "aten.adaptive_avg_pool3d_backward",
    "aten.mkldnn_adaptive_avg_pool2d_backward",
)
_ADAPTIVE_MAX = ("aten.adaptive_max_pool2d", "aten.adaptive_max_pool3d")


def _adaptive_taps(x: TensorMeta, out: TensorMeta, dims: int) -> int:
    """Taps of all windows: per dimension the lengths of its windows, multiplied over dimensions and planes."""
    pairs = zip(x.shape[-dims:], out.shape[-dims:], strict=True)
    lengths = [sum(end - start for start, end in adaptive(n, m)) for n, m in pairs]
    return prod(x.shape[:-dims]) * prod(lengths)


@cost(*_ADAPTIVE)
def adaptive_avg_pool(op: OpSignature) -> Work:
    """k - 1 additions and a division per result, k the length of its own window."""
    return Work(vector=_adaptive_taps(op.tensor("self"), op.out, _dims(op)))


@cost(*_ADAPTIVE_MAX)
def adaptive_max_pool(op: OpSignature) -> Work:
    """k - 1 comparisons per result, k the length of its own window."""
    return Work(vector=_adaptive_taps(op.tensor("self"), op.out, _dims(op)) - op.out.numel)


@cost(*_ADAPTIVE_BACKWARD)
def adaptive_avg_pool_backward(op: OpSignature) -> Work:
    """Each gradient is divided once and added at every tap of its window."""
    grad = op.tensor("grad_output")
    return Work(vector=grad.numel + _adaptive_taps(op.tensor("self"), grad, _dims(op)))


# Replicating and mirroring pads: every gradient is added where its element came from.
_PADS_BACKWARD = tuple(f"aten.{kind}_pad{d}d_backward" for kind in ("reflection", "replication") for d in (1, 2, 3))


@cost(*_PADS_BACKWARD)
def pad_backward(op: OpSignature) -> Work:
    """An addition per gradient."""
    return Work(vector=op.tensor("grad_output").numel * flops("add", is_complex(op)))


@traffic("aten.avg_pool2d_backward", "aten.avg_pool3d_backward", *_ADAPTIVE_BACKWARD, *_PADS_BACKWARD)
def shape_only_backward_traffic(op: OpSignature) -> tuple[int, int]:
    """The gradient; of the input only its shape."""
    return reading(op, "grad_output")


movement(("aten.im2col", "aten.max_unpool2d", "aten.max_unpool3d"))


def _blocks(op: OpSignature, size: tuple[int, ...]) -> tuple[int, ...]:
    """Window positions per dimension of im2col and col2im."""
    kernel, stride = setting(op, "kernel_size", 2), setting(op, "stride", 2, 1)
    padding, dilation = setting(op, "padding", 2, 0), setting(op, "dilation", 2, 1)
    each = zip(size, kernel, stride, padding, dilation, strict=True)
    return tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in each)


@traffic("aten.im2col")
def im2col_traffic(op: OpSignature) -> tuple[int, int]:
    """The input positions that some window sees."""
    x = op.tensor("self")
    return _reached(op, x, _blocks(op, x.shape[-2:])) * x.width, default(op)[1]


@cost("aten.col2im")
def col2im(op: OpSignature) -> Work:
    """Every column element is added where it came from, padding included."""
    return Work(vector=op.tensor("self").numel * flops("add", is_complex(op)))


@cost("aten.unfold_backward")
def unfold_backward(op: OpSignature) -> Work:
    """Every gradient is added to the element its window saw."""
    return Work(vector=op.tensor("grad_in").numel * flops("add", is_complex(op)))
