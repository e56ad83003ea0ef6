"""Dense products: multiply-adds of every shape, biases, scales, backward, nested and packed operands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from attnprof.core.cost import Cost
from attnprof.core.work import PricedOp
from attnprof.costs.pricing import price
from support import only_op, ops_of

size = st.integers(0, 7)
dim = st.integers(1, 7)
F32 = 4  # bytes


def priced(run: Callable[[], Any], name: str) -> PricedOp:
    return price(only_op(run, name))


def cost(run: Callable[[], Any], name: str) -> Cost:
    return priced(run, name).cost


def total_matmul(run: Callable[[], Any]) -> int:
    return sum(price(op).cost.matmul_flops for op in ops_of(run))


def r(*shape: int, **kwargs: Any) -> Tensor:
    return torch.randn(*shape, **kwargs)


@given(size, size, size)
@settings(max_examples=20, deadline=None)
def test_mm_is_two_flops_per_multiply_add_for_any_shape(m: int, k: int, n: int) -> None:
    found = cost(lambda: torch.mm(r(m, k), r(k, n)), "aten.mm")
    assert found.matmul_flops == 2 * m * k * n
    assert found.vector_flops == 0
    assert (found.read_bytes, found.write_bytes) == (F32 * (m * k + k * n), F32 * m * n)


def test_a_complex_multiply_add_is_four_products_and_four_sums() -> None:
    a, b = r(3, 4, dtype=torch.complex64), r(4, 5, dtype=torch.complex64)
    assert cost(lambda: a @ b, "aten.mm").matmul_flops == 8 * 3 * 4 * 5


@given(dim, dim, dim, dim)
@settings(max_examples=20, deadline=None)
def test_matmul_backward_doubles_the_forward(b: int, m: int, k: int, n: int) -> None:
    x, w = r(b, m, k, requires_grad=True), r(b, k, n, requires_grad=True)
    assert total_matmul(lambda: torch.bmm(x, w).sum().backward()) == 3 * (2 * b * m * k * n)


@pytest.mark.parametrize(
    ("alpha", "beta", "per_output"),
    [(1, 1, 1), (2, 1, 2), (1, 3, 2), (2, 3, 3), (1, 0, 0), (2, 0, 1)],
)
def test_a_bias_adds_and_scales_that_are_not_one_multiply(alpha: float, beta: float, per_output: int) -> None:
    m, k, n = 3, 4, 5
    bias, a, b = r(n), r(m, k), r(k, n)
    found = cost(lambda: torch.addmm(bias, a, b, alpha=alpha, beta=beta), "aten.addmm")
    assert found.matmul_flops == 2 * m * k * n
    assert found.vector_flops == per_output * m * n
    bias_read = n if beta else 0  # beta 0: self is not used, so not read
    assert found.read_bytes == F32 * (bias_read + m * k + k * n)


def test_every_gemm_with_a_bias() -> None:
    b, m, k, n = 2, 3, 4, 5
    batch = (r(b, m, k), r(b, k, n))
    assert cost(lambda: torch.baddbmm(r(b, m, n), *batch), "aten.baddbmm") == Cost(
        2 * b * m * k * n,
        b * m * n,
        2 * b * m * k * n,
        F32 * (b * m * n + b * m * k + b * k * n),
        F32 * b * m * n,
        (("matmul", "float32", 2 * b * m * k * n), ("vector", "float32", b * m * n)),
    )
    summed = cost(lambda: torch.addbmm(r(m, n), *batch), "aten.addbmm")
    assert (summed.matmul_flops, summed.vector_flops) == (2 * b * m * k * n, m * n)
    vector = cost(lambda: torch.addmv(r(m), r(m, k), r(k)), "aten.addmv")
    assert (vector.matmul_flops, vector.vector_flops) == (2 * m * k, m)
    outer = cost(lambda: torch.addr(r(m, n), r(m), r(n)), "aten.addr")
    assert (outer.matmul_flops, outer.vector_flops) == (2 * m * n, m * n)
    in_place = cost(lambda: r(m, n).addmm_(r(m, k), r(k, n)), "aten.addmm_")
    assert (in_place.matmul_flops, in_place.vector_flops) == (2 * m * k * n, m * n)
    assert in_place.write_bytes == F32 * m * n


def test_products_with_vectors() -> None:
    assert cost(lambda: torch.mv(r(3, 4), r(4)), "aten.mv").matmul_flops == 2 * 3 * 4
    assert cost(lambda: torch.dot(r(7), r(7)), "aten.dot").matmul_flops == 2 * 7
    z = r(7, dtype=torch.complex64)
    found = cost(lambda: torch.vdot(z, z), "aten.vdot")
    assert found.matmul_flops == 8 * 7
    assert found.read_bytes == 7 * 8  # z once, though it is both operands


@pytest.mark.parametrize(("use_gelu", "per_output"), [(False, 1), (True, 5)])
def test_fused_activation(use_gelu: bool, per_output: int) -> None:
    m, k, n = 3, 4, 5
    bias, a, b = r(n), r(m, k), r(k, n)
    found = cost(lambda: torch._addmm_activation(bias, a, b, use_gelu=use_gelu), "aten._addmm_activation")
    assert (found.matmul_flops, found.vector_flops) == (2 * m * k * n, m * n + per_output * m * n)
    # The op on the CPU is the erf gelu, as counted.
    expected = torch.addmm(bias, a, b)
    expected = torch.nn.functional.gelu(expected) if use_gelu else expected.relu()
    assert torch.allclose(torch._addmm_activation(bias, a, b, use_gelu=use_gelu), expected, atol=1e-6)


def test_an_expanded_operand_is_read_once() -> None:
    w = r(4, 5)
    found = cost(lambda: torch.bmm(r(6, 3, 4), w.expand(6, 4, 5)), "aten.bmm")
    assert found.matmul_flops == 2 * 6 * 3 * 4 * 5
    assert found.read_bytes == F32 * (6 * 3 * 4 + 4 * 5)


def test_foreach_mm_sums_its_pairs() -> None:
    a, b = [r(2, 3), r(4, 5)], [r(3, 6), r(5, 7)]
    found = cost(lambda: torch._foreach_mm(a, b), "aten._foreach_mm")
    assert found.matmul_flops == 2 * 2 * 3 * 6 + 2 * 4 * 5 * 7


def test_linear_layer_forward_and_backward() -> None:
    layer, x = nn.Linear(8, 6), r(2, 5, 8)
    rows = 2 * 5
    assert total_matmul(lambda: layer(x).sum().backward()) == 2 * (2 * rows * 8 * 6)  # forward and dW: x has no grad
    x.requires_grad_()
    assert total_matmul(lambda: layer(x).sum().backward()) == 3 * (2 * rows * 8 * 6)


def test_composites_that_inference_mode_leaves_whole() -> None:
    layer, x = nn.Linear(8, 6), r(2, 5, 8)
    with torch.inference_mode():
        whole = cost(lambda: layer(x), "aten.linear")
        product = cost(lambda: torch.matmul(x, r(2, 8, 3)), "aten.matmul")
    assert (whole.matmul_flops, whole.vector_flops) == (2 * 10 * 8 * 6, 10 * 6)
    assert product.matmul_flops == 2 * 2 * 5 * 8 * 3


def test_nested_linear_counts_the_real_rows() -> None:
    lengths, k, n = (3, 5), 8, 6
    rows = sum(lengths)
    layer = nn.Linear(k, n)
    x = torch.nested.nested_tensor([r(t, k) for t in lengths], requires_grad=True)
    ops = ops_of(lambda: layer(x).to_padded_tensor(0).sum().backward())
    forward = next(price(op).cost for op in ops if op.op == "aten.linear.default")
    backward = next(price(op).cost for op in ops if op.op == "aten.linear_backward.default")
    assert (forward.matmul_flops, forward.vector_flops) == (2 * rows * k * n, rows * n)
    assert (backward.matmul_flops, backward.vector_flops) == (2 * (2 * rows * k * n), (rows - 1) * n)
    assert backward.read_bytes == F32 * (rows * n + rows * k + n * k)
    assert backward.write_bytes == F32 * (rows * k + n * k + n)


def test_nested_linear_backward_does_only_what_is_asked() -> None:
    x = torch.nested.nested_tensor([r(3, 8), r(5, 8)])
    backward = cost(lambda: nn.Linear(8, 6)(x).to_padded_tensor(0).sum().backward(), "aten.linear_backward")
    assert backward.matmul_flops == 2 * 8 * 8 * 6  # dW alone
    assert backward.read_bytes == F32 * (8 * 6 + 8 * 8)  # the weight is not needed


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), dim, dim)
@settings(max_examples=20, deadline=None)
def test_nested_matmul_counts_each_piece(lengths: list[int], heads: int, d: int) -> None:
    q = torch.nested.nested_tensor([r(heads, t, d) for t in lengths], requires_grad=True)
    k = torch.nested.nested_tensor([r(heads, d, t) for t in lengths], requires_grad=True)
    ops = ops_of(lambda: torch.matmul(q, k).to_padded_tensor(0).sum().backward())
    each = sum(2 * heads * t * d * t for t in lengths)
    found = {op.op: price(op).cost.matmul_flops for op in ops if "matmul" in op.op}
    assert found == {"aten.matmul.default": each, "aten.matmul_backward.default": 2 * each}


def test_opaque_mkldnn_linear() -> None:
    x, w, b = r(3, 8).to_mkldnn(), r(5, 8).to_mkldnn(), r(5).to_mkldnn()
    found = cost(lambda: torch._C._nn.mkldnn_linear(x, w, b), "aten.mkldnn_linear")
    assert (found.matmul_flops, found.vector_flops) == (2 * 3 * 8 * 5, 3 * 5)
    assert (found.read_bytes, found.write_bytes) == (F32 * (3 * 8 + 5 * 8 + 5), F32 * 3 * 5)


@given(dim, dim, dim, dim, st.booleans())
@settings(max_examples=20, deadline=None)
def test_matmul_flops_agree_with_torch_s_own_counter(b: int, m: int, k: int, n: int, bias: bool) -> None:
    layer = nn.Linear(k, n, bias=bias)
    x, y = r(b, m, k, requires_grad=True), r(b, n, m, requires_grad=True)

    def run() -> None:
        torch.baddbmm(r(b, m, m), layer(x), y).sum().backward()

    with FlopCounterMode(display=False) as counter:
        run()
    assert total_matmul(run) == counter.get_total_flops()
