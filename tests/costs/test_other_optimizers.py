"""The other optimizers of torch.optim, which have no fused form: updates written out, products, no op unpriced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from attnprof.core.cost import Cost
from attnprof.costs.pricing import price
from support import ops_of

SHAPES = [(3, 4), (5,)]
P = len(SHAPES)
N = 3 * 4 + 5

LOOP, FOREACH = {"foreach": False}, {"foreach": True}


def steady_step(kind: Any, options: dict[str, Any], shapes: list[tuple[int, ...]], warm: int = 1) -> Cost:
    """The cost of the step after ``warm`` others, every op of it priced or free."""
    parameters = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    optimizer = kind(parameters, **options)
    for p in parameters:
        p.grad = torch.randn_like(p)
    for _ in range(warm):
        optimizer.step()
    priced = [price(op) for op in ops_of(optimizer.step)]
    assert [p.signature.op for p in priced if p.status == "unpriced"] == []
    return Cost.sum(p.cost for p in priced)


@pytest.mark.parametrize("form", [LOOP, FOREACH], ids=["loop", "foreach"])
@pytest.mark.parametrize(
    ("kind", "options", "per_element"),
    [
        # v = b v + c g g 4; sqrt, + eps; p -= a g / . 3
        (torch.optim.RMSprop, {}, 4 + 2 + 3),
        # decay 2; v 4; mean by lerp 3; v - mean mean: 3; sqrt, + eps; b = m b + g / . : 3; p -= a b: 2
        (torch.optim.RMSprop, {"momentum": 0.9, "centered": True, "weight_decay": 0.1}, 2 + 4 + 3 + 3 + 2 + 3 + 2),
        # decay 2; v 4; std 2; d = sqrt(u + eps) / std g: 4; u = b u + c d d: 4; p -= a d: 2
        (torch.optim.Adadelta, {"weight_decay": 0.1}, 2 + 4 + 2 + 4 + 4 + 2),
        # decay 2; m by lerp 3; u = max(b u, |g| + eps): 4; p -= a m / u: 3
        (torch.optim.Adamax, {"weight_decay": 0.1}, 2 + 3 + 4 + 3),
        # sign(g g') 2, three comparisons to pick a factor, step times it, clamped 2; g zeroed where it turned 1;
        # p -= sign(g) step: 1 + 3
        (torch.optim.Rprop, {}, 2 + 3 + 3 + 1 + 4),
    ],
)
def test_other_optimizers(kind: Any, options: dict[str, Any], per_element: int, form: dict[str, bool]) -> None:
    assert steady_step(kind, options | form, SHAPES).vector_flops == N * per_element + P


@pytest.mark.parametrize("form", [LOOP, FOREACH], ids=["loop", "foreach"])
@pytest.mark.parametrize("kind", [torch.optim.ASGD, torch.optim.NAdam, torch.optim.RAdam, torch.optim.Adafactor])
def test_every_op_of_the_others_has_a_verdict(kind: Any, form: dict[str, bool]) -> None:
    assert steady_step(kind, {"weight_decay": 0.1} | form, SHAPES, warm=6).vector_flops >= 2 * N  # at least p -= a g


def test_adafactor_rebuilds_the_variance_from_rows_and_columns() -> None:
    found = steady_step(torch.optim.Adafactor, {}, [(3, 4), (5,)])
    assert found.matmul_flops == 2 * 3 * 1 * 4  # [3, 1] x [1, 4]; vectors keep theirs whole


def test_muon_orthogonalizes_by_five_iterations_of_three_products() -> None:
    def iterations(m: int, n: int) -> int:
        return 5 * (2 * m * n * m + 2 * m * m * m + 2 * m * m * n)  # X X^T; its square; times X

    found = steady_step(torch.optim.Muon, {}, [(3, 4), (7, 5)])
    assert found.matmul_flops == iterations(3, 4) + iterations(5, 7)  # the shorter side first


def test_lbfgs_and_sparse_adam_have_no_unpriced_op() -> None:
    x = nn.Parameter(torch.randn(4))

    def closure() -> Any:
        with torch.enable_grad():
            optimizer.zero_grad()
            loss = (x * x).sum()
            loss.backward()
        return loss

    optimizer = torch.optim.LBFGS([x], max_iter=3, line_search_fn="strong_wolfe")
    table = nn.Embedding(6, 3, sparse=True)
    sparse = torch.optim.SparseAdam(table.parameters())
    table(torch.tensor([1, 4])).sum().backward()
    runs: list[Callable[[], Any]] = [lambda: optimizer.step(closure), sparse.step]
    for run in runs:
        priced = [price(op) for op in ops_of(run)]
        assert [p.signature.op for p in priced if p.status == "unpriced"] == []
