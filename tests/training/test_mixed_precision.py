"""Mixed precision: which FLOPs run in which dtype, and that casts are traffic, not arithmetic.

In fp32 a Linear costs what it costs in bf16; only the split by dtype differs, and the bytes of the casts.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import attnprof
from attnprof.core.cost import Cost
from attnprof.core.signature import OpSignature
from training.counts import by_dtype, matmul, operators, phases, product

ROWS, D, HIDDEN, OUT = 5, 4, 6, 3
BF16, F32 = 2, 4  # bytes


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(D, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, OUT))


FIRST, SECOND = product(ROWS, D, HIDDEN), product(ROWS, HIDDEN, OUT)
PARAMETERS = D * HIDDEN + HIDDEN + HIDDEN * OUT + OUT


def batch() -> Tensor:
    return torch.randn(ROWS, D)


def casts(report: attnprof.Report, phase: str) -> list[tuple[str, OpSignature]]:
    """(module, call) of every cast of a phase."""
    return [
        (report.trace.modules[scope.module].fqn, op)
        for op, scope in report.trace.events()
        if op.op == "aten._to_copy.default" and scope.phase == phase
    ]


def autocast_step(model: nn.Module, x: Tensor) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(x).float().square().mean()
    loss.backward()


def test_products_run_in_bf16_and_the_loss_in_fp32() -> None:
    model = net()
    with attnprof.profile(model) as prof:
        autocast_step(model, batch())
    report = prof.report()
    assert matmul(report) == {
        "0": phases(forward=FIRST, backward=FIRST),
        "2": phases(forward=SECOND, backward=2 * SECOND),
    }
    assert by_dtype(report, "forward") == {"bfloat16": FIRST + SECOND}
    assert by_dtype(report, "backward") == {"bfloat16": FIRST + 2 * SECOND}
    # Forward: biases and relu; the squares and their mean. Backward: bias sums, relu; of the mean and the square
    # g / n, then 2 x^1 g: a power, a product with 2, a product.
    n = ROWS * OUT
    biases, relu = ROWS * (HIDDEN + OUT), ROWS * HIDDEN
    assert by_dtype(report, "forward", "vector") == {"bfloat16": biases + relu, "float32": 2 * n}
    assert by_dtype(report, "backward", "vector") == {"bfloat16": (ROWS - 1) * (HIDDEN + OUT) + relu, "float32": 4 * n}


def test_casts_are_bytes() -> None:
    """Forward: both Linears' weights and biases, the first one's input; backward: the gradients of the parameters.

    The loss's float() and its gradient are in no module.
    """
    model = net()
    with attnprof.profile(model) as prof:
        autocast_step(model, batch())
    report = prof.report()
    cast = {phase: report.by_operator(phase)["aten._to_copy.default"] for phase in ("forward", "backward")}
    inside, outside = PARAMETERS + ROWS * D, ROWS * OUT
    assert cast["forward"] == Cost(read_bytes=inside * F32 + outside * BF16, write_bytes=inside * BF16 + outside * F32)
    assert cast["backward"] == Cost(
        read_bytes=PARAMETERS * BF16 + outside * F32, write_bytes=PARAMETERS * F32 + outside * BF16
    )
    assert operators(report, "aten._to_copy", "forward") == {"0": 3, "2": 2, "(outside)": 1}
    assert operators(report, "aten._to_copy", "backward") == {"0": 2, "2": 2, "(outside)": 1}


def test_the_same_in_fp32_costs_as_many_flops() -> None:
    model, x = net(), batch()
    with attnprof.profile(model) as mixed:
        autocast_step(model, x)
    with attnprof.profile(model) as plain:
        model(x).square().mean().backward()
    a, b = mixed.report(), plain.report()
    for phase in ("forward", "backward"):
        assert a.phases[phase].matmul_flops == b.phases[phase].matmul_flops
    assert a.phases["forward"].vector_flops == b.phases["forward"].vector_flops
    # The second step of ``plain`` found gradients to add to; the first had none.
    assert b.phases["backward"].vector_flops - a.phases["backward"].vector_flops == PARAMETERS


class Twice(nn.Module):
    """One Linear, used two times in a forward."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(D, D)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.layer(x))


def test_a_weight_is_cast_once_in_an_autocast_block() -> None:
    """Two calls share the cast; their two gradients are added in bf16, before the one cast back."""
    model, weight = Twice(), D * D + D
    with attnprof.profile(model) as prof:
        autocast_step(model, batch())
    report = prof.report()
    assert [op.inputs[0].shape for module, op in casts(report, "forward") if module == "layer"] == [
        (D,),
        (D, D),
        (ROWS, D),
    ]
    one = product(ROWS, D, D)
    assert matmul(report) == {"layer": phases(forward=2 * one, backward=3 * one)}
    assert operators(report, "aten.add", "backward") == {"layer": 2}
    split = report.by_module("backward")["layer"].split
    assert [part for part in split if part[0] == "vector"] == [("vector", "bfloat16", 2 * (ROWS - 1) * D + weight)]


@pytest.mark.parametrize(("blocks", "times"), [(1, 1), (3, 3)], ids=["one block for all", "a block for each"])
def test_micro_batches_in_one_block_share_the_casts(blocks: int, times: int) -> None:
    """Leaving a block forgets its casts."""
    model, micro_batches = net(), 3
    with attnprof.profile(model) as prof:
        for _ in range(blocks):
            with torch.autocast("cpu", torch.bfloat16):
                for _ in range(micro_batches // blocks):
                    model(batch()).sum().backward(retain_graph=True)
    weights = [op for module, op in casts(prof.report(), "forward") if op.inputs[0].shape == (HIDDEN, D)]
    assert len(weights) == times


def test_without_its_cache_every_call_casts() -> None:
    model = Twice()
    with attnprof.profile(model) as prof:
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            loss = model(batch()).sum()
        loss.backward()
    report = prof.report()
    for phase in ("forward", "backward"):
        assert len([op for _, op in casts(report, phase) if op.inputs[0].shape == (D, D)]) == 2


def test_a_frozen_weight_is_cast_in_each_use() -> None:
    """Only casts that a gradient flows through are kept for the next use."""
    model = Twice()
    model.layer.weight.requires_grad_(False)
    with attnprof.profile(model) as prof:
        autocast_step(model, batch())
    weights = [op for _, op in casts(prof.report(), "forward") if op.inputs[0].shape == (D, D)]
    assert len(weights) == 2
