"""What optimizers keep, by name: exact, from the real optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attnprof.core.memory import KINDS
from memory.readings import Reading, read

E = 4
D, F = 12, 20
WEIGHTS, BIASES = D * F + F * D, F + D  # of the net below: two matrices, two vectors
P = WEIGHTS + BIASES
COUNTERS = 4 * E  # Adam counts steps in one float32 per parameter


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(D, F), nn.Linear(F, D))


def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor | None = None) -> None:
    model(torch.randn(3, D) if x is None else x).sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def trained(make: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer], steps: int = 2) -> Reading:
    model = net()

    def run() -> torch.optim.Optimizer:
        optimizer = make(model.parameters())
        for _ in range(steps):
            step(model, optimizer)
        return optimizer

    return read(run, model)


IMPLEMENTATIONS = [{"foreach": False}, {"foreach": True}, {"fused": True}]


@pytest.mark.parametrize("how", IMPLEMENTATIONS, ids=["loop", "foreach", "fused"])
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_adam(kind: Any, how: dict[str, bool]) -> None:
    reading = trained(lambda p: kind(p, **how))
    assert reading.memory.optimizer_bytes == {"step": COUNTERS, "exp_avg": E * P, "exp_avg_sq": E * P}
    assert sum(reading.of_kind("optimizer")) == COUNTERS + 2 * E * P
    assert reading.alive_at_the_end("optimizer") == COUNTERS + 2 * E * P


EXPECTED: list[tuple[str, Any, dict[str, int]]] = [
    ("amsgrad", lambda p: torch.optim.Adam(p, amsgrad=True),
     {"step": COUNTERS, "exp_avg": E * P, "exp_avg_sq": E * P, "max_exp_avg_sq": E * P}),
    ("sgd", lambda p: torch.optim.SGD(p, lr=0.1), {}),
    ("momentum", lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), {"momentum_buffer": E * P}),
    ("rmsprop", lambda p: torch.optim.RMSprop(p), {"step": COUNTERS, "square_avg": E * P}),
    ("adagrad", lambda p: torch.optim.Adagrad(p), {"step": COUNTERS, "sum": E * P}),
    # Of a matrix the mean square of every row and of every column; of a vector every entry.
    ("adafactor", lambda p: torch.optim.Adafactor(p),
     {"step": COUNTERS, "row_var": E * (F + D), "col_var": E * (D + F), "variance": E * BIASES}),
    ("lbfgs", lambda p: torch.optim.LBFGS(p, max_iter=1),
     {"d": E * P, "prev_flat_grad": E * P}),
]  # fmt: skip


@pytest.mark.parametrize(("make", "expected"), [row[1:] for row in EXPECTED], ids=[row[0] for row in EXPECTED])
def test_by_name(make: Any, expected: dict[str, int]) -> None:
    model = net()

    def run() -> torch.optim.Optimizer:
        optimizer = make(model.parameters())
        for _ in range(2):
            optimizer.zero_grad()
            model(torch.ones(3, D)).sum().backward()
            optimizer.step(lambda: model(torch.ones(3, D)).sum())
        return optimizer

    found = read(run, model).memory.optimizer_bytes
    assert {name: found.get(name, 0) for name in expected} == expected
    if not expected:
        assert found == {}


def test_muon_keeps_one_matrix_for_each() -> None:
    """And takes nothing but matrices: the biases are AdamW's."""
    model = net()

    def run() -> Any:
        matrices = torch.optim.Muon([p for p in model.parameters() if p.ndim == 2])
        rest = torch.optim.AdamW([p for p in model.parameters() if p.ndim == 1])
        for _ in range(2):
            model(torch.randn(3, D)).sum().backward()
            for optimizer in (matrices, rest):
                optimizer.step()
        return matrices, rest

    assert read(run, model).memory.optimizer_bytes == {
        "momentum_buffer": E * WEIGHTS,
        "step": 2 * E,
        "exp_avg": E * BIASES,
        "exp_avg_sq": E * BIASES,
    }


