"""Mixed precision: which FLOPs run in which dtype, and that casts are traffic, not arithmetic.

In fp32 a Linear costs what it costs in bf16; only the split by dtype differs, and the bytes of the casts.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import attnprof
from attnprof.core.cost import Cost
from attnprof.core.signature import OpSignature
from training.counts import by_dtype, matmul, operators, phase_vector, phases, product, steps

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


# Autocast


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


# Loss scaling


def scaled(model: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, x: Tensor) -> None:
    scaler.scale(model(x).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()


def training(optimizer_of: Callable[..., torch.optim.Optimizer], *inputs: Tensor) -> attnprof.Report:
    torch.manual_seed(0)
    model = net()
    optimizer = optimizer_of(model.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    with attnprof.profile(model) as prof:
        for x in inputs:
            scaled(model, optimizer, scaler, x)
            prof.step()
    return prof.report()


def sgd(parameters: object) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1)  # type: ignore[arg-type]


def fused_adamw(parameters: object) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, fused=True)  # type: ignore[arg-type]


#: The scale's reciprocal, twice converted; a finite test and a product per element; and the update of the scale:
#: found_inf tested, scale backed off, tracker advanced and compared, scale grown and tested.
UNSCALE, UPDATE = 1 + 2 * PARAMETERS, 6


def test_a_scaled_step() -> None:
    """Scaling the loss is forward, and one product back; unscaling and the update are neither model nor optimizer."""
    report = training(sgd, batch())
    (step,) = steps(report)
    outside = step["(outside)", "forward"].vector_flops, step["(outside)", "backward"].vector_flops
    assert outside == (ROWS * OUT - 1 + 1, 1)  # the sum and the scale; the scale
    assert phase_vector(step, "other") == UNSCALE + UPDATE
    assert phase_vector(step, "optimizer") == 2 * PARAMETERS


def test_a_step_that_is_skipped() -> None:
    """An infinite gradient: the work until then was done, the optimizer's was not."""
    first, skipped, last = steps(training(sgd, batch(), batch() * float("inf"), batch()))
    assert phase_vector(first, "optimizer") == phase_vector(last, "optimizer") == 2 * PARAMETERS
    assert phase_vector(skipped, "optimizer") == 0
    assert phase_vector(skipped, "other") == phase_vector(first, "other")
    for phase in ("forward", "backward"):
        assert phase_vector(skipped, phase) == phase_vector(first, phase)


def test_a_skipped_first_step_leaves_the_state_to_the_next() -> None:
    def adamw(parameters: object) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, foreach=False)  # type: ignore[arg-type]

    skipped, second, third = steps(training(adamw, batch() * float("inf"), batch(), batch()))
    assert not any(phase.startswith("optimizer") for _, phase in skipped)
    assert ("(optimizer)", "optimizer_init") in second
    assert ("(optimizer)", "optimizer_init") not in third
    # 14 per element, and the step counter of each of 4 parameters
    assert phase_vector(second, "optimizer_init") == phase_vector(third, "optimizer") == 14 * PARAMETERS + 4


def test_a_fused_optimizer_unscales_by_itself() -> None:
    """AdamW 14 and the scale 1 per element. The gradients are still tested for infinities, with a scale of 1.

    Step counters are advanced, and put back by found_inf: 2 for each parameter.
    """
    _, step = steps(training(fused_adamw, batch(), batch()))
    assert phase_vector(step, "optimizer") == 15 * PARAMETERS + 2 * 4
    # found_inf is summed and the scale multiplied by its inverse of 1, on numbers
    assert phase_vector(step, "other") == 2 * PARAMETERS + 2 + UPDATE


def test_unscaling_to_clip_happens_once() -> None:
    """``unscale_`` before clipping; ``step`` then does not do it again."""
    model = net()
    optimizer, scaler = sgd(model.parameters()), torch.amp.GradScaler("cpu")
    with attnprof.profile(model) as prof:
        scaler.scale(model(batch()).sum()).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
    report = prof.report()
    assert operators(report, "aten._amp_foreach_non_finite_check_and_unscale_") == {"(outside)": 1}
    # 4 norms of 2 per element; their norm; max / (norm + eps): 3; clamped 1; a product per element
    clip = 2 * PARAMETERS + 2 * 4 + 3 + 1 + PARAMETERS
    assert report.phases["other"].vector_flops == UNSCALE + clip + UPDATE


