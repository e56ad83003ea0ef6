"""What surrounds forward and backward in a loop: accumulation, zeroing, clipping, averaging, schedules."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn

import attnprof
from attnprof.core.cost import Cost
from training.counts import Counts, matmul, matmul_steps, operators, phase_vector, phases, product, steps

ROWS, D, HIDDEN, OUT = 5, 4, 6, 3
F32 = 4  # bytes
FIRST, SECOND = D * HIDDEN + HIDDEN, HIDDEN * OUT + OUT  # parameters of each Linear
PARAMETERS, TENSORS = FIRST + SECOND, 4


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(D, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, OUT))


def batch() -> Tensor:
    return torch.randn(ROWS, D)


def backward(model: nn.Module) -> None:
    model(batch()).sum().backward()


def once(micro_batches: int = 1) -> Counts:
    """The products of that many forwards and backwards; the data needs no gradient."""
    first, second = (micro_batches * product(ROWS, n_in, n_out) for n_in, n_out in ((D, HIDDEN), (HIDDEN, OUT)))
    return {"0": phases(forward=first, backward=first), "2": phases(forward=second, backward=2 * second)}


#: The vector work of a backward whose gradients land in empty places: the sums of the bias gradients.
BIAS_SUMS = {"0": (ROWS - 1) * HIDDEN, "2": (ROWS - 1) * OUT}


def own_backward(model: nn.Module, micro_batches: int) -> dict[str, int]:
    with attnprof.profile(model) as prof:
        for _ in range(micro_batches):
            backward(model)
    return {name: prof.report().by_module("backward")[name].vector_flops for name in ("0", "2")}


@pytest.mark.parametrize("micro_batches", [1, 2, 5])
def test_micro_batches_add_to_the_gradients(micro_batches: int) -> None:
    """The first puts its gradients in place, each later one adds them: one addition per parameter of the module."""
    assert own_backward(net(), micro_batches) == {
        name: micro_batches * BIAS_SUMS[name] + (micro_batches - 1) * parameters
        for name, parameters in (("0", FIRST), ("2", SECOND))
    }


def test_accumulation_is_traffic_of_its_module() -> None:
    """Gradient and addend read, gradient written."""
    model = net()
    with attnprof.profile(model) as prof:
        backward(model)
        backward(model)
    adds = [
        (prof.report().trace.modules[scope.module].fqn, op.inputs[0].numel)
        for op, scope in prof.report().trace.events()
        if op.packet == "aten.add_" and scope.phase == "backward"
    ]
    assert sorted(adds) == sorted([("0", D * HIDDEN), ("0", HIDDEN), ("2", HIDDEN * OUT), ("2", OUT)])
    cost = prof.report().by_operator("backward")["aten.add_.Tensor"]
    assert (cost.read_bytes, cost.write_bytes) == (2 * F32 * PARAMETERS, F32 * PARAMETERS)


def test_steps_of_several_micro_batches() -> None:
    """``prof.step()`` after each optimizer step: every step has all its micro-batches and one update."""
    model, accumulated = net(), 3
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with attnprof.profile(model, recount_every=1) as prof:
        for _ in range(2):
            for _ in range(accumulated):
                backward(model)
            optimizer.step()
            optimizer.zero_grad()
            prof.step()
    report = prof.report()
    assert matmul_steps(report) == [once(accumulated)] * 2
    for step in steps(report):
        assert phase_vector(step, "optimizer") == 2 * PARAMETERS
        assert step["0", "backward"].vector_flops == accumulated * BIAS_SUMS["0"] + (accumulated - 1) * FIRST


def test_a_step_per_micro_batch() -> None:
    """The same loop cut finer: only the last of each three updates, only the first does not add."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with attnprof.profile(model, recount_every=1) as prof:
        for i in range(6):
            backward(model)
            if i % 3 == 2:
                optimizer.step()
                optimizer.zero_grad()
            prof.step()
    report = prof.report()
    assert matmul_steps(report) == [once()] * 6
    for i, step in enumerate(steps(report)):
        assert phase_vector(step, "optimizer") == (2 * PARAMETERS if i % 3 == 2 else 0)
        assert step["0", "backward"].vector_flops == BIAS_SUMS["0"] + (0 if i % 3 == 0 else FIRST)


def test_a_shared_module_adds_its_gradients_before_they_are_put_in_place() -> None:
    """Two uses in one graph: the sum of both is the module's, not an accumulation."""
    layer = nn.Linear(D, D, bias=False)
    with attnprof.profile(layer) as prof:
        (layer(batch()) + layer(batch())).sum().backward()
    report = prof.report()
    assert report.by_module("backward")[""].vector_flops == D * D
    assert operators(report, "aten.add_", "backward") == {}


# Zeroing


def test_gradients_set_to_none_cost_nothing() -> None:
    model = net()
    with attnprof.profile(model) as prof:
        backward(model)
        model.zero_grad()
        backward(model)
    report = prof.report()
    assert {name: report.by_module("backward")[name].vector_flops for name in BIAS_SUMS} == {
        name: 2 * n for name, n in BIAS_SUMS.items()
    }
    assert "aten.zero_.default" not in report.by_operator()


