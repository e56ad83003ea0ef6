"""Checkpoints together with other plans: mixed precision, adapters, dropout, shared weights, micro-batches."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed._composable import checkpoint as make_checkpointed
from torch.utils.checkpoint import checkpoint

import attnprof
from training.counts import Counts, by_dtype, matmul, matmul_steps, operators, phases, product, steps

ROWS, D, RANK = 5, 8, 2
UNIT, LOW = product(ROWS, D, D), product(ROWS, D, RANK)
REENTRANT, EARLY_STOP = partial(checkpoint, use_reentrant=True), partial(checkpoint, use_reentrant=False)
EITHER = pytest.mark.parametrize("through", [REENTRANT, EARLY_STOP], ids=["reentrant", "early stop"])


def data(requires_grad: bool = True) -> Tensor:
    return torch.randn(ROWS, D, requires_grad=requires_grad)


class Behind(nn.Module):
    """Layers behind one checkpoint."""

    def __init__(self, through: Callable[..., Any], *layers: nn.Module) -> None:
        super().__init__()
        self.layers, self.through = nn.Sequential(*layers), through

    def forward(self, x: Tensor) -> Tensor:
        return self.through(self.layers, x)


def two_linears(last: int) -> Counts:
    """Trained, with an input that needs a gradient; the last one runs again ``last`` times."""
    return {
        "layers.0": phases(forward=UNIT, backward=2 * UNIT, recompute=UNIT),
        "layers.1": phases(forward=UNIT, backward=2 * UNIT, recompute=last * UNIT),
    }


@EITHER
def test_under_autocast(through: Callable[..., Any]) -> None:
    """What runs again runs in bf16 again, and casts its weights again: the block's casts are not kept that long.

    Stopped early, the second Linear's product is spared, not its casts.
    """
    net = Behind(through, nn.Linear(D, D), nn.Linear(D, D))
    with attnprof.profile(net) as prof:
        with torch.autocast("cpu", torch.bfloat16):
            loss = net(data()).sum()
        loss.backward()
    report = prof.report()
    last = 1 if through is REENTRANT else 0
    assert matmul(report) == two_linears(last)
    assert by_dtype(report, "recompute") == {"bfloat16": (1 + last) * UNIT}
    casts = {"layers.0": 3, "layers.1": 2}  # weight and bias, and the input
    for phase in ("forward", "backward", "recompute"):
        assert operators(report, "aten._to_copy", phase) == casts


@EITHER
@pytest.mark.parametrize("p", [0.0, 0.5])
def test_dropout_at_the_end(through: Callable[..., Any], p: float) -> None:
    """A dropout that drops saves its mask: the product before it runs again, early stop or not."""
    net = Behind(through, nn.Linear(D, D), nn.Linear(D, D), nn.Dropout(p))
    report = attnprof.run(net, (data(),), backward=True)
    assert matmul(report) == two_linears(last=1 if p or through is REENTRANT else 0)


class Adapted(nn.Module):
    """A frozen Linear with a trained thin one beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(D, D).requires_grad_(False)
        self.down, self.up = nn.Linear(D, RANK, bias=False), nn.Linear(RANK, D, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))


@EITHER
def test_adapters(through: Callable[..., Any]) -> None:
    """Frozen weights run again too, to rebuild what the next layer needs; early, up to the last thing saved.

    In the second layer the base saves only its weight and comes first; up's input is the last thing saved.
    """
    net = Behind(through, Adapted(), Adapted())
    report = attnprof.run(net, (data(),), backward=True)
    last = 1 if through is REENTRANT else 0
    expected: Counts = {}
    for i in (0, 1):
        expected[f"layers.{i}.base"] = phases(forward=UNIT, backward=UNIT, recompute=UNIT)
        expected[f"layers.{i}.down"] = phases(forward=LOW, backward=2 * LOW, recompute=LOW)
        expected[f"layers.{i}.up"] = phases(forward=LOW, backward=2 * LOW, recompute=LOW if i == 0 else last * LOW)
    assert matmul(report) == expected


def test_tied_layers_in_checkpoints_of_their_own() -> None:
    """One Linear behind three checkpoints in a row: what runs again is the module's as often as it ran."""
    layer = nn.Linear(D, D)

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(3):
                x = REENTRANT(self.layer, x)
            return x

    report = attnprof.run(Tied(), (data(),), backward=True)
    assert matmul(report) == {"layer": phases(forward=3 * UNIT, backward=6 * UNIT, recompute=3 * UNIT)}
    # Three backwards of their own: the second and third add to gradients that are there.
    assert operators(report, "aten.add_", "backward") == {"layer": 2 * 2}


def test_checkpoints_asked_for_by_hooks() -> None:
    """``torch.distributed``'s composable checkpoint marks a module instead of wrapping it."""
    net = nn.Sequential(nn.Sequential(nn.Linear(D, D), nn.Linear(D, D)), nn.Linear(D, D))
    make_checkpointed(net[0])
    with attnprof.profile(net) as prof:
        net(data()).sum().backward()
    assert matmul(prof.report()) == {
        "0.0": phases(forward=UNIT, backward=2 * UNIT, recompute=UNIT),
        "0.1": phases(forward=UNIT, backward=2 * UNIT),
        "1": phases(forward=UNIT, backward=2 * UNIT),
    }


@EITHER
def test_every_micro_batch_runs_again(through: Callable[..., Any]) -> None:
    net = Behind(through, nn.Linear(D, D), nn.Linear(D, D))
    last = 1 if through is REENTRANT else 0
    with attnprof.profile(net, recount_every=1) as prof:
        for _ in range(3):
            net(data()).sum().backward()
            prof.step()
    report = prof.report()
    assert matmul_steps(report) == [two_linears(last)] * 3
    sums, parameters = (ROWS - 1) * D, D * D + D
    for i, step in enumerate(steps(report)):
        assert step["layers.0", "backward"].vector_flops == sums + (parameters if i else 0)


@EITHER
def test_a_loss_scale_passes_through(through: Callable[..., Any]) -> None:
    """The recomputation is that of the model; scale and unscaling are outside."""
    net = Behind(through, nn.Linear(D, D), nn.Linear(D, D))
    optimizer, scaler = torch.optim.SGD(net.parameters(), lr=0.1), torch.amp.GradScaler("cpu")
    with attnprof.profile(net) as prof:
        scaler.scale(net(data()).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    report = prof.report()
    assert matmul(report) == two_linears(1 if through is REENTRANT else 0)
    assert report.phases["optimizer"].vector_flops == 2 * 2 * (D * D + D)
    assert operators(report, "aten._amp_foreach_non_finite_check_and_unscale_", "other") == {"(outside)": 1}
