"""Fused attention: four products forward and back, masks counted by brute force, the math path as the other witness."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from attnprof.core.signature import OpSignature
from attnprof.core.tensor import TensorMeta
from attnprof.costs.formulas.attention import keys_up_to
from attnprof.costs.pricing import price
from support import only_op, ops_of

CPU = "aten._scaled_dot_product_flash_attention_for_cpu"
F32 = 4  # bytes
small = st.integers(1, 6)
meta = torch.ops.aten


def qkv(b: int, h: int, hk: int, t: int, s: int, d: int, **kwargs: Any) -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(b, h, t, d, **kwargs), torch.randn(b, hk, s, d, **kwargs), torch.randn(b, hk, s, d, **kwargs)


def matmuls(run: Callable[[], Any]) -> tuple[int, int]:
    """(matmul FLOPs, recomputed matmul FLOPs) of all that runs."""
    found = [price(op) for op in ops_of(run)]
    return sum(p.cost.matmul_flops for p in found), sum(p.recompute.matmul_flops for p in found)


@given(small, st.sampled_from([(1, 1), (2, 1), (4, 2)]), small, small, small)
@settings(max_examples=25, deadline=None)
def test_forward_and_backward_of_any_shape(b: int, heads: tuple[int, int], t: int, s: int, d: int) -> None:
    h, hk = heads
    q, k, v = qkv(b, h, hk, t, s, d, requires_grad=True)
    grad = torch.randn(b, h, t, d)
    ops = ops_of(lambda: F.scaled_dot_product_attention(q, k, v, enable_gqa=h != hk).backward(grad))
    forward = next(price(op) for op in ops if op.packet == CPU)
    backward = next(price(op) for op in ops if op.packet == CPU + "_backward")
    product, rows = 2 * b * h * t * s * d, b * h * t  # one T x S x d product; softmax rows

    assert forward.cost.matmul_flops == forward.cost.useful_matmul_flops == 2 * product
    assert forward.cost.vector_flops == rows * 6 * s
    elements_q, elements_k, lse = b * h * t * d, b * hk * s * d, b * h * t
    assert forward.cost.read_bytes == F32 * (elements_q + 2 * elements_k)
    assert forward.cost.write_bytes == F32 * (elements_q + lse)

    assert backward.cost.matmul_flops == 4 * product
    assert backward.recompute.matmul_flops == product
    assert backward.cost.vector_flops == rows * (3 * s + 2 * d - 1)
    assert backward.recompute.vector_flops == rows * 3 * s
    assert backward.cost.read_bytes == F32 * (3 * elements_q + 2 * elements_k + lse)  # q, o, do, k, v, lse
    assert backward.cost.write_bytes == F32 * (elements_q + 2 * elements_k)


@given(small, small, small, small, st.booleans())
@settings(max_examples=25, deadline=None)
def test_fused_and_math_paths_agree_on_model_flops(b: int, t: int, s: int, d: int, causal: bool) -> None:
    q, k, v = qkv(b, 4, 2, t, s, d, requires_grad=True)
    grad = torch.randn(b, 4, t, d)

    def run() -> None:
        F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=True).backward(grad)

    fused, again = matmuls(run)
    with sdpa_kernel(SDPBackend.MATH):
        math, none = matmuls(run)
    assert fused == math
    assert (again, none) == (2 * b * 4 * t * s * d, 0)  # only the fused backward rebuilds the scores


def test_unequal_head_widths_take_the_math_path_and_cost_what_the_fused_formula_says() -> None:
    b, h, t, s, dk, dv = 2, 3, 4, 5, 6, 2
    q, k, v = torch.randn(b, h, t, dk), torch.randn(b, h, s, dk), torch.randn(b, h, s, dv)
    expected = 2 * b * h * t * s * (dk + dv)
    assert matmuls(lambda: F.scaled_dot_product_attention(q, k, v)) == (expected, 0)
    fused = only_op(
        lambda: meta._scaled_dot_product_efficient_attention(
            q.to("meta"), k.to("meta"), v.to("meta"), None, compute_log_sumexp=True
        ),
        "aten._scaled_dot_product_efficient_attention",
    )
    assert price(fused).cost.matmul_flops == expected


@given(st.integers(0, 9), st.integers(0, 9), st.integers(-12, 12))
@settings(max_examples=100, deadline=None)
def test_clipped_triangle_against_a_mask(t: int, s: int, offset: int) -> None:
    assert keys_up_to(t, s, offset) == int(torch.ones(t, s).tril(diagonal=offset).sum())


@given(small, small)
@settings(max_examples=25, deadline=None)
def test_causal_useful_flops_are_the_pairs_of_the_mask_torch_builds(t: int, s: int) -> None:
    b, h, d = 2, 3, 4
    q, k, v = qkv(b, h, h, t, s, d)
    mask = torch.ones(t, s, dtype=torch.bool).tril()  # what the math path builds for is_causal
    fused = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert torch.allclose(fused, F.scaled_dot_product_attention(q, k, v, attn_mask=mask), atol=1e-5)
    found = price(only_op(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True), CPU)).cost
    assert found.matmul_flops == 4 * b * h * t * s * d
    assert found.useful_matmul_flops == 4 * b * h * d * int(mask.sum())


def test_causal_backward_is_useful_in_the_same_proportion() -> None:
    b, h, t, d = 2, 3, 5, 4
    q, k, v = qkv(b, h, h, t, t, d, requires_grad=True)
    op = only_op(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True).sum().backward(), CPU + "_backward")
    assert price(op).cost.useful_matmul_flops == 4 * 2 * b * h * d * (t * (t + 1) // 2)


def test_a_scale_of_one_is_not_multiplied() -> None:
    b, h, t, s, d = 2, 3, 4, 5, 6
    q, k, v = qkv(b, h, h, t, s, d, requires_grad=True)
    ops = ops_of(lambda: F.scaled_dot_product_attention(q, k, v, scale=1.0).sum().backward())
    forward = next(price(op).cost for op in ops if op.packet == CPU)
    backward = next(price(op) for op in ops if op.packet == CPU + "_backward")
    rows = b * h * t
    assert forward.vector_flops == rows * 5 * s
    assert (backward.cost.vector_flops, backward.recompute.vector_flops) == (rows * (2 * s + 2 * d - 1), rows * 2 * s)


def test_an_additive_mask_is_added_and_read() -> None:
    b, h, t, s, d = 2, 3, 4, 5, 6
    q, k, v = qkv(b, h, h, t, s, d, requires_grad=True)
    mask = torch.randn(t, s)
    ops = ops_of(lambda: F.scaled_dot_product_attention(q, k, v, attn_mask=mask).sum().backward())
    forward = next(price(op).cost for op in ops if op.packet == CPU)
    backward = next(price(op) for op in ops if op.packet == CPU + "_backward")
    assert forward.vector_flops == b * h * t * 7 * s
    assert forward.useful_matmul_flops == forward.matmul_flops  # the mask's contents are not known
    assert forward.read_bytes == F32 * (b * h * t * d + 2 * b * h * s * d + t * s)
    assert backward.recompute.vector_flops == b * h * t * 4 * s


# The CUDA ops, seen through their meta kernels.


def on_meta(*shape: int) -> Tensor:
    return torch.empty(*shape, device="meta", dtype=torch.float16)


def run_op(name: str, *args: Any, **kwargs: Any) -> OpSignature:
    return only_op(lambda: getattr(meta, name)(*args, **kwargs), f"aten.{name}")


def test_every_cuda_forward_costs_the_same_products() -> None:
    b, h, hk, t, s, d = 2, 4, 4, 8, 8, 16
    q, k, v = on_meta(b, h, t, d), on_meta(b, hk, s, d), on_meta(b, hk, s, d)
    first = [x.transpose(1, 2) for x in (q, k, v)]  # [batch, sequence, head, width]
    ops = [
        run_op("_scaled_dot_product_flash_attention", q, k, v),
        run_op("_scaled_dot_product_efficient_attention", q, k, v, None, True),
        run_op("_scaled_dot_product_cudnn_attention", q, k, v, None, True),
        run_op("_scaled_dot_product_fused_attention_overrideable", q, k, v),  # of other accelerators
        run_op("_flash_attention_forward", *first, None, None, t, s, 0.0, False, False),
        run_op("_efficient_attention_forward", *first, None, None, None, None, None, 0.0, 0, True),
    ]
    for op in ops:
        found = price(op).cost
        assert found.matmul_flops == 4 * b * h * t * s * d, op.op
        assert found.vector_flops == b * h * t * 6 * s, op.op
        assert found.read_bytes == 2 * (b * h * t * d + 2 * b * hk * s * d), op.op
        assert found.write_bytes >= 2 * b * h * t * d + 4 * b * h * t, op.op  # the logsumexp may be padded


def test_no_logsumexp_no_work_for_it() -> None:
    q = on_meta(2, 4, 8, 16)
    found = price(run_op("_scaled_dot_product_efficient_attention", q, q, q, None, False)).cost
    assert found.vector_flops == 2 * 4 * 8 * (6 * 8 - 2)
    assert found.write_bytes == 2 * q.numel()


def test_dropout_rescales_the_probabilities() -> None:
    q = on_meta(2, 4, 8, 16)
    found = price(run_op("_scaled_dot_product_flash_attention", q, q, q, 0.1)).cost
    assert found.vector_flops == 2 * 4 * 8 * 7 * 8


@pytest.mark.parametrize(("t", "s"), [(5, 9), (9, 5), (7, 7)])
def test_each_backend_aligns_its_causal_mask_in_its_own_corner(t: int, s: int) -> None:
    h, d = 3, 8
    q, k = on_meta(1, h, t, d), on_meta(1, h, s, d)
    first = [q.transpose(1, 2), k.transpose(1, 2), k.transpose(1, 2)]
    top_left = int(torch.ones(t, s).tril().sum())
    bottom_right = int(torch.ones(t, s).tril(diagonal=s - t).sum())

    def useful(name: str, *args: Any, **kwargs: Any) -> int:
        return price(run_op(name, *args, **kwargs)).cost.useful_matmul_flops // (4 * h * d)

    assert useful("_scaled_dot_product_flash_attention", q, k, k, 0.0, True) == bottom_right
    assert useful("_flash_attention_forward", *first, None, None, t, s, 0.0, True, False) == bottom_right
    assert useful("_scaled_dot_product_efficient_attention", q, k, k, None, True, 0.0, True) == top_left
    assert useful("_scaled_dot_product_cudnn_attention", q, k, k, None, True, 0.0, True) == top_left
    efficient = (*first, None, None, None, None, None, 0.0)
    assert useful("_efficient_attention_forward", *efficient, 1, True) == top_left
    assert useful("_efficient_attention_forward", *efficient, 2, True) == bottom_right


@pytest.mark.parametrize(("left", "right", "causal"), [(2, 0, True), (2, 3, False), (None, 1, False), (3, None, False)])
def test_a_window_is_the_band_of_a_mask(left: int | None, right: int | None, causal: bool) -> None:
    t, s, h, d = 6, 9, 2, 8
    q, k = on_meta(1, t, h, d), on_meta(1, s, h, d)
    op = run_op(
        "_flash_attention_forward",
        *(q, k, k, None, None, t, s, 0.0, causal, False),
        window_size_left=left,
        window_size_right=right,
    )
    i, j = torch.arange(t)[:, None] + s - t, torch.arange(s)[None]
    seen = torch.ones(t, s, dtype=torch.bool)
    if left is not None:
        seen &= j >= i - left
    if right is not None:
        seen &= j <= i + right
    assert price(op).cost.useful_matmul_flops == 4 * h * d * int(seen.sum())


def with_values(op: OpSignature, **values: tuple[int, ...]) -> OpSignature:
    """``op`` as it is recorded when the contents of its index tensors can be read."""

    def known(name: str, value: Any) -> Any:
        return replace(value, values=values[name]) if name in values and isinstance(value, TensorMeta) else value

    return replace(op, args=tuple((name, known(name, value)) for name, value in op.args))


def test_packed_sequences_count_their_real_lengths() -> None:
    h, d, queries, keys = 2, 8, (3, 5, 1), (4, 5, 6)
    q, k = on_meta(sum(queries), h, d), on_meta(sum(keys), h, d)
    ends = torch.empty(4, dtype=torch.int32, device="meta")
    flash = run_op("_flash_attention_forward", q, k, k, ends, ends, max(queries), max(keys), 0.0, True, False)
    efficient = run_op(
        "_efficient_attention_forward", *(q[None], k[None], k[None], None, ends, ends, 5, 6, 0.0, 0, True)
    )
    known = {"q": (0, 3, 8, 9), "k": (0, 4, 9, 15)}
    flash = with_values(flash, cum_seq_q=known["q"], cum_seq_k=known["k"])
    efficient = with_values(efficient, cu_seqlens_q=known["q"], cu_seqlens_k=known["k"])
    pairs = sum(t * s for t, s in zip(queries, keys, strict=True))
    causal = sum(int(torch.ones(t, s).tril(s - t).sum()) for t, s in zip(queries, keys, strict=True))
    assert price(flash).cost.matmul_flops == price(efficient).cost.matmul_flops == 4 * h * d * pairs
    assert price(flash).cost.useful_matmul_flops == 4 * h * d * causal
    assert price(flash).cost.vector_flops == 6 * h * pairs


def test_packed_sequences_of_unknown_length_count_as_equal_ones() -> None:
    h, d = 2, 8
    q = on_meta(12, h, d)
    ends = torch.empty(4, dtype=torch.int32, device="meta")
    op = run_op("_flash_attention_forward", q, q, q, ends, ends, 4, 4, 0.0, False, False)
    assert price(op).cost.matmul_flops == 4 * h * d * (3 * 4 * 4)


def test_nested_operands_count_each_piece() -> None:
    h, d, lengths = 2, 8, (3, 5)
    sizes = tuple(n for length in lengths for n in (h, length, d))
    x = TensorMeta((h * d * sum(lengths),), (1,), "float16", "cuda:0", 0, "nested", values=sizes)
    name = "aten._scaled_dot_product_flash_attention"
    dense = run_op("_scaled_dot_product_flash_attention", *[on_meta(1, h, 8, d)] * 3)
    args = tuple((n, x if isinstance(v, TensorMeta) else v) for n, v in dense.args)
    op = OpSignature(f"{name}.default", args, (replace(x, ident=1), None))
    assert price(op).cost.matmul_flops == 4 * h * d * sum(t * t for t in lengths)
    assert price(op).cost.read_bytes == 2 * x.numel  # q, k and v are one tensor


@pytest.mark.parametrize("bias_grad", [False, True])
def test_efficient_backward_and_the_gradient_of_a_bias(bias_grad: bool) -> None:
    b, h, t, s, d = 2, 4, 8, 16, 8
    q, k = on_meta(b, h, t, d), on_meta(b, h, s, d)
    bias = on_meta(1, 1, t, s).expand(b, h, t, s)
    out, lse, seed, offset = meta._scaled_dot_product_efficient_attention(q, k, k, bias, True)
    op = run_op(
        "_scaled_dot_product_efficient_attention_backward",
        *(out, q, k, k, bias, out, lse, seed, offset, 0.0, [True, True, True, bias_grad]),
    )
    found, product = price(op), 2 * b * h * t * s * d
    assert (found.cost.matmul_flops, found.recompute.matmul_flops) == (4 * product, product)
    # The gradient comes back in the bias's full shape, so nothing is summed here.
    assert found.cost.vector_flops == b * h * t * (3 * s + 2 * d - 1)
    assert found.recompute.vector_flops == b * h * t * 4 * s


def test_flash_backward_through_its_meta_kernel() -> None:
    b, h, t, d = 2, 4, 8, 16
    q = on_meta(b, h, t, d)
    out, lse, cum_q, cum_k, max_q, max_k, seed, offset, _ = meta._scaled_dot_product_flash_attention(q, q, q, 0.1)
    op = run_op(
        "_scaled_dot_product_flash_attention_backward",
        *(out, q, q, q, out, lse, cum_q, cum_k, max_q, max_k, 0.1, True, seed, offset),
    )
    found, product, rows = price(op), 2 * b * h * t * t * d, b * h * t
    assert (found.cost.matmul_flops, found.recompute.matmul_flops) == (4 * product, product)
    assert found.cost.vector_flops == rows * (4 * t + 2 * d - 1)  # dropout rescales dP
    assert found.recompute.vector_flops == rows * 4 * t  # and P
    assert found.cost.useful_matmul_flops == 4 * 2 * b * h * d * (t * (t + 1) // 2)
