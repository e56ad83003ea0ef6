"""Products of quantised operands: the multiply-adds of the dense product, and the arithmetic of the scales.

Integer and low-precision products count like any other, keyed by the dtype they run in. Packed weights hide
their shape, so the output's width is read from the output.
"""

from __future__ import annotations

from math import prod

from attnprof.core.signature import OpSignature
from attnprof.core.tensor import TensorMeta
from attnprof.core.work import Work
from attnprof.costs.registry import cost, free, movement, traffic
from attnprof.costs.traffic import default

#: Scalar operations per element of an activation fused into a product.
ACTIVATIONS = {"relu": 1, "silu": 4, "none": 0, "None": 0}


@cost("aten._int_mm")
def int_mm(op: OpSignature) -> Work:
    """int8 [m, k] x [k, n] into int32."""
    a, b = op.tensor("self"), op.tensor("mat2")
    return Work(matmul=2 * a.shape[0] * a.shape[1] * b.shape[1])


def scaling(op: OpSignature, outputs: int) -> int:
    """Vector FLOPs of the scales of both operands, (a s_a) (b s_b).

    One scale per tensor: their product once, then 1 per output. One per row of a and column of b: 2 per
    output. One per block of the contraction: the partial sum of every block of every output is multiplied
    by both scales, 2 per output and block.
    """
    a, b = op.tensor("self"), op.tensor("mat2")
    scales_a, scales_b = op.tensors("scale_a"), op.tensors("scale_b")
    total = 0
    for scale_a, scale_b in zip(scales_a, scales_b, strict=True):
        if scale_a.numel <= 1 and scale_b.numel <= 1:
            total += 1 + outputs
        else:
            total += 2 * outputs * max(_blocks(scale_a, a, -2), _blocks(scale_b, b, -1))
    return total