@pytest.mark.parametrize("steps_before", [0, 1])
@pytest.mark.parametrize("steps_inside", [1, 2])
def test_an_optimizer_made_before(steps_before: int, steps_inside: int) -> None:
    """State that was there from the beginning is given; what the first step makes is made.

    (Adam's counters excepted: ``torch.tensor`` makes them, which is no op.)
    """
    model = net()
    optimizer = torch.optim.AdamW(model.parameters())
    for _ in range(steps_before):
        step(model, optimizer)

    def run() -> None:
        for _ in range(steps_inside):
            step(model, optimizer)

    reading = read(run, model)
    assert reading.memory.optimizer_bytes == {"step": COUNTERS, "exp_avg": E * P, "exp_avg_sq": E * P}
    memory = reading.memory
    blocks = zip(memory.block_kinds, memory.block_bytes, memory.block_made, strict=True)
    made = {made for kind, size, made in blocks if KINDS[kind] == "optimizer" and size > E}
    assert made == {steps_before == 0}
    given_at = {
        at for entry, at in zip(memory.log, memory.log_at, strict=True)
        if entry >= 0 and KINDS[memory.block_kinds[entry]] == "optimizer" and not memory.block_made[entry]
    }  # fmt: skip
    assert (given_at == {0}) == (steps_before == 1)
    assert reading.alive_at_the_end("optimizer") == COUNTERS + 2 * E * P


def test_an_optimizer_that_goes_away_takes_its_state_with_it() -> None:
    model = net()

    def run() -> None:
        for _ in range(2):
            step(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))

    reading = read(run, model)
    assert reading.memory.optimizer_bytes == {"momentum_buffer": E * P}
    assert reading.alive_at_the_end("optimizer") == 0


def test_two_optimizers_with_masters_of_their_own() -> None:
    model = net().bfloat16()
    masters = [p.detach().float().requires_grad_() for p in model.parameters()]
    optimizers = [torch.optim.SGD([master], lr=0.1) for master in masters]

    def run() -> None:
        model(torch.randn(3, D).bfloat16()).sum().backward()
        for p, master in zip(model.parameters(), masters, strict=True):
            master.grad = p.grad.float()
        for optimizer in optimizers:
            optimizer.step()

    memory = read(run, model).memory
    assert memory.optimizer_bytes == {"parameters": 4 * P}
    assert memory.state_bytes["gradient"] == (2 + 4) * P


def test_an_optimizer_over_the_flat_storage_of_the_parameters_has_no_masters() -> None:
    """Its one parameter is where the model's are."""
    model = nn.Linear(D, D, bias=False)
    flat = model.weight.detach().view(-1).requires_grad_()
    optimizer = torch.optim.SGD([flat], lr=0.1, momentum=0.9)

    def run() -> None:
        model(torch.randn(3, D)).sum().backward()
        flat.grad = model.weight.grad.view(-1)
        optimizer.step()

    memory = read(run, model).memory
    assert memory.optimizer_bytes == {"momentum_buffer": E * D * D}
    assert memory.state_bytes["gradient"] == E * D * D


def test_the_largest_state_counts() -> None:
    """Not the last one: a run may go on with a plainer optimizer."""
    model = net()

    def run() -> None:
        step(model, torch.optim.Adam(model.parameters()))
        step(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))

    assert read(run, model).memory.optimizer_bytes == {"step": COUNTERS, "exp_avg": E * P, "exp_avg_sq": E * P}


def test_frozen_parameters_have_no_state() -> None:
    model = net()
    model[0].requires_grad_(False)
    reading = read(lambda: (optimizer := torch.optim.Adam(model.parameters()), step(model, optimizer)), model)
    assert reading.memory.optimizer_bytes["exp_avg"] == E * (F * D + D)


def test_states_under_a_model_that_is_not_named() -> None:
    model = net()
    optimizer = torch.optim.AdamW(model.parameters())
    reading = read(lambda: step(model, optimizer))
    assert reading.memory.optimizer_bytes == {"step": COUNTERS, "exp_avg": E * P, "exp_avg_sq": E * P}
