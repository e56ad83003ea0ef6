"""Activations, forward and through the real autograd, against their definitions counted by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as fn

from support import cost_of

N = 2 * 3 * 4
F32 = 4  # bytes


def leaf() -> torch.Tensor:
    return torch.randn(2, 3, 4, requires_grad=True)


# (function, op, operations, backward op, operations)
CASES = [
    (fn.relu, "aten.relu", 1, "aten.threshold_backward", 1),
    (fn.relu6, "aten.hardtanh", 2, "aten.hardtanh_backward", 2),
    (fn.leaky_relu, "aten.leaky_relu", 2, "aten.leaky_relu_backward", 2),  # compare, slope
    (torch.sigmoid, "aten.sigmoid", 4, "aten.sigmoid_backward", 3),  # g (1 - y) y
    (torch.tanh, "aten.tanh", 1, "aten.tanh_backward", 3),  # g (1 - y y)
    (fn.silu, "aten.silu", 4, "aten.silu_backward", 4 + 5),  # sigmoid; g s (1 + x (1 - s))
    (fn.gelu, "aten.gelu", 5, "aten.gelu_backward", 4 + 4 + 3),  # cdf, pdf, g (cdf + x pdf)
    (fn.hardswish, "aten.hardswish", 5, "aten.hardswish_backward", 5),
    (fn.hardsigmoid, "aten.hardsigmoid", 4, "aten.hardsigmoid_backward", 3),
    (fn.mish, "aten.mish", 4, "aten.mish_backward", 4 + 3 + 6),
    (fn.softplus, "aten.softplus", 3, "aten.softplus_backward", 5),
    (fn.logsigmoid, "aten.log_sigmoid_forward", 6, "aten.log_sigmoid_backward", 6),
    (fn.hardshrink, "aten.hardshrink", 2, "aten.hardshrink_backward", 2),
    (fn.softshrink, "aten.softshrink", 4, "aten.softshrink_backward", 2),
]


@pytest.mark.parametrize(
    ("function", "name", "forward", "back", "backward"), CASES, ids=lambda v: getattr(v, "__name__", None)
)
def test_per_element(function: Any, name: str, forward: int, back: str, backward: int) -> None:
    assert cost_of(lambda: function(leaf()), name).vector_flops == forward * N
    assert cost_of(lambda: function(leaf()).sum().backward(), back).vector_flops == backward * N


def test_tanh_gelu_cubes_with_two_products() -> None:
    x = leaf()
    # x x x 2, c, + x, k, tanh, 1 +, x / 2, product
    assert cost_of(lambda: fn.gelu(x, approximate="tanh"), "aten.gelu").vector_flops == (2 + 7) * N
    run = lambda: fn.gelu(leaf(), approximate="tanh").sum().backward()  # noqa: E731
    assert cost_of(run, "aten.gelu_backward").vector_flops == (6 + 2 + 1 + 2 + 3 + 2 + 2) * N


def test_coefficients_that_are_one_are_left_out() -> None:
    x = leaf()
    assert cost_of(lambda: fn.softplus(x, beta=2), "aten.softplus").vector_flops == (3 + 2) * N
    assert cost_of(lambda: fn.elu(x), "aten.elu").vector_flops == 2 * N  # compare, expm1
    assert cost_of(lambda: fn.elu(x, alpha=0.5), "aten.elu").vector_flops == 3 * N
    assert cost_of(lambda: fn.selu(x), "aten.elu").vector_flops == (2 + 2) * N  # scale above, alpha scale below
    assert cost_of(lambda: fn.elu(leaf()).sum().backward(), "aten.elu_backward").vector_flops == 3 * N


def test_glu_halves_its_input() -> None:
    half = N // 2
    assert cost_of(lambda: fn.glu(leaf()), "aten.glu").vector_flops == 5 * half
    cost = cost_of(lambda: fn.glu(leaf()).sum().backward(), "aten.glu_backward")
    assert cost.vector_flops == 8 * half  # sigmoid 4, da 1, db 3
    assert cost.write_bytes == F32 * N


def test_prelu_has_two_gradients() -> None:
    weight = torch.rand(3, requires_grad=True)
    assert cost_of(lambda: fn.prelu(leaf(), weight), "aten._prelu_kernel").vector_flops == 2 * N
    run = lambda: fn.prelu(leaf(), weight).sum().backward()  # noqa: E731
    assert cost_of(run, "aten._prelu_kernel_backward").vector_flops == 3 * N


def test_rrelu_draws_its_noise_only_in_training() -> None:
    training = cost_of(lambda: fn.rrelu(leaf(), training=True), "aten.rrelu_with_noise")
    assert (training.vector_flops, training.read_bytes, training.write_bytes) == (2 * N, F32 * N, F32 * 2 * N)
    evaluation = cost_of(lambda: fn.rrelu(leaf(), training=False), "aten.rrelu_with_noise")
    assert (evaluation.read_bytes, evaluation.write_bytes) == (F32 * N, F32 * N)


def test_dropout_only_scales() -> None:
    x = leaf()
    # In eager mode on the CPU: a draw, a scale of the mask, a product.
    assert cost_of(lambda: fn.dropout(x, 0.1), "aten.bernoulli_").vector_flops == 0
    assert cost_of(lambda: fn.dropout(x, 0.1), "aten.mul").vector_flops == N
    kernel = cost_of(lambda: torch.native_dropout(x, 0.1, True), "aten.native_dropout")
    assert (kernel.vector_flops, kernel.read_bytes, kernel.write_bytes) == (N, F32 * N, F32 * N + N)
    assert cost_of(lambda: torch.native_dropout(x, 0.1, False), "aten.native_dropout").vector_flops == 0
