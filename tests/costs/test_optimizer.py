"""Optimizers through torch.optim: loop, foreach and fused do the same arithmetic, fused moves less."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attnprof.core.cost import Cost
from attnprof.costs.pricing import price
from support import cost_of, only_op, ops_of, traffic_of

F32 = 4  # bytes
SHAPES = ((3, 4), (5,))
N = 3 * 4 + 5
STEP = F32  # a step counter


def second_step(kind: Any, **options: Any) -> Cost:
    """What a step costs once the state exists: its vector work on floats, all of it priced."""
    parameters = [nn.Parameter(torch.rand(shape)) for shape in SHAPES]
    optimizer = kind(parameters, lr=0.1, **options)
    for _ in range(2):
        for parameter in parameters:
            parameter.grad = torch.rand_like(parameter)
        ops = ops_of(optimizer.step)
    assert {price(op).status for op in ops} <= {"priced", "free"}
    return Cost.sum(price(op).cost for op in ops)


WAYS = ({"foreach": False}, {"foreach": True}, {"fused": True})


def flops_each_way(kind: Any, **options: Any) -> set[int]:
    """FLOPs on parameters; the step counters of a loop and of foreach are a number each, added to once."""
    return {second_step(kind, **options, **way).vector_flops - len(SHAPES) * _counts(kind, options) for way in WAYS}


def _counts(kind: Any, options: dict[str, Any]) -> bool:
    return kind is not torch.optim.SGD


def test_adamw() -> None:
    # decay p (1 - lr w) 1; m + (1 - b1)(g - m) 3; b2 v 1, + (1 - b2) g g 3; sqrt, / c, + eps 3; p - a m / that 3
    assert flops_each_way(torch.optim.AdamW) == {14 * N}
    assert flops_each_way(torch.optim.AdamW, weight_decay=0.0) == {13 * N}
    assert flops_each_way(torch.optim.AdamW, amsgrad=True) == {15 * N}
    assert flops_each_way(torch.optim.AdamW, maximize=True) == {15 * N}


def test_adam_decays_through_the_gradient() -> None:
    assert flops_each_way(torch.optim.Adam) == {13 * N}
    assert flops_each_way(torch.optim.Adam, weight_decay=0.1) == {15 * N}


def test_sgd() -> None:
    assert flops_each_way(torch.optim.SGD) == {2 * N}
    assert flops_each_way(torch.optim.SGD, weight_decay=0.1) == {4 * N}
    assert flops_each_way(torch.optim.SGD, momentum=0.9) == {4 * N}
    assert flops_each_way(torch.optim.SGD, momentum=0.9, nesterov=True) == {6 * N}
    assert flops_each_way(torch.optim.SGD, momentum=0.9, dampening=0.1) == {5 * N}


def test_adagrad() -> None:
    assert flops_each_way(torch.optim.Adagrad) == {7 * N}


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.Adam])
def test_fused_adam_moves_each_tensor_once(kind: Any) -> None:
    parameters = [nn.Parameter(torch.rand(shape)) for shape in SHAPES]
    optimizer = kind(parameters, fused=True)
    for parameter in parameters:
        parameter.grad = torch.rand_like(parameter)
    name = f"aten._fused_{kind.__name__.lower()}_"
    # p, g, m, v read; p, m, v written; a step counter per tensor read
    assert traffic_of(optimizer.step, name) == (F32 * 4 * N + 2 * STEP, F32 * 3 * N)


def test_fused_amsgrad_keeps_a_third_state() -> None:
    parameter = nn.Parameter(torch.rand(N))
    parameter.grad = torch.rand(N)
    step = torch.optim.AdamW([parameter], fused=True, amsgrad=True).step
    assert traffic_of(step, "aten._fused_adamw_") == (F32 * 5 * N + STEP, F32 * 4 * N)


def test_first_step_of_fused_sgd_only_writes_its_momentum() -> None:
    parameter = nn.Parameter(torch.rand(N))
    parameter.grad = torch.rand(N)
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9, fused=True)
    first = cost_of(optimizer.step, "aten._fused_sgd_")
    assert (first.vector_flops, first.read_bytes, first.write_bytes) == (2 * N, F32 * 2 * N, F32 * 2 * N)
    later = cost_of(optimizer.step, "aten._fused_sgd_")
    assert (later.vector_flops, later.read_bytes, later.write_bytes) == (4 * N, F32 * 3 * N, F32 * 2 * N)


def test_a_loss_scale_also_unscales_the_gradient() -> None:
    p, g, m, v = (torch.rand(N) for _ in range(4))
    scale, found, step = torch.tensor(2.0), torch.tensor(0.0), torch.tensor(1.0)

    def run() -> None:
        torch._fused_adamw_(
            [p], [g], [m], [v], [], [step], lr=0.1, beta1=0.9, beta2=0.99, weight_decay=0.0, eps=1e-8,
            amsgrad=False, maximize=False, grad_scale=scale, found_inf=found,
        )  # fmt: skip

    cost = cost_of(run, "aten._fused_adamw_")
    assert cost.vector_flops == (13 + 1) * N
    # p, g, m, v, and three numbers; g is written as well
    assert (cost.read_bytes, cost.write_bytes) == (F32 * 4 * N + 3 * F32, F32 * 4 * N)


def test_unscaling_tests_and_multiplies() -> None:
    gradients = [torch.rand(3, 4), torch.rand(5)]
    run = lambda: torch._amp_foreach_non_finite_check_and_unscale_(  # noqa: E731
        gradients, torch.tensor(0.0), torch.tensor(0.5)
    )
    cost = cost_of(run, "aten._amp_foreach_non_finite_check_and_unscale_")
    assert cost.vector_flops == 2 * N
    assert (cost.read_bytes, cost.write_bytes) == (F32 * N + F32, F32 * N)


def lists() -> tuple[list[Tensor], list[Tensor]]:
    return [torch.rand(shape) for shape in SHAPES], [torch.rand(shape) for shape in SHAPES]


def test_foreach_is_the_sum_of_its_tensors() -> None:
    xs, ys = lists()
    flops = {
        "aten._foreach_add": (lambda: torch._foreach_add(xs, ys), N),
        "aten._foreach_add.List": (lambda: torch._foreach_add(xs, ys, alpha=3), 2 * N),
        "aten._foreach_add.Scalar": (lambda: torch._foreach_add(xs, 2.0), N),
        "aten._foreach_mul.ScalarList": (lambda: torch._foreach_mul(xs, [1.0, 3.0]), N),
        "aten._foreach_addcdiv.Scalar": (lambda: torch._foreach_addcdiv(xs, xs, ys), 2 * N),
        # the first tensor's scalar is 1: only the second's five elements are multiplied
        "aten._foreach_addcmul.ScalarList": (lambda: torch._foreach_addcmul(xs, xs, ys, [1.0, 3.0]), 2 * N + 5),
        "aten._foreach_lerp_": (lambda: torch._foreach_lerp_(xs, ys, 0.1), 3 * N),
        "aten._foreach_sqrt": (lambda: torch._foreach_sqrt(xs), N),
        "aten._foreach_sigmoid": (lambda: torch._foreach_sigmoid(xs), 4 * N),
        "aten._foreach_pow.ScalarAndTensor": (lambda: torch._foreach_pow(2.0, xs), N),
        "aten._foreach_maximum.Scalar": (lambda: torch._foreach_maximum(xs, 0.5), N),
        "aten._foreach_norm": (lambda: torch._foreach_norm(xs), 2 * N),  # squares, sums less one, a root each
        "aten._foreach_norm.Scalar": (lambda: torch._foreach_norm(xs, 1), 2 * N - 2),
        "aten._foreach_max": (lambda: torch._foreach_max(xs), N - 2),
        "aten._foreach_zero_": (lambda: torch._foreach_zero_(xs), 0),
    }
    for name, (run, expected) in flops.items():
        assert cost_of(run, name).vector_flops == expected, name


def test_foreach_moves_each_tensor_once() -> None:
    xs, ys = lists()
    assert traffic_of(lambda: torch._foreach_add_(xs, ys), "aten._foreach_add_") == (2 * N * F32, N * F32)
    assert traffic_of(lambda: torch._foreach_mul_(xs, xs), "aten._foreach_mul_") == (N * F32, N * F32)
    assert traffic_of(lambda: torch._foreach_copy_(xs, ys), "aten._foreach_copy_") == (N * F32, N * F32)
    assert traffic_of(lambda: torch._foreach_zero_(xs), "aten._foreach_zero_") == (0, N * F32)


def test_clipping_gradients() -> None:
    parameters = [nn.Parameter(torch.rand(shape)) for shape in SHAPES]
    for parameter in parameters:
        parameter.grad = torch.rand_like(parameter)
    clip = lambda: nn.utils.clip_grad_norm_(parameters, 1.0)  # noqa: E731
    assert price(only_op(clip, "aten._foreach_norm")).cost.vector_flops == 2 * N
    assert price(only_op(clip, "aten._foreach_mul_")).cost.vector_flops == N