# Low-precision weights


def test_master_weights() -> None:
    """A bf16 model, its fp32 copy updated by hand: gradients are cast up, weights copied down; arithmetic in fp32."""
    model = net().bfloat16()
    masters = [p.detach().float().requires_grad_() for p in model.parameters()]
    optimizer = torch.optim.AdamW(masters, foreach=False)
    with attnprof.profile(model) as prof:
        for _ in range(2):
            model(batch().bfloat16()).sum().backward()
            for master, parameter in zip(masters, model.parameters(), strict=True):
                master.grad = parameter.grad.float()
            optimizer.step()
            with torch.no_grad():
                for master, parameter in zip(masters, model.parameters(), strict=True):
                    parameter.copy_(master)
            model.zero_grad()
            prof.step()
    report = prof.report()
    assert by_dtype(report, "forward") == {"bfloat16": 2 * (FIRST + SECOND)}
    assert by_dtype(report, "backward") == {"bfloat16": 2 * (FIRST + 2 * SECOND)}
    assert by_dtype(report, "optimizer", "vector") == {"float32": 2 * (14 * PARAMETERS + 4)}
    other = report.by_operator("other")
    inputs = ROWS * D  # cast as well, in each step
    assert other["aten._to_copy.default"] == 2 * Cost(
        read_bytes=PARAMETERS * BF16 + inputs * F32, write_bytes=PARAMETERS * F32 + inputs * BF16
    )
    assert other["aten.copy_.default"] == 2 * Cost(read_bytes=PARAMETERS * F32, write_bytes=PARAMETERS * BF16)
    assert report.phases["other"].vector_flops == 0


def test_a_bf16_optimizer_keeps_its_state_in_bf16() -> None:
    """All of it in bf16 but the step counters."""
    model = net().bfloat16()
    optimizer = torch.optim.AdamW(model.parameters(), foreach=False)
    with attnprof.profile(model) as prof:
        model(batch().bfloat16()).sum().backward()
        optimizer.step()
    assert by_dtype(prof.report(), "optimizer", "vector") == {"bfloat16": 14 * PARAMETERS, "float32": 4}


class WideMomentum(torch.optim.Optimizer):
    """SGD with an fp32 momentum on bf16 parameters."""

    def __init__(self, parameters: object) -> None:
        super().__init__(parameters, {})  # type: ignore[arg-type]

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for parameter in self.param_groups[0]["params"]:
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter, dtype=torch.float32)
            momentum = state["momentum"].mul_(0.9).add_(parameter.grad.float())
            parameter.copy_(parameter.float().sub_(momentum, alpha=0.1))


def test_fp32_state_of_a_bf16_model() -> None:
    """m = b m + g: 2; p - a m: 2, on copies in fp32; the casts are the gradient's, the parameter's and back."""
    model = net().bfloat16()
    optimizer = WideMomentum(model.parameters())
    with attnprof.profile(model) as prof:
        for _ in range(2):
            model(batch().bfloat16()).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            prof.step()
    report = prof.report()
    init, steady = steps(report)
    assert phase_vector(init, "optimizer_init") == phase_vector(steady, "optimizer") == 4 * PARAMETERS
    assert by_dtype(report, "optimizer", "vector") == {"float32": 2 * 4 * PARAMETERS}
    casting = report.by_operator("optimizer")
    assert casting["aten._to_copy.default"] == 2 * Cost(
        read_bytes=2 * PARAMETERS * BF16, write_bytes=2 * PARAMETERS * F32
    )
    assert casting["aten.copy_.default"] == 2 * Cost(read_bytes=PARAMETERS * F32, write_bytes=PARAMETERS * BF16)


@pytest.mark.parametrize("fake", [False, True])
def test_half_precision_whole(fake: bool) -> None:
    """model.to(bf16): no casts at all, half the bytes of fp32 in every phase."""
    bf16 = attnprof.run(net().bfloat16(), (batch().bfloat16(),), backward=True, fake=fake)
    f32 = attnprof.run(net(), (batch(),), backward=True, fake=fake)
    for phase in ("forward", "backward"):
        assert by_dtype(bf16, phase) == {"bfloat16": f32.phases[phase].matmul_flops}
        assert 2 * bf16.phases[phase].bytes == f32.phases[phase].bytes
    assert "aten._to_copy.default" not in bf16.by_operator()
