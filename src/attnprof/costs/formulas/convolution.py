"""Convolutions: every tap of every output is a multiply-add, padding included.

Weights are [out, in / groups, *kernel], transposed ones [in, out / groups, *kernel], so the groups are
already in their shape: a direct convolution takes out.numel * weight[0].numel multiply-adds, a transposed
one, which scatters every input element, input.numel * weight[0].numel.
"""

from __future__ import annotations

from math import prod

from attnprof.core.signature import OpSignature
from attnprof.core.tensor import TensorMeta
from attnprof.core.work import Work
from attnprof.costs.formulas.gemm import flops_per_mac
from attnprof.costs.registry import cost, traffic
from attnprof.costs.traffic import default, distinct_bytes
from attnprof.costs.windows import distinct_in, meeting, seen, setting

_DIRECT = (
    "aten.convolution",
    "aten._convolution",
    "aten.convolution_overrideable",
    "aten.mkldnn_convolution",
    "aten.cudnn_convolution",
    "aten.cudnn_convolution_relu",
    "aten.cudnn_convolution_add_relu",
    "aten.miopen_convolution",
    "aten.miopen_depthwise_convolution",
    "aten.miopen_convolution_relu",
    "aten.miopen_convolution_add_relu",
    "aten._mps_convolution",
    "aten._nnpack_spatial_convolution",
    "aten._conv_depthwise2d",
    "aten.conv_depthwise3d",
    "aten._slow_conv2d_forward",
    "aten.slow_conv3d_forward",
    "aten.slow_conv_dilated2d",
    "aten.slow_conv_dilated3d",
    "aten.conv1d",
    "aten.conv2d",
    "aten.conv3d",
)
_TRANSPOSED = (
    "aten.cudnn_convolution_transpose",
    "aten.miopen_convolution_transpose",
    "aten._mps_convolution_transpose",
    "aten.slow_conv_transpose2d",
    "aten.slow_conv_transpose3d",
    "aten.conv_transpose1d",
    "aten.conv_transpose2d",
    "aten.conv_transpose3d",
)
_BACKWARD = (
    "aten.convolution_backward",
    "aten.convolution_backward_overrideable",
    "aten.mps_convolution_backward",
    "aten.mps_convolution_transpose_backward",
)


def _input(op: OpSignature) -> TensorMeta:
    return op.maybe("input") or op.tensor("self")


def _is_transposed(op: OpSignature) -> bool:
    return bool(op.number("transposed")) or "transpose" in op.packet


def _multiply_adds(x: TensorMeta, weight: TensorMeta, out: TensorMeta, transposed: bool) -> int:
    return (x.numel if transposed else out.numel) * prod(weight.shape[1:])


@cost(*_DIRECT, *_TRANSPOSED)
def convolution(op: OpSignature) -> Work:
    """Every tap 1 multiply-add; the bias 1 addition per output; a fused relu 1, a fused addition 1 (+1 if scaled)."""
    x, weight, out = _input(op), op.tensor("weight"), op.out
    per_output = int(op.maybe("bias") is not None) + int("relu" in op.packet)
    if op.maybe("z"):
        per_output += 1 + (op.number("alpha", 1) != 1)
    vector = out.numel * per_output * (2 if out.is_complex else 1)
    return Work(flops_per_mac(x) * _multiply_adds(x, weight, out, _is_transposed(op)), vector)


@cost(*_BACKWARD)
def convolution_backward(op: OpSignature) -> Work:
    """dX and dW each pair the taps and outputs that the forward paired: its multiply-adds for each asked for.

    The groups are in the weight's shape for dW too. db sums dY over batch and positions, (n - 1) per channel.
    """
    grad, x, weight = op.tensor("grad_output"), _input(op), op.tensor("weight")
    to_input, to_weight, to_bias = (*op.flags("output_mask"), False)[:3]
    transposed = _is_transposed(op)
    forward = flops_per_mac(x) * _multiply_adds(x, weight, grad, transposed)
    channels = weight.shape[1] * _groups(op) if transposed else weight.shape[0]
    bias = max(0, grad.numel - channels) if to_bias else 0
    return Work(forward * (to_input + to_weight), bias * (2 if grad.is_complex else 1))


def _groups(op: OpSignature) -> int:
    return int(op.number("groups", 1))


def _reached_bytes(op: OpSignature, tensor: TensorMeta, other: tuple[int, ...], narrow: bool) -> int:
    """Bytes of the positions of ``tensor`` that some tap joins to a position of ``other``: padding reads nothing.

    Counted per spatial dimension and multiplied. ``narrow``: the tensor is the side whose every position has a
    whole window, the output of a direct convolution or the input of a transposed one.
    """
    kernel = op.ints("kernel_size") or op.tensor("weight").shape[2:]
    if not tensor.stride or isinstance(op.value("padding"), str):
        return tensor.bytes  # an opaque layout, or padding="same", which goes with stride 1 and uses everything
    lead, spatial = len(tensor.shape) - len(kernel), len(kernel)
    strides, paddings, dilations = (
        setting(op, name, spatial, otherwise) for name, otherwise in (("stride", 1), ("padding", 0), ("dilation", 1))
    )
    reached = [
        (meeting if narrow else seen)(positions, others, *window)
        for positions, others, *window in zip(
            tensor.shape[lead:], other[len(other) - spatial :], kernel, strides, paddings, dilations, strict=True
        )
    ]
    return distinct_in(tensor, reached) * tensor.width


@traffic(*_DIRECT, *_TRANSPOSED)
def convolution_traffic(op: OpSignature) -> tuple[int, int]:
    """The input positions that the kernel reaches, and all of the weight and bias."""
    x = _input(op)
    others = [t for t in op.inputs if t is not x]
    return _reached_bytes(op, x, op.out.shape, _is_transposed(op)) + distinct_bytes(others), default(op)[1]


@traffic(*_BACKWARD)
def convolution_backward_traffic(op: OpSignature) -> tuple[int, int]:
    """All of dY for db, else what of it meets a real input; the weight for dX; the input reached for dW.

    dX is written whole, zeros included.
    """
    grad, x = op.tensor("grad_output"), _input(op)
    to_input, to_weight, to_bias = (*op.flags("output_mask"), False)[:3]
    transposed = _is_transposed(op)
    read = grad.bytes if to_bias else _reached_bytes(op, grad, x.shape, not transposed)
    read += op.tensor("weight").bytes if to_input else 0
    read += _reached_bytes(op, x, grad.shape, transposed) if to_weight else 0
    return read, default(op)[1]


@cost("aten.conv_tbc")
def conv_tbc(op: OpSignature) -> Work:
    """[T, B, I] with a kernel [k, I, O], stride 1: k I multiply-adds per output, and the bias."""
    x, out = op.tensor("self"), op.out
    return Work(flops_per_mac(x) * out.numel * prod(op.tensor("weight").shape[:2]), out.numel)
