"""Optimizer steps of torch.optim: the loop, the foreach and the fused form against the update written out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from attnprof.core.cost import Cost
from attnprof.costs.pricing import price
from support import only_op, ops_of

aten = torch.ops.aten
F32 = 4  # bytes
SHAPES = [(3, 4), (5,)]
P = len(SHAPES)
N = 3 * 4 + 5

LOOP, FOREACH, FUSED = {"foreach": False}, {"foreach": True}, {"fused": True}


def steady_step(kind: Any, options: dict[str, Any], shapes: list[tuple[int, ...]], warm: int = 1) -> Cost:
    """The cost of the step after ``warm`` others, every op of it priced or free."""
    parameters = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    optimizer = kind(parameters, **options)
    for p in parameters:
        p.grad = torch.randn_like(p)
    for _ in range(warm):
        optimizer.step()
    priced = [price(op) for op in ops_of(optimizer.step)]
    assert [p.signature.op for p in priced if p.status == "unpriced"] == []
    return Cost.sum(p.cost for p in priced)


ADAM = 3 + 4 + 6  # m += c (g - m); v = b v + c g g; p -= a m / (sqrt(v) / c + eps)

#: FLOPs per element of a steady step; Adam and Adagrad also add 1 to each parameter's step.
UPDATES: list[tuple[Any, dict[str, Any], int, int]] = [
    (torch.optim.AdamW, {}, ADAM + 1, P),  # p (1 - lr decay)
    (torch.optim.AdamW, {"weight_decay": 0.0}, ADAM, P),
    (torch.optim.AdamW, {"amsgrad": True, "maximize": True}, ADAM + 1 + 1 + 1, P),
    (torch.optim.Adam, {}, ADAM, P),
    (torch.optim.Adam, {"weight_decay": 0.1, "amsgrad": True}, ADAM + 2 + 1, P),  # g + decay p
    (torch.optim.SGD, {"lr": 0.1}, 2, 0),
    (torch.optim.SGD, {"lr": 0.1, "weight_decay": 0.1, "maximize": True}, 2 + 2 + 1, 0),
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}, 2 + 2, 0),
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.5}, 2 + 3, 0),
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}, 2 + 2 + 2, 0),
    (torch.optim.Adagrad, {}, 2 + 5, P),  # s += g g; p -= a g / (sqrt(s) + eps)
    (torch.optim.Adagrad, {"weight_decay": 0.1, "maximize": True}, 2 + 5 + 2 + 1, P),
]


@pytest.mark.parametrize("form", [LOOP, FOREACH, FUSED], ids=["loop", "foreach", "fused"])
@pytest.mark.parametrize(("kind", "options", "per_element", "steps"), UPDATES)
def test_loop_foreach_and_fused_do_the_same_arithmetic(
    kind: Any, options: dict[str, Any], per_element: int, steps: int, form: dict[str, bool]
) -> None:
    found = steady_step(kind, options | form, SHAPES)
    assert (found.matmul_flops, found.vector_flops) == (0, N * per_element + steps)


@pytest.mark.parametrize("form", [LOOP, FOREACH], ids=["loop", "foreach"])
@pytest.mark.parametrize(
    ("kind", "options", "per_element"),
    [
        # v = b v + c g g 4; sqrt, + eps; p -= a g / . 3
        (torch.optim.RMSprop, {}, 4 + 2 + 3),
        # decay 2; v 4; mean by lerp 3; v - mean mean: 3; sqrt, + eps; b = m b + g / . : 3; p -= a b: 2
        (torch.optim.RMSprop, {"momentum": 0.9, "centered": True, "weight_decay": 0.1}, 2 + 4 + 3 + 3 + 2 + 3 + 2),
        # decay 2; v 4; std 2; d = sqrt(u + eps) / std g: 4; u = b u + c d d: 4; p -= a d: 2
        (torch.optim.Adadelta, {"weight_decay": 0.1}, 2 + 4 + 2 + 4 + 4 + 2),
        # decay 2; m by lerp 3; u = max(b u, |g| + eps): 4; p -= a m / u: 3
        (torch.optim.Adamax, {"weight_decay": 0.1}, 2 + 3 + 4 + 3),
        # sign(g g') 2, three comparisons to pick a factor, step times it, clamped 2; g zeroed where it turned 1;
        # p -= sign(g) step: 1 + 3
        (torch.optim.Rprop, {}, 2 + 3 + 3 + 1 + 4),
    ],
)
def test_other_optimizers(kind: Any, options: dict[str, Any], per_element: int, form: dict[str, bool]) -> None:
    assert steady_step(kind, options | form, SHAPES).vector_flops == N * per_element + P


@pytest.mark.parametrize("form", [LOOP, FOREACH], ids=["loop", "foreach"])
@pytest.mark.parametrize("kind", [torch.optim.ASGD, torch.optim.NAdam, torch.optim.RAdam, torch.optim.Adafactor])
def test_every_op_of_the_others_has_a_verdict(kind: Any, form: dict[str, bool]) -> None:
    assert steady_step(kind, {"weight_decay": 0.1} | form, SHAPES, warm=6).vector_flops >= 2 * N  # at least p -= a g


def test_adafactor_rebuilds_the_variance_from_rows_and_columns() -> None:
    found = steady_step(torch.optim.Adafactor, {}, [(3, 4), (5,)])
    assert found.matmul_flops == 2 * 3 * 1 * 4  # [3, 1] x [1, 4]; vectors keep theirs whole


def test_muon_orthogonalizes_by_five_iterations_of_three_products() -> None:
    def iterations(m: int, n: int) -> int:
        return 5 * (2 * m * n * m + 2 * m * m * m + 2 * m * m * n)  # X X^T; its square; times X

    found = steady_step(torch.optim.Muon, {}, [(3, 4), (7, 5)])
    assert found.matmul_flops == iterations(3, 4) + iterations(5, 7)  # the shorter side first


def test_lbfgs_and_sparse_adam_have_no_unpriced_op() -> None:
    x = nn.Parameter(torch.randn(4))

    def closure() -> Any:
        with torch.enable_grad():
            optimizer.zero_grad()
            loss = (x * x).sum()
            loss.backward()
        return loss

    optimizer = torch.optim.LBFGS([x], max_iter=3, line_search_fn="strong_wolfe")
    table = nn.Embedding(6, 3, sparse=True)
    sparse = torch.optim.SparseAdam(table.parameters())
    table(torch.tensor([1, 4])).sum().backward()
    runs: list[Callable[[], Any]] = [lambda: optimizer.step(closure), sparse.step]
    for run in runs:
        priced = [price(op) for op in ops_of(run)]
        assert [p.signature.op for p in priced if p.status == "unpriced"] == []


def fused(name: str, lists: int, steps: bool, **options: Any) -> Cost:
    """One call of a fused kernel on ``lists`` lists of the shapes."""
    state = [[torch.rand(shape) for shape in SHAPES] for _ in range(lists)]
    if "momentum" in options and not options["momentum"]:
        state[2] = []
    if options.get("amsgrad") is False:
        state[4] = []
    counters = [[torch.tensor(3.0) for _ in SHAPES]] if steps else []
    func = getattr(getattr(aten, name), "tensor_lr" if isinstance(options["lr"], torch.Tensor) else "default")
    return price(only_op(lambda: func(*state, *counters, **options), str(func))).cost


ADAM_OPTIONS = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "weight_decay": 0.0, "eps": 1e-8, "amsgrad": False}
ADAM_OPTIONS |= {"maximize": False}
SGD_OPTIONS = {"weight_decay": 0.0, "momentum": 0.9, "lr": 0.1, "dampening": 0.0, "nesterov": False}
SGD_OPTIONS |= {"maximize": False, "is_first_step": False}


def test_fused_adam_reads_four_and_writes_three() -> None:
    found = fused("_fused_adam_", 5, True, **ADAM_OPTIONS)
    assert found.read_bytes == F32 * (4 * N + P)  # p, g, m, v, and each step
    assert found.write_bytes == F32 * 3 * N
    found = fused("_fused_adam_", 5, True, **ADAM_OPTIONS | {"amsgrad": True})
    assert (found.read_bytes, found.write_bytes) == (F32 * (5 * N + P), F32 * 4 * N)


def test_a_learning_rate_on_the_device_is_read() -> None:
    plain = fused("_fused_adamw_", 5, True, **ADAM_OPTIONS)
    tensor = fused("_fused_adamw_", 5, True, **ADAM_OPTIONS | {"lr": torch.tensor(0.1)})
    assert tensor.vector_flops == plain.vector_flops == N * ADAM
    assert tensor.read_bytes - plain.read_bytes == F32


@pytest.mark.parametrize(
    ("name", "lists", "options"),
    [("_fused_adam_", 5, ADAM_OPTIONS), ("_fused_adamw_", 5, ADAM_OPTIONS), ("_fused_sgd_", 3, SGD_OPTIONS)],
)
def test_gradients_unscaled_on_the_way_are_written_back(name: str, lists: int, options: dict[str, Any]) -> None:
    amp = {"grad_scale": torch.tensor(2.0), "found_inf": torch.tensor(0.0)}
    plain = fused(name, lists, "adam" in name, **options)
    scaled = fused(name, lists, "adam" in name, **options | amp)
    assert scaled.vector_flops - plain.vector_flops == N
    assert scaled.read_bytes - plain.read_bytes == F32 * 2
    assert scaled.write_bytes - plain.write_bytes == F32 * N


def test_fused_sgd_bytes_and_first_step() -> None:
    steady = fused("_fused_sgd_", 3, False, **SGD_OPTIONS)
    assert (steady.vector_flops, steady.read_bytes, steady.write_bytes) == (4 * N, F32 * 3 * N, F32 * 2 * N)
    first = fused("_fused_sgd_", 3, False, **SGD_OPTIONS | {"is_first_step": True})  # the momentum becomes g
    assert (first.vector_flops, first.read_bytes, first.write_bytes) == (2 * N, F32 * 2 * N, F32 * 2 * N)
    bare = fused("_fused_sgd_", 3, False, **SGD_OPTIONS | {"momentum": 0.0})
    assert (bare.vector_flops, bare.read_bytes, bare.write_bytes) == (2 * N, F32 * 2 * N, F32 * N)


def test_fused_adagrad_bytes() -> None:
    options = {"lr": 0.1, "lr_decay": 0.0, "weight_decay": 0.0, "eps": 1e-10, "maximize": False}
    found = fused("_fused_adagrad_", 3, True, **options)
    assert (found.read_bytes, found.write_bytes) == (F32 * (3 * N + P), F32 * 2 * N)


def test_the_gradient_scaler() -> None:
    grads, scale, found_inf = [torch.rand(3, 4), torch.rand(5)], torch.tensor(0.5), torch.tensor(0.0)
    unscale = aten._amp_foreach_non_finite_check_and_unscale_.default
    cost = price(only_op(lambda: unscale(grads, found_inf, scale), str(unscale))).cost
    assert (cost.vector_flops, cost.read_bytes, cost.write_bytes) == (2 * N, F32 * (N + 1), F32 * N)

    tracker = torch.tensor(0, dtype=torch.int32)
    update = aten._amp_update_scale_.default
    cost = price(only_op(lambda: update(scale, tracker, found_inf, 2.0, 0.5, 100), str(update))).cost
    # overflow: a test, scale backed off; else: tracker + 1, compared, scale grown, tested for being finite
    assert (cost.vector_flops, cost.read_bytes, cost.write_bytes) == (2 + 4, 3 * F32, 2 * F32)
