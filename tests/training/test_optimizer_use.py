"""How optimizers are used: groups, closures, rates that are tensors, updates by hand. Symbols as in test_optimizers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import attnprof
from training.counts import matmul, operators, phase_vector, phases, product, steps
from training.loops import FOREACH, FUSED, HIDDEN, LOOP, MATRICES, OUT, ROWS, VECTORS, D, N, P, net, step_flops


@pytest.mark.parametrize("form", [LOOP, FOREACH, FUSED], ids=["loop", "foreach", "fused"])
def test_groups_with_options_of_their_own(form: dict[str, bool]) -> None:
    """Matrices decay, 14; biases do not, 13."""

    def build(model: nn.Module) -> torch.optim.Optimizer:
        decays = [p for p in model.parameters() if p.ndim == 2]
        rest = [p for p in model.parameters() if p.ndim != 2]
        groups = [{"params": decays, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0, "lr": 0.01}]
        return torch.optim.AdamW(groups, **form)

    matrices, vectors = sum(m * n for m, n in MATRICES), sum(VECTORS)
    assert step_flops(build, 2)[1] == (0, 14 * matrices + 13 * vectors + P)


def test_a_group_added_later() -> None:
    """The step that creates the state of some parameters is not the first one; it is told by what is there before."""
    torch.manual_seed(0)
    model = net()
    optimizer = torch.optim.AdamW(model[2].parameters(), foreach=False)
    with attnprof.profile(model, recount_every=1) as prof:
        for i in range(3):
            if i == 1:
                optimizer.add_param_group({"params": list(model[0].parameters())})
            model(torch.randn(ROWS, D)).sum().backward()
            optimizer.step()
            model.zero_grad()
            prof.step()
    last, everything = 14 * (HIDDEN * OUT + OUT) + 2, 14 * N + P
    found = steps(prof.report())
    assert [phase_vector(s, "optimizer") + phase_vector(s, "optimizer_init") for s in found] == [
        last,
        everything,
        everything,
    ]
    assert phase_vector(found[2], "optimizer_init") == 0


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("form", [LOOP, FOREACH, FUSED], ids=["loop", "foreach", "fused"])
def test_maximizing_negates_the_gradient(form: dict[str, bool], maximize: bool) -> None:
    def build(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.1, maximize=maximize, **form)

    assert step_flops(build, 1) == [(0, (2 + maximize) * N)]


def test_a_rate_that_is_a_tensor() -> None:
    """In a loop the numbers made of it are worked out per tensor: 1 - lr w 2, lr / c 1, its negative 1."""

    def build(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(model.parameters(), lr=torch.tensor(0.1), foreach=False)

    assert step_flops(build, 2)[1] == (0, 14 * N + (1 + 2 + 1 + 1) * P)


def test_a_step_with_a_closure() -> None:
    """Forward and backward run inside the step and keep their phases; the update is the optimizer's."""
    model, x = net(), torch.randn(ROWS, D)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = model(x).sum()
        loss.backward()
        return loss

    with attnprof.profile(model) as prof:
        optimizer.step(closure)
    report = prof.report()
    first, second = product(ROWS, D, HIDDEN), product(ROWS, HIDDEN, OUT)
    assert matmul(report) == {
        "0": phases(forward=first, backward=first),
        "2": phases(forward=second, backward=2 * second),
    }
    assert report.phases["optimizer"].vector_flops == 2 * N
    assert operators(report, "aten.sum", "forward") == {"(outside)": 1}


def test_an_update_by_hand_is_no_optimizer() -> None:
    """Nobody said that it is one: a g, then p - that."""
    model = net()
    with attnprof.profile(model) as prof:
        model(torch.randn(ROWS, D)).sum().backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= 0.1 * p.grad
    report = prof.report()
    assert report.phases["optimizer"].flops == 0
    assert report.phases["other"].vector_flops == 2 * N


def test_one_optimizer_after_another_has_a_first_step_each() -> None:
    torch.manual_seed(0)
    model = net()
    with attnprof.profile(model, recount_every=1) as prof:
        for _ in range(2):
            optimizer = torch.optim.AdamW(model.parameters(), fused=True)
            for _ in range(2):
                model(torch.randn(ROWS, D)).sum().backward()
                optimizer.step()
                optimizer.zero_grad()
                prof.step()
    found = [(phase_vector(s, "optimizer_init"), phase_vector(s, "optimizer")) for s in steps(prof.report())]
    assert found == [(14 * N + P, 0), (0, 14 * N + P)] * 2
