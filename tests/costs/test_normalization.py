"""Norms: centred once, affine parts on their own, backward by what is asked for, running statistics moved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as fn
from torch import nn

from attnprof.capture.metas import tensor_meta
from attnprof.core.signature import OpSignature
from attnprof.costs.pricing import price
from support import cost_of, only_op, ops_of, traffic_of

F32 = 4  # bytes
B, T, D = 2, 3, 8
M, N = B * T, B * T * D


def x() -> torch.Tensor:
    return torch.randn(B, T, D, requires_grad=True)


def flops(run: Callable[[], Any], name: str) -> int:
    return cost_of(run, name).vector_flops


def test_layer_norm_per_row() -> None:
    name = "aten.native_layer_norm"
    plain = M * (D + D + D + D + 2 + D)  # mean, centre, square, mean, eps and rsqrt, scale
    assert flops(lambda: fn.layer_norm(x(), (D,)), name) == plain
    assert flops(lambda: fn.layer_norm(x(), (D,), torch.ones(D)), name) == plain + N
    assert flops(lambda: nn.LayerNorm(D)(x()), name) == plain + 2 * N
    assert flops(lambda: nn.LayerNorm((T, D))(x()), name) == B * (5 * T * D + 2) + 2 * N
    # input, weight, bias; output, mean and rstd of every row
    assert traffic_of(lambda: nn.LayerNorm(D)(x()), name) == (F32 * (N + 2 * D), F32 * (N + 2 * M))


def test_layer_norm_backward_does_what_is_asked() -> None:
    name = "aten.native_layer_norm_backward"
    layer = nn.LayerNorm(D)
    x_hat, to_input, to_weight, to_bias = 2 * N, 7 * N + N, N + (M - 1) * D, (M - 1) * D
    assert flops(lambda: layer(x()).sum().backward(), name) == x_hat + to_input + to_weight + to_bias
    data = x().detach()
    run = lambda: layer(data).sum().backward()  # noqa: E731
    assert flops(run, name) == x_hat + to_weight + to_bias
    # The gradient arrives expanded from a sum: one element. The weight and the bias are not looked at.
    assert traffic_of(run, name) == (F32 * (1 + N + 2 * M), F32 * 2 * D)
    layer.requires_grad_(False)
    assert flops(lambda: layer(x()).sum().backward(), name) == x_hat + to_input
    assert traffic_of(lambda: layer(x()).sum().backward(), name) == (F32 * (1 + N + 2 * M + D), F32 * N)


def fused_rms_norm(suffix: str, **more: Any) -> OpSignature:
    """The call that CUDA makes; the CPU takes the separate ops."""
    data = tensor_meta(x())
    args = {"input": data, "normalized_shape": (D,), "weight": tensor_meta(torch.rand(D)), **more}
    return OpSignature(f"aten._fused_rms_norm{suffix}.default", tuple(args.items()), (data,))


def test_rms_norm_is_the_same_fused_and_not() -> None:
    layer, data = nn.RMSNorm(D), x().detach()
    with torch.no_grad():
        separate = sum(price(op).cost.vector_flops for op in ops_of(lambda: layer(data)))
    # squares, mean, eps and rsqrt, scale; weight
    assert price(fused_rms_norm("")).cost.vector_flops == separate == M * (D + D + 2 + D) + N


def test_rms_norm_backward() -> None:
    x_hat, to_input, to_weight = N, N + 2 * N + 3 * N, N + (M - 1) * D  # d = g weight; mean(d x^); the rest
    rstd = tensor_meta(torch.rand(M))
    both = fused_rms_norm("_backward", grad_out=tensor_meta(x()), rstd=rstd, output_mask=(True, True))
    assert price(both).cost.vector_flops == x_hat + to_input + to_weight
    frozen = fused_rms_norm("_backward", grad_out=tensor_meta(x()), rstd=rstd, output_mask=(True, False))
    assert price(frozen).cost.vector_flops == x_hat + to_input


C, H = 4, 5
n = B * H * H  # elements of a channel


def image() -> torch.Tensor:
    return torch.randn(B, C, H, H, requires_grad=True)


def test_batch_norm_in_training_also_keeps_statistics() -> None:
    name = "aten.native_batch_norm"
    layer = nn.BatchNorm2d(C)
    plain, affine, running = C * (5 * n + 2), 2 * C * n, C * (3 + 3 + 1)
    assert flops(lambda: layer(image()), name) == plain + affine + running
    # weight, bias and two running statistics; output, two saved and the two running statistics
    assert traffic_of(lambda: layer(image()), name) == (F32 * (C * n + 4 * C), F32 * (C * n + 4 * C))
    without = nn.BatchNorm2d(C, affine=False, track_running_stats=False)
    assert flops(lambda: without(image()), name) == plain
    assert traffic_of(lambda: without(image()), name) == (F32 * C * n, F32 * (C * n + 2 * C))


def test_batch_norm_in_evaluation_only_reads_statistics() -> None:
    name = "aten.native_batch_norm"
    layer = nn.BatchNorm2d(C).eval()
    assert flops(lambda: layer(image()), name) == C * (2 * n + 2) + 2 * C * n
    assert traffic_of(lambda: layer(image()), name) == (F32 * (C * n + 4 * C), F32 * C * n)


def test_batch_norm_backward() -> None:
    name = "aten.native_batch_norm_backward"
    layer = nn.BatchNorm2d(C)
    x_hat, sums, to_input = 2 * n, (n - 1) + (2 * n - 1), 4 * n + 3
    assert flops(lambda: layer(image()).sum().backward(), name) == C * (x_hat + sums + to_input)
    # Gradient (one element, expanded), input, two saved statistics, weight; the running statistics are not looked at.
    assert traffic_of(lambda: layer(image()).sum().backward(), name) == (
        F32 * (1 + C * n + 3 * C),
        F32 * (C * n + 2 * C),
    )
    layer.eval()
    rstd, to_input = 2, n + 1
    assert flops(lambda: layer(image()).sum().backward(), name) == C * (rstd + x_hat + sums + to_input)


def test_the_vendors_batch_norm_is_the_same_norm() -> None:

    from attnprof.costs.pricing import price

    ours = only_op(lambda: nn.BatchNorm2d(C)(image()), "aten.native_batch_norm")
    vendors = replace(ours, op="aten.cudnn_batch_norm.default")
    assert price(vendors).cost == price(ours).cost


def test_group_norm_rows_are_groups() -> None:
    name, back = "aten.native_group_norm", "aten.native_group_norm_backward"
    layer, elements, rows = nn.GroupNorm(2, C), B * C * H * H, B * 2
    assert flops(lambda: layer(image()), name) == 5 * elements + 2 * rows + 2 * elements
    to_weight, to_bias = C * (2 * n - 1), C * (n - 1)
    assert flops(lambda: layer(image()).sum().backward(), back) == 2 * elements + 8 * elements + to_weight + to_bias


def test_weight_norm_divides_once_per_row() -> None:
    layer = torch.nn.utils.parametrizations.weight_norm(nn.Linear(D, T))
    rows = T * D
    name = "aten._weight_norm_interface"
    assert flops(lambda: layer(torch.randn(2, D)), name) == 2 * rows + T + rows  # norms; g / |v|; products
    run = lambda: layer(torch.randn(2, D)).sum().backward()  # noqa: E731
    # dot 2 S - 1, three scalars, then product, subtraction, product
    assert flops(run, name + "_backward") == T * (2 * D - 1 + 3 + 3 * D)
