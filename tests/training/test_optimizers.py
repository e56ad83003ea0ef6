"""Steps of torch's optimizers in a training loop: the state-creating first one, the steady ones, every implementation.

N is the number of trained elements, P that of trained tensors, whose step counters are a number each. Torch's loop,
foreach and fused forms do the same arithmetic, unless a test says where they do not.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attnprof
from attnprof.core.cost import Cost
from training.counts import by_dtype, matmul, phase_vector, phases, product, steps
from training.loops import FOREACH, FUSED, LOOP, MATRICES, ROWS, VECTORS, D, N, P, net, step_flops, trained

F32 = 4  # bytes


@pytest.mark.parametrize("form", [LOOP, FOREACH, FUSED], ids=["loop", "foreach", "fused"])
@pytest.mark.parametrize(
    ("kind", "options", "first", "per_element", "counters"),
    [
        # decay 1; m by lerp 3; v = b v + c g g 4; sqrt, / c, + eps 3; p - a m / . 3. Zeros are made first: 0.
        (torch.optim.AdamW, {}, 14, 14, 1),
        (torch.optim.AdamW, {"amsgrad": True}, 15, 15, 1),
        # no decay; or g + w p 2
        (torch.optim.Adam, {}, 13, 13, 1),
        (torch.optim.Adam, {"weight_decay": 0.1}, 15, 15, 1),
        # the momentum is b m + g, 2, but in the first step it is the gradient
        (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}, 2, 4, 0),
        (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}, 4, 6, 0),
        # g + b m: 2, in the first step too
        (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}, 4, 6, 0),
    ],
    ids=["adamw", "adamw-amsgrad", "adam", "adam-decay", "momentum", "momentum-decay", "nesterov"],
)
def test_first_and_steady_steps(
    kind: Any, options: dict[str, Any], first: int, per_element: int, counters: int, form: dict[str, bool]
) -> None:
    found = step_flops(lambda model: kind(model.parameters(), **options, **form), 3)
    assert found == [(first * N + counters * P, 0)] + [(0, per_element * N + counters * P)] * 2


@pytest.mark.parametrize("form", [LOOP, FOREACH, FUSED], ids=["loop", "foreach", "fused"])
def test_without_state_there_is_no_first_step(form: dict[str, bool]) -> None:
    assert step_flops(lambda model: torch.optim.SGD(model.parameters(), lr=0.1, **form), 2) == [(0, 2 * N)] * 2


@pytest.mark.parametrize("form", [LOOP, FOREACH, FUSED], ids=["loop", "foreach", "fused"])
def test_adagrad_made_its_state_when_it_was_built(form: dict[str, bool]) -> None:
    """s + g g: 2; sqrt, + eps: 2; p - a g / .: 3."""
    found = step_flops(lambda model: torch.optim.Adagrad(model.parameters(), **form), 2)
    assert found == [(0, 7 * N + P)] * 2


def test_fused_moves_less() -> None:
    """AdamW element by element, in reads and writes. Loop: p mul_ 1+1; m lerp_ 2+1; v mul_ 1+1 and addcmul_ 2+1; sqrt,
    div, add_ 1+1 each; p addcdiv_ 3+1. Fused: p, g, m, v read, p, m, v written.
    """
    moved = {}
    for name, form in (("loop", LOOP), ("foreach", FOREACH), ("fused", FUSED)):
        report = trained(lambda model, form=form: torch.optim.AdamW(model.parameters(), **form), 2)
        steady: dict[str, Cost] = {}
        for op, scope in report.trace.events():
            if scope.phase == "optimizer" and any(t.numel > 1 for t in op.inputs):
                price = report.priced[report.trace.signatures.index(op)].cost
                steady[op.op] = steady.get(op.op, Cost()) + price
        moved[name] = Cost.sum(steady.values())
    assert (moved["loop"].read_bytes, moved["loop"].write_bytes) == (12 * N * F32, 8 * N * F32)
    assert (moved["foreach"].read_bytes, moved["foreach"].write_bytes) == (12 * N * F32, 8 * N * F32)
    assert (moved["fused"].read_bytes, moved["fused"].write_bytes) == (4 * N * F32 + P * F32, 3 * N * F32)


# Where torch's forms do different arithmetic


@pytest.mark.parametrize("form", [LOOP, FOREACH], ids=["loop", "foreach"])
def test_nadam(form: dict[str, bool]) -> None:
    """Alike. Decay 2; m 3; v 4; / c, sqrt, + eps: 3; p - a g / . and p - b m / .: 3 each. A counter and a product."""
    found = step_flops(lambda model: torch.optim.NAdam(model.parameters(), weight_decay=0.1, **form), 3)
    assert found[1:] == [(0, (2 + 3 + 4 + 3 + 3 + 3) * N + 2 * P)] * 2


def radam(form: dict[str, bool]) -> list[int]:
    found = step_flops(lambda model: torch.optim.RAdam(model.parameters(), **form), 7)
    return [steady for _, steady in found[1:]]


def test_radam_in_a_loop() -> None:
    """m 3; v 4; m / c 1; then, until the variance is known well enough (step 6), times the rate 1, and p - it 2.

    Later also sqrt, + eps, the correction over that (a reciprocal and a product), and three products in all: with the
    rate, with that, with the rectification.
    """
    early, late = (3 + 4 + 1 + 1 + 2) * N + P, (3 + 4 + 1 + 2 + 2 + 3 + 2) * N + P
    assert radam(LOOP) == [early] * 4 + [late] * 2


def test_radam_with_foreach() -> None:
    """m 3; v 4; sqrt, + eps, / c, reciprocal, + the unrectified rate: 5; p + m .: 2. The same in every step: what does
    not apply is a rate of 0.
    """
    assert radam(FOREACH) == [(3 + 4 + 5 + 2) * N + P] * 6


@pytest.mark.parametrize(
    ("form", "t0", "per_element", "per_tensor"),
    [
        # p (1 - l e): 1; p - e g: 2; the average is a copy until step t0 (0), then a + (p - a) u: 3
        (LOOP, 1e6, 3, 1),
        (LOOP, 0, 3 + 3, 1),
        # g + l p: 2; p - . e: 3; p - a, a + . u: 1 + 2, always. The next rate e is worked out on the step tensors:
        # times, + 1, power, and a division made of two.
        (FOREACH, 1e6, 2 + 3 + 3, 1 + 5),
        (FOREACH, 0, 2 + 3 + 3, 1 + 5),
    ],
    ids=["loop", "loop-averaging", "foreach", "foreach-averaging"],
)
def test_asgd(form: dict[str, bool], t0: float, per_element: int, per_tensor: int) -> None:
    found = step_flops(lambda model: torch.optim.ASGD(model.parameters(), t0=t0, **form), 4)
    assert found[2:] == [(0, per_element * N + per_tensor * P)] * 2


@pytest.mark.parametrize("form", [LOOP, FOREACH], ids=["loop", "foreach"])
def test_adafactor(form: dict[str, bool]) -> None:
    """Of each tensor and its update the norm, 2 + 2 per element; clamped, rsqrt, times g 3; p - a . 2; a step counter.

    A matrix of m x n: the norms of rows and of columns 2 + 2 per element; of the m row norms square, mean, lerp 1 + 1 +
    3, and so of the n column norms; the variance from both is a product [m, 1] x [1, n], divided, 1 per element, by the
    mean of m, clamped: m + 1. A vector: g g, and lerp, 1 + 3 per element.
    """
    report = trained(lambda model: torch.optim.Adafactor(model.parameters(), **form), 3)
    matrices = sum((9 + 4 + 1) * m * n + 5 * (m + n) + (m + 1) + 1 for m, n in MATRICES)
    vectors = sum((9 + 4) * n + 1 for n in VECTORS)
    assert [phase_vector(step, "optimizer") for step in steps(report)[1:]] == [matrices + vectors] * 2
    assert report.phases["optimizer"].matmul_flops == 3 * sum(product(m, 1, n) for m, n in MATRICES)


# Optimizers that multiply matrices


def muon_and_adamw(model: nn.Module) -> list[torch.optim.Optimizer]:
    """As it is used: Muon for the matrices, AdamW for the rest."""
    matrices = [p for p in model.parameters() if p.ndim == 2]
    rest = [p for p in model.parameters() if p.ndim != 2]
    return [torch.optim.Muon(matrices, ns_steps=5), torch.optim.AdamW(rest, foreach=False)]


def test_muon() -> None:
    """Momentum and its look-ahead by lerp, 3 + 3; norm 2, clamped 1; divided 1; decay 1; p - a . 2.

    Each of five rounds, in bf16, on X of s x l, s the shorter side: X X^T; its square, with a factor each for it and
    for what it is added to, 3 s s; that times X, added to X with a factor, 2 s l.
    """
    torch.manual_seed(0)
    model = net()
    optimizers = muon_and_adamw(model)
    with attnprof.profile(model, recount_every=1) as prof:
        for _ in range(2):
            model(torch.randn(ROWS, D)).square().mean().backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            prof.step()
    report = prof.report()
    short = [sorted(shape) for shape in MATRICES]
    rounds = sum(5 * (product(s, n, s) + product(s, s, s) + product(s, s, n)) for s, n in short)
    assert by_dtype(report, "optimizer") == {"bfloat16": 2 * rounds}
    assert matmul(report)["(optimizer)"] == phases(optimizer=2 * rounds)
    muon = sum((3 + 3 + 2 + 1 + 1 + 2) * s * n + 1 + 5 * (3 * s * s + 2 * s * n) for s, n in short)
    adamw = 14 * sum(VECTORS) + len(VECTORS)
    first, steady = steps(report)
    assert phase_vector(first, "optimizer_init") == phase_vector(steady, "optimizer") == muon + adamw


def test_lbfgs() -> None:
    """One iteration per step, no line search; the closure's forward and backward are no optimizer work.

    First: |g| and its maximum, compared; d = -g; the step 1 / |g|, a sum, inverted (2), compared, times the rate;
    g . d, compared; p + t d, 2.

    Second, with one pair in memory: |g|, maximum, compared; y = g - g', s = t d; y . s, compared, inverted (2); y . y,
    y s over it; q = -g; s . q, times a number, negated; q - a y, 2; times a number; y . r, times a number, subtracted;
    r + b s, 2; g . d, compared; p + t d, 2. A dot product of n is a contraction of 2 n.
    """
    torch.manual_seed(0)
    model, n = nn.Linear(D, 1, bias=False), D
    x, target = torch.randn(ROWS, D), 100 * torch.ones(ROWS, 1)  # far from it, so that 1 / |g| is below 1
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=1)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (model(x) - target).square().mean()
        loss.backward()
        return loss

    with attnprof.profile(model, recount_every=1) as prof:
        for _ in range(2):
            optimizer.step(closure)
            prof.step()
    report = prof.report()
    first, second = steps(report)
    one = product(ROWS, D, 1)
    for step, phase, dots in ((first, "optimizer_init", 1), (second, "optimizer", 5)):
        assert step["", "forward"].matmul_flops == step["", "backward"].matmul_flops == one
        assert step["(optimizer)", phase].matmul_flops == dots * 2 * n
    largest = n + (n - 1) + 1
    assert phase_vector(first, "optimizer_init") == largest + n + (n + (n - 1) + 2 + 1 + 1) + 1 + 2 * n
    memory = 2 * n + (1 + 2) + 1
    direction = n + (2 + 2 * n) + n + (2 + 2 * n)
    assert phase_vector(second, "optimizer") == largest + memory + direction + 1 + 2 * n
