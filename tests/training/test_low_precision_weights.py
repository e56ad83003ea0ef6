"""Weights in bf16: master copies, optimizer state of either width, and what is cast between them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import attnprof
from attnprof.core.cost import Cost
from training.counts import by_dtype, phase_vector, product, steps

ROWS, D, HIDDEN, OUT = 5, 4, 6, 3
BF16, F32 = 2, 4  # bytes


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(D, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, OUT))


FIRST, SECOND = product(ROWS, D, HIDDEN), product(ROWS, HIDDEN, OUT)
PARAMETERS = D * HIDDEN + HIDDEN + HIDDEN * OUT + OUT


def batch() -> Tensor:
    return torch.randn(ROWS, D)


def test_master_weights() -> None:
    """A bf16 model, its fp32 copy updated by hand: gradients are cast up, weights copied down; arithmetic in fp32."""
    model = net().bfloat16()
    masters = [p.detach().float().requires_grad_() for p in model.parameters()]
    optimizer = torch.optim.AdamW(masters, foreach=False)
    with attnprof.profile(model, recount_every=1) as prof:
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
    with attnprof.profile(model, recount_every=1) as prof:
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
