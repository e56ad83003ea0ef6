"""GradScaler: what scaling, unscaling, skipped steps and fused unscaling add to a step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

import attnprof
from training.counts import operators, phase_vector, steps

ROWS, D, HIDDEN, OUT = 5, 4, 6, 3


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(D, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, OUT))


PARAMETERS = D * HIDDEN + HIDDEN + HIDDEN * OUT + OUT


def batch() -> Tensor:
    return torch.randn(ROWS, D)


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
    with attnprof.profile(model, recount_every=1) as prof:
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
