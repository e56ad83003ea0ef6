"""Norms over rows (layer, RMS, group, weight): x is centred once and x^ = (x - mean) rstd is formed per element.

M rows of S elements, N = M S. A weight and a bias each cost one operation per element when they are given.
"""

from __future__ import annotations

from math import prod

from attnprof.core.signature import OpSignature
from attnprof.core.tensor import TensorMeta
from attnprof.core.work import Work
from attnprof.costs.registry import cost, traffic
from attnprof.costs.traffic import default, distinct_bytes


def given(op: OpSignature, *names: str) -> int:
    """How many of these optional tensors are given."""
    return sum(op.maybe(name) is not None for name in names)


def _rows(op: OpSignature) -> tuple[int, int]:
    """(M, S) of a norm over the last dimensions."""
    x = op.tensor("input")
    s = prod(op.ints("normalized_shape"))
    return (x.numel // s, s) if s else (0, 0)


@cost("aten.native_layer_norm")
def layer_norm(op: OpSignature) -> Work:
    """Per row: mean S, x - mean S, squares S, their mean S, + eps, rsqrt, scale S: 5 S + 2; weight and bias."""
    m, s = _rows(op)
    return Work(vector=m * (5 * s + 2) + m * s * given(op, "weight", "bias"))


@cost("aten.native_layer_norm_backward")
def layer_norm_backward(op: OpSignature) -> Work:
    """What output_mask asks for, from the saved mean and rstd.

    x^ 2 N, for dX and dweight. dX = rstd (d - mean(d) - x^ mean(d x^)) with d = g weight: d N if there is a weight;
    means S and 2 S; x^ mean S, two subtractions 2 S, scale S: 7 N. dweight: g x^ N, summed over rows (M - 1) S.
    dbias: (M - 1) S.
    """
    m, s = _rows(op)
    to_input, to_weight, to_bias = op.flags("output_mask")
    flops = 2 * m * s if to_input or to_weight else 0
    flops += to_input * m * s * (7 + given(op, "weight"))
    flops += to_weight * max(0, 2 * m - 1) * s + to_bias * max(0, m - 1) * s
    return Work(vector=flops)


@cost("aten._fused_rms_norm")
def rms_norm(op: OpSignature) -> Work:
    """Per row: squares S, their mean S, + eps, rsqrt, scale S: 3 S + 2; the weight."""
    m, s = _rows(op)
    return Work(vector=m * (3 * s + 2) + m * s * given(op, "weight"))


@cost("aten._fused_rms_norm_backward")
def rms_norm_backward(op: OpSignature) -> Work:
    """x^ = x rstd N. dX = rstd (d - x^ mean(d x^)), d = g weight: [weight] N; mean 2 N, then 3 N.

    dweight: g x^ N, summed over rows (M - 1) S.
    """
    m, s = _rows(op)
    to_input, to_weight = op.flags("output_mask")
    flops = m * s if to_input or to_weight else 0
    flops += to_input * m * s * (5 + given(op, "weight")) + to_weight * max(0, 2 * m - 1) * s
    return Work(vector=flops)


def _read_for(op: OpSignature, grad: str, mask: tuple[bool, ...], statistics: tuple[str, ...]) -> list[TensorMeta]:
    """The gradient; the input and its statistics for dX and dweight; the weight for dX; never the bias."""
    read = [op.tensor(grad)] if any(mask) else []
    if mask[0] or mask[1]:
        read += [t for name in ("input", *statistics) if (t := op.maybe(name)) is not None]
    weight = op.maybe("weight")
    if mask[0] and weight is not None:
        read.append(weight)
    return read


@traffic("aten.native_layer_norm_backward", "aten.native_group_norm_backward", "aten._fused_rms_norm_backward")
def norm_backward_traffic(op: OpSignature) -> tuple[int, int]:
    """Only what the gradients asked for need."""
    read = _read_for(op, "grad_out", op.flags("output_mask"), ("mean", "rstd"))
    return distinct_bytes(read), default(op)[1]


def _groups(op: OpSignature) -> tuple[int, int, int]:
    """(rows, elements in all, channels) of a group norm: a row is one group of one sample."""
    batch, channels, positions, groups = (int(op.number(name)) for name in ("N", "C", "HxW", "group"))
    return batch * groups, batch * channels * positions, channels


@cost("aten.native_group_norm")
def group_norm(op: OpSignature) -> Work:
    """A layer norm whose rows are the groups of a sample, with a weight and a bias per channel."""
    m, n, _ = _groups(op)
    return Work(vector=5 * n + 2 * m + n * given(op, "weight", "bias") if n else 0)


@cost("aten.native_group_norm_backward")
def group_norm_backward(op: OpSignature) -> Work:
    """The layer norm's backward; dweight sums g x^ and dbias sums g over the n elements of each channel."""
    _, elements, channels = _groups(op)
    to_input, to_weight, to_bias = op.flags("output_mask")
    flops = 2 * elements if to_input or to_weight else 0
    flops += to_input * elements * (7 + given(op, "weight"))
    flops += to_weight * max(0, 2 * elements - channels) + to_bias * max(0, elements - channels)
    return Work(vector=flops)


@cost("aten._weight_norm_interface")
def weight_norm(op: OpSignature) -> Work:
    """v (g / |v|), one norm per slice along dim: squares S, sum S - 1, root; a division; a product per element."""
    n, m = op.tensor("v").numel, op.tensor("g").numel
    return Work(vector=3 * n + m)


@cost("aten._weight_norm_interface_backward")
def weight_norm_backward(op: OpSignature) -> Work:
    """dg = (dw . v) / |v|; dv = (g / |v|) (dw - v (dg / |v|)).

    Per slice: the dot 2 S - 1, dg, g / |v|, dg / |v| 3; per element product, subtraction, product: 5 S + 2.
    """
    n, m = op.tensor("saved_v").numel, op.tensor("saved_g").numel
    return Work(vector=5 * n + 2 * m)