@pytest.mark.parametrize("foreach", [False, True])
def test_gradients_set_to_zero_are_written_and_added_to(foreach: bool) -> None:
    """Zeroing writes them; the next backward adds, as if it were a second micro-batch."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, foreach=foreach)
    with attnprof.profile(model, recount_every=1) as prof:
        for _ in range(2):
            backward(model)
            optimizer.zero_grad(set_to_none=False)
            prof.step()
    report = prof.report()
    zero = report.by_operator("other")["aten._foreach_zero_.default" if foreach else "aten.zero_.default"]
    assert zero == 2 * Cost(write_bytes=F32 * PARAMETERS)
    first, second = steps(report)
    assert second["0", "backward"].vector_flops - first["0", "backward"].vector_flops == FIRST
    assert second["2", "backward"].vector_flops - first["2", "backward"].vector_flops == SECOND


# Clipping


@pytest.mark.parametrize("foreach", [False, True])
def test_clipping_by_norm(foreach: bool) -> None:
    """Squares, sums and roots: 2 per element; of the norms again; max / (norm + eps): add, reciprocal, product; the
    factor clamped to 1; a product per element.
    """
    model = net()
    backward(model)
    with attnprof.profile(model) as prof:
        nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=foreach)
    report = prof.report()
    assert report.total.vector_flops == 2 * PARAMETERS + 2 * TENSORS + 3 + 1 + PARAMETERS
    assert report.phases["other"] == report.total
    assert report.by_module(inclusive=False)["(outside)"] == report.total


@pytest.mark.parametrize("foreach", [False, True])
def test_clipping_by_value(foreach: bool) -> None:
    """Two comparisons per element."""
    model = net()
    backward(model)
    with attnprof.profile(model) as prof:
        nn.utils.clip_grad_value_(model.parameters(), 0.5, foreach=foreach)
    assert prof.report().phases["other"].vector_flops == 2 * PARAMETERS


def test_clipping_inside_a_step() -> None:
    """Between backward and update; it belongs to neither."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with attnprof.profile(model) as prof:
        backward(model)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    report = prof.report()
    assert matmul(report) == once()
    assert report.phases["optimizer"].vector_flops == 2 * PARAMETERS
    assert report.phases["other"].vector_flops == 3 * PARAMETERS + 2 * TENSORS + 4


# Averages of the weights


def test_an_exponential_average_by_hand() -> None:
    """a b + (1 - b) p: 3 per element, whether in two ops or as one interpolation; it is neither model nor optimizer."""
    model, average = net(), net()
    with attnprof.profile(model, recount_every=1) as prof:
        with torch.no_grad():
            for a, p in zip(average.parameters(), model.parameters(), strict=True):
                a.mul_(0.99).add_(p, alpha=0.01)
        prof.step()
        with torch.no_grad():
            for a, p in zip(average.parameters(), model.parameters(), strict=True):
                a.lerp_(p, 0.01)
        prof.step()
    for step in steps(prof.report()):
        assert step.keys() == {("(outside)", "other")}
        assert phase_vector(step, "other") == 3 * PARAMETERS


@pytest.mark.parametrize(
    ("average", "weight"),
    # The weight of the new model is a number, or 1 / (n + 1) in tensors: add, reciprocal, times 1.
    [(get_ema_multi_avg_fn(0.9), 0), (get_swa_multi_avg_fn(), 3)],
    ids=["exponential", "stochastic"],
)
def test_averaged_models(average: Callable[..., None], weight: int) -> None:
    """The first call copies; later ones interpolate, a + w (p - a). Each compares its count twice and adds 1 to it."""
    model, count = net(), 2 + 1
    averaged = AveragedModel(model, multi_avg_fn=average)
    with attnprof.profile(model, recount_every=1) as prof:
        for _ in range(3):
            averaged.update_parameters(model)
            prof.step()
    assert [phase_vector(step, "other") for step in steps(prof.report())] == [
        count,
        count + weight + 3 * PARAMETERS,
        count + weight + 3 * PARAMETERS,
    ]


# Schedules


@pytest.mark.parametrize(
    "schedule",
    [
        lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, step_size=1),
        lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step),
        lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=3),
        lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=5),
    ],
    ids=["step", "lambda", "cosine", "one cycle"],
)
def test_a_schedule_of_numbers_costs_nothing(schedule: Callable[..., torch.optim.lr_scheduler.LRScheduler]) -> None:
    """The learning rate is a Python number; the optimizer, whose step the scheduler wraps, is still seen."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = schedule(optimizer)
    with attnprof.profile(model, recount_every=1) as prof:
        for _ in range(2):
            backward(model)
            optimizer.step()
            optimizer.zero_grad()
            prof.step()
            scheduler.step()
    report = prof.report()
    first, second = steps(report)
    assert phase_vector(first, "optimizer_init") == 2 * PARAMETERS  # the momentum is the gradient
    assert phase_vector(second, "optimizer") == 4 * PARAMETERS
    assert report.phases["other"].flops == 0


def test_a_schedule_of_a_tensor_multiplies_it() -> None:
    """The rate times gamma, one number per step, and neither model nor optimizer."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=torch.tensor(0.1), fused=True)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.9)
    with attnprof.profile(model) as prof:
        backward(model)
        optimizer.step()
        scheduler.step()
    report = prof.report()
    assert report.phases["other"].vector_flops == 1
    assert report.phases["optimizer"].vector_flops == 2 * PARAMETERS
