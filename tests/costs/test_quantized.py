"""Quantised and low-precision products: dense multiply-adds in the dtype they run in, and the scales."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attnprof.core.cost import Cost
from attnprof.core.signature import OpSignature
from attnprof.core.tensor import TensorMeta, contiguous_stride
from attnprof.costs.pricing import price
from support import only_op

F32 = 4  # bytes


def cost(run: Callable[[], Any], name: str) -> Cost:
    return price(only_op(run, name)).cost


def by_engine(found: Cost) -> dict[str, str]:
    return {engine: dtype for engine, dtype, _ in found.split}


def fp8(*shape: int) -> Tensor:
    return torch.randn(*shape).to(torch.float8_e4m3fn)


def test_integer_product() -> None:
    m, k, n = 4, 8, 6
    a, b = torch.ones(m, k, dtype=torch.int8), torch.ones(k, n, dtype=torch.int8)
    found = cost(lambda: torch._int_mm(a, b), "aten._int_mm")
    assert found.matmul_flops == 2 * m * k * n
    assert by_engine(found) == {"matmul": "int8"}
    assert (found.read_bytes, found.write_bytes) == (m * k + k * n, 4 * m * n)


def test_one_scale_per_tensor() -> None:
    m, k, n = 16, 32, 48
    one = torch.tensor(1.0)
    found = cost(lambda: torch._scaled_mm(fp8(m, k), fp8(n, k).t(), one, one), "aten._scaled_mm")
    assert found.matmul_flops == 2 * m * k * n
    assert found.vector_flops == 1 + m * n  # the two scales' product, once; then each output times it
    assert by_engine(found)["matmul"] == "float8_e4m3fn"


def tensor(shape: tuple[int, ...], dtype: str) -> TensorMeta:
    return TensorMeta(shape, contiguous_stride(shape), dtype, "cuda:0")


@pytest.mark.parametrize(
    ("dtype", "stored_k", "scale_a", "scale_b", "per_output"),
    [
        ("float8_e4m3fn", 64, (16, 1), (1, 32), 2),  # a scale per row and per column
        ("float8_e4m3fn", 64, (16, 2), (2, 32), 2 * 2),  # and per block of 32 of the contraction
        ("float4_e2m1fn_x2", 32, (16 * 4,), (32 * 4,), 2 * 4),  # blocks of 16, two numbers to a byte
    ],
)
def test_a_scale_per_row_or_per_block(
    dtype: str, stored_k: int, scale_a: tuple[int, ...], scale_b: tuple[int, ...], per_output: int
) -> None:
    m, k, n = 16, 64, 32
    args = (
        ("self", tensor((m, stored_k), dtype)),
        ("mat2", tensor((stored_k, n), dtype)),
        ("scale_a", tensor(scale_a, "float32")),
        ("scale_b", tensor(scale_b, "float32")),
        ("bias", tensor((n,), "bfloat16")),
    )
    found = price(OpSignature("aten._scaled_mm.default", args, (tensor((m, n), "bfloat16"),))).cost
    assert found.matmul_flops == 2 * m * k * n
    assert found.vector_flops == (per_output + 1) * m * n  # and the bias


def test_weight_only_products() -> None:
    m, k, n, group = 4, 64, 32, 32
    x = torch.randn(m, k, dtype=torch.bfloat16)
    weight, scales = torch.ones(n, k, dtype=torch.int8), torch.ones(n, dtype=torch.bfloat16)
    int8 = cost(lambda: torch._weight_int8pack_mm(x, weight, scales), "aten._weight_int8pack_mm")
    assert (int8.matmul_flops, int8.vector_flops) == (2 * m * k * n, m * n)
    packed = torch._convert_weight_to_int4pack_for_cpu(torch.ones(n, k, dtype=torch.int32), 2)
    zeros = torch.ones(k // group, n, 2, dtype=torch.bfloat16)
    name = "aten._weight_int4pack_mm_for_cpu"
    int4 = cost(lambda: torch._weight_int4pack_mm_for_cpu(x, packed, group, zeros), name)
    assert (int4.matmul_flops, int4.vector_flops) == (2 * m * k * n, 2 * k * n)
    assert packed.numel() == n * k // 2  # two weights to a byte
    assert int4.read_bytes == 2 * m * k + n * k // 2 + 2 * zeros.numel()


def test_fused_epilogues_of_mixed_precision_linear() -> None:
    m, k, n = 4, 16, 8
    for activation, each in (("none", 0), ("relu", 1), ("silu", 4)):
        args = (
            ("input", tensor((m, k), "float16")),
            ("weight", tensor((k, n), "int8")),
            ("scale", tensor((n,), "float16")),
            ("bias", tensor((n,), "float16")),
            ("activation", activation),
        )
        found = price(OpSignature("aten._mixed_dtypes_linear.default", args, (tensor((m, n), "float16"),))).cost
        assert (found.matmul_flops, found.vector_flops) == (2 * m * k * n, (1 + 1 + each) * m * n)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize(("dtype", "weight_bytes"), [(torch.qint8, 1), (torch.float16, 2)])
def test_dynamically_quantised_linear_reads_its_packed_weight(dtype: torch.dtype, weight_bytes: int) -> None:
    b, t, k, n = 2, 3, 8, 16
    layer = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(k, n)), {nn.Linear}, dtype=dtype)
    name = "quantized.linear_dynamic" + ("" if dtype == torch.qint8 else "_fp16")
    found = cost(lambda: layer(torch.randn(b, t, k)), name)
    rows, size = b * t, b * t * k
    assert found.matmul_flops == 2 * rows * k * n
    # int8: the range of x, x / s + z rounded; each output times the scales, plus bias. fp16: the bias.
    expected = 2 * (size - 1) + 3 * size + 2 * rows * n if dtype == torch.qint8 else rows * n
    assert found.vector_flops == expected
    assert by_engine(found)["vector"] == "float32"
    assert (found.read_bytes, found.write_bytes) == (F32 * size + weight_bytes * k * n, F32 * rows * n)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_quantising_and_back() -> None:
    x = torch.randn(4, 8)
    n = x.numel()
    into = cost(lambda: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8), "aten.quantize_per_tensor")
    assert (into.vector_flops, into.read_bytes, into.write_bytes) == (3 * n, F32 * n, n)
    q = torch.quantize_per_tensor(x, 0.1, 0, torch.qint8)
    back = cost(lambda: q.dequantize(), "aten.dequantize")
    assert (back.vector_flops, back.read_bytes, back.write_bytes) == (2 * n, n, F32 * n)
    name = "aten.fake_quantize_per_tensor_affine_cachemask"
    x.requires_grad_()
    fake = cost(lambda: torch.fake_quantize_per_tensor_affine(x, 0.1, 0, -128, 127), name)
    assert (fake.vector_flops, fake.write_bytes) == (10 * n, (F32 + 1) * n)  # the mask is a byte each


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_packing_is_movement_and_opaque_layouts_too() -> None:
    weight = torch.quantize_per_tensor(torch.randn(6, 8), 0.1, 0, torch.qint8)
    found = price(only_op(lambda: torch.ops.quantized.linear_prepack(weight, None), "quantized.linear_prepack"))
    assert found.status == "priced"
    assert (found.cost.flops, found.cost.read_bytes) == (0, 6 * 8)
    x = torch.randn(3, 5)
    moved = cost(x.to_mkldnn, "aten.to_mkldnn")
    assert (moved.flops, moved.read_bytes, moved.write_bytes) == (0, F32 * 15, F32 * 15)
