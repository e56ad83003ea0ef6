"""Phases: optimizer steps, losses, metrics and data; and that each keeps its own when one runs inside another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import attnprof
from capture.nets import ROWS, UNIT, WIDTH, Chain, both, linear, rows, units


def calls(report: attnprof.Report, prefix: str) -> dict[tuple[str, str], int]:
    """Calls of ops whose name starts so, by (module, phase) as the events have it."""
    found: Counter[tuple[str, str]] = Counter()
    for signature, scope in report.trace.events():
        if signature.op.startswith(prefix):
            found[report.trace.modules[scope.module].fqn, scope.phase] += 1
    return dict(found)


def where(report: attnprof.Report, phase: str) -> set[str]:
    """The names of the modules with ops in a phase."""
    return {report.trace.modules[scope.module].fqn for _, scope in report.trace.events() if scope.phase == phase}


def train(net: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> attnprof.Report:
    with attnprof.profile(net, recount_every=1) as prof:
        for _ in range(steps):
            net(rows()).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            prof.step()
    return prof.report()


PARAMETERS = 4  # two Linears, weight and bias each

#: How each kind of AdamW names the update of its first moment, and how often one step does it.
ADAMW = {
    "loop": ({"foreach": False}, "aten.lerp_", PARAMETERS),
    "foreach": ({"foreach": True}, "aten._foreach_lerp_", 1),
    "fused": ({"fused": True}, "aten._fused_adamw_", 1),
}


@pytest.mark.parametrize("kind", ADAMW)
def test_adamw(kind: str) -> None:
    """The first step creates state and is marked so; the other two are steady. Nothing else is there."""
    options, op, per_step = ADAMW[kind]
    net = Chain()
    report = train(net, torch.optim.AdamW(net.parameters(), **options), steps=3)
    assert calls(report, op) == {
        ("(optimizer)", "optimizer_init"): per_step,
        ("(optimizer)", "optimizer"): 2 * per_step,
    }
    assert where(report, "optimizer") == {"(optimizer)"}
    assert where(report, "optimizer_init") == {"(optimizer)"}
    assert units(report) == {"first": both(3, 6), "second": both(3, 6)}


def test_only_the_first_step_makes_state() -> None:
    net = Chain()
    report = train(net, torch.optim.AdamW(net.parameters(), foreach=False), steps=3)
    # Two moments per parameter.
    assert calls(report, "aten.zeros_like") == {("(optimizer)", "optimizer_init"): 2 * PARAMETERS}


def test_an_optimizer_that_stepped_before_is_steady() -> None:
    net = Chain()
    optimizer = torch.optim.AdamW(net.parameters(), foreach=False)
    net.step()
    optimizer.step()
    report = train(net, optimizer, steps=1)
    assert where(report, "optimizer_init") == set()
    assert calls(report, "aten.lerp_") == {("(optimizer)", "optimizer"): PARAMETERS}


def test_sgd_keeps_no_state_so_its_first_step_is_steady() -> None:
    net = Chain()
    report = train(net, torch.optim.SGD(net.parameters(), lr=0.1, foreach=False), steps=2)
    assert where(report, "optimizer_init") == set()
    assert calls(report, "aten.add_.Tensor") == {("(optimizer)", "optimizer"): 2 * PARAMETERS}


def test_sgd_with_momentum_clones_in_its_first_step() -> None:
    net = Chain()
    report = train(net, torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, foreach=False), steps=2)
    assert calls(report, "aten.clone") == {("(optimizer)", "optimizer_init"): PARAMETERS}
    assert calls(report, "aten.mul_") == {("(optimizer)", "optimizer"): PARAMETERS}


def test_muon_multiplies_matrices() -> None:
    """Five Newton-Schulz rounds of three square products for each square matrix."""
    net = nn.Sequential(linear(bias=False), linear(bias=False))
    report = train(net, torch.optim.Muon(net.parameters(), ns_steps=5), steps=2)
    assert report.phases["optimizer"].matmul_flops == 2 * 2 * 5 * 3 * (2 * WIDTH**3)
    assert report.by_module("optimizer")["(optimizer)"].matmul_flops == report.phases["optimizer"].matmul_flops


def test_zeroing_and_clipping_are_neither_model_nor_optimizer() -> None:
    net = Chain()
    with attnprof.profile(net) as prof:
        net.step()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0, foreach=False)
        net.zero_grad(set_to_none=False)
    report = prof.report()
    assert calls(report, "aten.linalg_vector_norm") == {("(outside)", "other"): PARAMETERS + 1}
    assert calls(report, "aten.clamp") == {("(outside)", "other"): 1}
    assert calls(report, "aten.zero_") == {("(outside)", "other"): PARAMETERS}


def test_lbfgs_runs_forward_and_backward_inside_its_step() -> None:
    """Each evaluation of the closure is one forward and one backward; the rest is optimizer."""
    net, x = Chain(), rows()
    optimizer = torch.optim.LBFGS(net.parameters(), max_iter=3)
    evaluations = 0

    def closure() -> Tensor:
        nonlocal evaluations
        evaluations += 1
        optimizer.zero_grad()
        loss = net(x).square().mean()
        loss.backward()
        return loss

    with attnprof.profile(net) as prof:
        optimizer.step(closure)
    n = evaluations
    assert n > 1
    report = prof.report()
    # The products are those of the Linears; LBFGS's own dot products are the optimizer's.
    found = units(report)
    assert found.pop("(optimizer)").keys() <= {"optimizer"}
    assert found == {"first": both(n, 2 * n), "second": both(n, 2 * n)}


class Failing(torch.optim.SGD):
    """Raises in its step, after one product."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        weight = self.param_groups[0]["params"][0].detach()
        _ = weight @ weight
        raise RuntimeError("no step")