def _blocks(scale: TensorMeta, operand: TensorMeta, axis: int) -> int:
    """Blocks of the contraction that have a scale of their own, from the scales per row or column."""
    kept = prod(operand.shape[:-2]) * operand.shape[axis]
    return max(1, scale.numel // max(kept, 1))


@cost("aten._scaled_mm", "aten._scaled_mm_v2")
def scaled_mm(op: OpSignature) -> Work:
    """fp8 or fp4 [m, k] x [k, n], times the scales, plus the bias, times the scale of the result.

    fp4 is stored two to an element, so the contraction is twice as long as the shape says.
    """
    a, n = op.tensor("self"), op.out.numel
    k = a.shape[1] * (2 if a.dtype == "float4_e2m1fn_x2" else 1)
    vector = scaling(op, n) + n * ((op.maybe("bias") is not None) + (op.maybe("scale_result") is not None))
    return Work(2 * n * k, vector)


@cost("aten._weight_int4pack_mm", "aten._weight_int4pack_mm_for_cpu", "aten._weight_int4pack_mm_with_scales_and_zeros")
def weight_int4pack_mm(op: OpSignature) -> Work:
    """[m, k] x int4 [n, k]^T. Every weight is first made a number: q * scale + zero, 2 each."""
    k, n = op.tensor("self").shape[-1], op.out.shape[-1]
    return Work(2 * op.out.numel * k, 2 * n * k)


@cost("aten._weight_int8pack_mm")
def weight_int8pack_mm(op: OpSignature) -> Work:
    """[m, k] x int8 [n, k]^T; the scale of an output column multiplies its sum, 1 per output."""
    return Work(2 * op.out.numel * op.tensor("self").shape[-1], op.out.numel)


@cost("aten._dyn_quant_matmul_4bit")
def dyn_quant_matmul_4bit(op: OpSignature) -> Work:
    """Rows quantised on the fly (see :func:`linear_dynamic`), times int4 [n, k]^T, one scale per block of k."""
    x, n = op.tensor("inp"), op.out.numel
    k, block = int(op.number("in_features")), int(op.number("block_size"))
    return Work(2 * n * k, _quantise(x) + 2 * n * (k // block if 0 < block <= k else 1))


@cost("aten._mixed_dtypes_linear")
def mixed_dtypes_linear(op: OpSignature) -> Work:
    """Half-precision x times int8 or int4 weight, one scale per output column, bias and activation fused."""
    x, n = op.tensor("input"), op.out.numel
    activation = ACTIVATIONS[str(op.value("activation"))]
    return Work(2 * n * x.shape[-1], n * (1 + (op.maybe("bias") is not None) + activation))


def _quantise(x: TensorMeta) -> int:
    """Dynamic quantisation of x: its least and greatest (2(N-1)), then x / s + z, rounded: 3 per element.

    Saturation is part of the cast, and the dozen operations that turn the range into (s, z) are not counted.
    """
    return 2 * max(x.numel - 1, 0) + 3 * x.numel


_DYNAMIC = ("quantized.linear_dynamic", "quantized.linear_relu_dynamic")
_HALF = ("quantized.linear_dynamic_fp16", "quantized.linear_relu_dynamic_fp16")


@cost(*_DYNAMIC)
def linear_dynamic(op: OpSignature) -> Work:
    """float32 x quantised on the fly, times int8 W; the int32 sums times the scales, plus bias: 2 per output."""
    x, n = op.tensor("X"), op.out.numel
    relu = n if "relu" in op.op else 0
    return Work(2 * n * x.shape[-1], _quantise(x) + 2 * n + relu, matmul_dtype="int8")


@cost(*_HALF)
def linear_dynamic_half(op: OpSignature) -> Work:
    """float32 x times W kept in half precision, plus bias."""
    n = op.out.numel
    return Work(2 * n * op.tensor("X").shape[-1], n + (n if "relu" in op.op else 0))


#: Operations per output of the activation that a static quantised linear applies to its integers.
_STATIC = {
    "quantized.linear": 0,
    "quantized.linear_relu": 1,
    "quantized.linear_leaky_relu": 2,
    "quantized.linear_tanh": 1,
}


@cost(*_STATIC)
def linear_static(op: OpSignature) -> Work:
    """Quantised x times int8 W; sums plus bias, then requantised: x scale, round, + zero point: 4 per output."""
    n = op.out.numel
    return Work(2 * n * op.tensor("X").shape[-1], n * (4 + _STATIC[op.packet]), matmul_dtype="int8")


@traffic(*_DYNAMIC, *_HALF, *_STATIC)
def packed_linear_traffic(op: OpSignature) -> tuple[int, int]:
    """x and the output by the default rule, and the packed weight [n, k]: 1 byte each, 2 in half precision.

    Its bias and scales are packed too and unseen: they are not counted.
    """
    read, written = default(op)
    weight = op.out.shape[-1] * op.tensor("X").shape[-1] * (2 if op.packet in _HALF else 1)
    return read + weight, written


@cost("aten.quantize_per_tensor", "aten.quantize_per_channel")
def quantize(op: OpSignature) -> Work:
    """x / s + z, rounded: 3 per element; saturation is part of the cast."""
    return Work(vector=3 * sum(t.numel for t in op.outs))


@cost("quantized_decomposed.quantize_per_tensor", "quantized_decomposed.quantize_per_channel")
def quantize_into_range(op: OpSignature) -> Work:
    """As exported programs quantise: x / s + z, rounded, 3 per element, and clamped to a range of its own, 2."""
    return Work(vector=5 * op.out.numel)


@cost("aten.quantize_per_tensor_dynamic")
def quantize_dynamic(op: OpSignature) -> Work:
    """The range, then the quantisation."""
    return Work(vector=_quantise(op.inputs[0]))


@cost("aten.dequantize", "quantized_decomposed.dequantize_per_tensor", "quantized_decomposed.dequantize_per_channel")
def dequantize(op: OpSignature) -> Work:
    """(q - z) s: 2 per element."""
    return Work(vector=2 * sum(t.numel for t in op.outs))


@cost(
    "aten.fake_quantize_per_tensor_affine_cachemask",
    "aten.fake_quantize_per_channel_affine_cachemask",
    "aten._fake_quantize_per_tensor_affine_cachemask_tensor_qparams",
)
def fake_quantize(op: OpSignature) -> Work:
    """q = round(x / s + z) 3; the mask, q within [low, high], 3; clamped 2; (q - z) s 2: 10 per element."""
    return Work(vector=10 * op.out.numel)


@cost("aten._fused_moving_avg_obs_fq_helper")
def observe_and_fake_quantize(op: OpSignature) -> Work:
    """The range of x, 2(N - 1), then 10 per element; the running range and its scale are a handful, not counted."""
    n = op.tensor("self").numel
    return Work(vector=2 * max(0, n - 1) + 10 * n)


@cost(
    "aten.fake_quantize_per_tensor_affine_cachemask_backward",
    "aten.fake_quantize_per_channel_affine_cachemask_backward",
)
def fake_quantize_backward(op: OpSignature) -> Work:
    """The gradient times the mask."""
    return Work(vector=op.out.numel)


free(
    (
        "aten._empty_affine_quantized",
        "aten._empty_per_channel_affine_quantized",
        "aten.empty_quantized",
        "aten.q_scale",
        "aten.q_zero_point",
        "aten.q_per_channel_scales",
        "aten.q_per_channel_zero_points",
        "aten.q_per_channel_axis",
        "aten.qscheme",
    ),
    "memory without contents, or a question about how a tensor is quantised",
)

movement(
    (
        "aten.int_repr",
        "aten._make_per_tensor_quantized_tensor",
        "aten._make_per_channel_quantized_tensor",
        "aten._convert_weight_to_int4pack",
        "aten._convert_weight_to_int4pack_for_cpu",
        "aten._dyn_quant_pack_4bit_weight",
        "aten.to_mkldnn",
        "aten._mkldnn_reshape",
        "aten._mkldnn_transpose",
        "aten.mkldnn_reorder_conv2d_weight",
        "aten.mkldnn_reorder_conv3d_weight",
        "quantized.linear_prepack",
        "quantized.linear_prepack_fp16",
        "quantized.linear_unpack",
        "quantized.linear_unpack_fp16",
        "quantized.make_quantized_cell_params",
        "quantized.make_quantized_cell_params_dynamic",
        "quantized.make_quantized_cell_params_fp16",
    )
)