def test_after_an_optimizer_raised_all_is_booked_as_before() -> None:
    net = Chain()
    optimizer = Failing(net.parameters(), lr=0.1)
    with attnprof.profile(net) as prof:
        net.step()
        with pytest.raises(RuntimeError, match="no step"):
            optimizer.step()
        net.step()
    report = prof.report()
    found = units(report)
    assert found.pop("(optimizer)").keys() == {"optimizer"}
    assert found == {"first": both(2, 4), "second": both(2, 4)}
    assert report.phases["optimizer"].matmul_flops == 2 * WIDTH**3


def test_after_an_optimizer_raised_a_metric_is_not_the_optimizers() -> None:
    """Even if no module runs in between."""
    net, matrix = Chain(), torch.randn(WIDTH, WIDTH)
    optimizer = Failing(net.parameters(), lr=0.1)
    with attnprof.profile(net) as prof:
        with pytest.raises(RuntimeError, match="no step"):
            optimizer.step()
        _ = rows(requires_grad=False) @ matrix
    assert units(prof.report())["(outside)"] == {"other": 1}


def test_annotations_of_the_users_do_not_end_a_step() -> None:
    class Annotated(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            weight = self.param_groups[0]["params"][0].detach()
            with torch.profiler.record_function("inner"):
                _ = weight @ weight
            _ = weight @ weight

    net = Chain()
    with attnprof.profile(net) as prof, torch.profiler.record_function("outer"):
        net.step()
        Annotated(net.parameters(), lr=0.1).step()
    assert prof.report().phases["optimizer"].matmul_flops == 2 * (2 * WIDTH**3)


class Outer(torch.optim.Optimizer):
    """Steps another optimizer, then does one product of its own."""

    def __init__(self, inner: torch.optim.Optimizer) -> None:
        super().__init__(inner.param_groups, {})
        self.inner = inner

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.inner.step()
        weight = self.param_groups[0]["params"][0].detach()
        _ = weight @ weight


@pytest.mark.parametrize("inner", [torch.optim.SGD, Failing])
def test_an_optimizer_inside_an_optimizer(inner: type[torch.optim.Optimizer]) -> None:
    """Whatever becomes of the inner step, the outer one goes on; after it, a metric is other."""

    class Guarded(inner):  # type: ignore[misc, valid-type]
        def step(self, closure: Any = None) -> None:
            with suppress(RuntimeError):
                super().step()

    net, matrix = Chain(), torch.randn(WIDTH, WIDTH)
    optimizer = Outer(Guarded(net.parameters(), lr=0.1))
    with attnprof.profile(net) as prof:
        net.step()
        optimizer.step()
        _ = rows(requires_grad=False) @ matrix
    report = prof.report()
    products = 2 if inner is Failing else 1
    assert report.by_module("optimizer")["(optimizer)"].matmul_flops == products * 2 * WIDTH**3
    assert units(report)["(outside)"] == {"other": 1}


def test_an_optimizer_in_the_backward() -> None:
    """One optimizer per parameter, stepped as soon as its gradient is there, which is then dropped."""
    net = Chain()
    for parameter in net.parameters():
        optimizer = torch.optim.SGD([parameter], lr=0.1, foreach=False)

        def update(p: Tensor, optimizer: torch.optim.Optimizer = optimizer) -> None:
            optimizer.step()
            optimizer.zero_grad()

        parameter.register_post_accumulate_grad_hook(update)
    with attnprof.profile(net) as prof:
        net.step()
        net.step()
    report = prof.report()
    assert units(report) == {"first": both(2, 4), "second": both(2, 4)}
    assert calls(report, "aten.add_.Tensor") == {("(optimizer)", "optimizer"): 2 * PARAMETERS}


def test_an_optimizer_in_a_tensor_hook() -> None:
    """Between two products of the node's: they stay backward, the step is the optimizer's."""
    net, matrix = Chain(), torch.randn(WIDTH, WIDTH)
    optimizer = torch.optim.SGD([nn.Parameter(torch.randn(3))], lr=0.1, foreach=False)
    optimizer.param_groups[0]["params"][0].grad = torch.ones(3)

    def hook(gradient: Tensor) -> None:
        _ = gradient @ matrix
        optimizer.step()
        _ = gradient @ matrix

    with attnprof.profile(net) as prof:
        hidden = net.first(rows())
        hidden.register_hook(hook)
        net.second(hidden).sum().backward()
    report = prof.report()
    assert units(report) == {"first": both(1, 2 + 2), "second": both(1, 2)}
    assert calls(report, "aten.add_.Tensor") == {("(optimizer)", "optimizer"): 1}


def test_two_optimizers() -> None:
    net = Chain()
    one = torch.optim.SGD(net.first.parameters(), lr=0.1, foreach=False)
    two = torch.optim.SGD(net.second.parameters(), lr=0.1, foreach=False)
    with attnprof.profile(net) as prof:
        net.step()
        one.step()
        two.step()
    assert calls(prof.report(), "aten.add_.Tensor") == {("(optimizer)", "optimizer"): PARAMETERS}


# Outside every module


def test_a_loss_in_no_module_is_forward_and_backward() -> None:
    net, matrix = Chain(), torch.randn(WIDTH, WIDTH)
    with attnprof.profile(net) as prof:
        (net(rows()) @ matrix).sum().backward()
    assert units(prof.report())["(outside)"] == both(1, 1)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_a_metric_is_other(context: Callable[[], Any]) -> None:
    net, matrix = Chain(), torch.randn(WIDTH, WIDTH)
    with attnprof.profile(net) as prof:
        y = net(rows())
        with context():
            _ = y @ matrix
    assert units(prof.report())["(outside)"] == {"other": 1}


def test_preparing_data_is_other() -> None:
    """Grad mode is on, but the data need no gradient."""
    net, matrix = Chain(), torch.randn(WIDTH, WIDTH)
    with attnprof.profile(net) as prof:
        x = rows(requires_grad=False) @ matrix
        net(x).sum().backward()
    found = units(prof.report())
    assert found == {"(outside)": {"other": 1}, "first": both(1, 1), "second": both(1, 2)}


def test_a_metric_between_forward_and_backward() -> None:
    """The loss after it is forward again."""
    net, matrix = Chain(), torch.randn(WIDTH, WIDTH)
    with attnprof.profile(net) as prof:
        y = net(rows())
        _ = y.detach() @ matrix
        loss = (y @ matrix).sum()
        _ = loss.item()
        loss.backward()
        _ = y.detach() @ matrix
    assert units(prof.report())["(outside)"] == {"forward": 1, "backward": 1, "other": 2}


class Products(Dataset[Tensor]):
    """Each item costs one product of [WIDTH] x [WIDTH, WIDTH]."""

    def __init__(self) -> None:
        self.matrix = torch.randn(WIDTH, WIDTH)

    def __len__(self) -> int:
        return 2 * ROWS

    def __getitem__(self, index: int) -> Tensor:
        return torch.ones(1, WIDTH).mm(self.matrix)[0]


@pytest.mark.parametrize(("workers", "seen"), [(0, 2), (1, 0)])
def test_data_loaders(workers: int, seen: int) -> None:
    """In this process an item's work is other, outside; in a worker's process it is not this run's."""
    net = Chain()
    loader = DataLoader(Products(), batch_size=ROWS, num_workers=workers)
    with attnprof.profile(net) as prof:
        for batch in loader:
            net(batch).sum().backward()
    found = units(prof.report())
    # Two batches of ROWS items of UNIT / ROWS each.
    assert found.pop("(outside)", {}) == ({"other": seen} if seen else {})
    assert found == {"first": both(2, 2), "second": both(2, 4)}


def test_steps_are_marked() -> None:
    net = Chain()
    report = train(net, torch.optim.SGD(net.parameters(), lr=0.1), steps=3)
    ends = report.trace.steps
    assert len(ends) == 3
    assert ends[2] == len(report.trace)
    assert ends[1] - ends[0] == ends[2] - ends[1] == ends[0]
    assert report.total.matmul_flops == 3 * 6 * UNIT
