"""Embeddings with sparse gradients: an update works on the rows that the batch looked up, not on the table."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import attnprof
from support import cost_of, traffic_of
from training.counts import operators, phase_vector, steps

VOCABULARY, D = 10, 4
BATCH = (1, 2, 2, 5)
LOOKED_UP, ROWS = len(BATCH), len(set(BATCH))  # with and without the repeated one
F32, INDEX = 4, 8  # bytes


def trained(kind: type[torch.optim.Optimizer], micro_batches: int = 1, **options: float) -> attnprof.Report:
    table = nn.Embedding(VOCABULARY, D, sparse=True)
    optimizer = kind(table.parameters(), **options)
    with attnprof.profile(table, recount_every=1) as prof:
        for _ in range(2):
            for _ in range(micro_batches):
                table(torch.tensor(BATCH)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            prof.step()
    report = prof.report()
    assert report.unpriced == {}
    return report


@pytest.mark.parametrize("micro_batches", [1, 3])
def test_sgd(micro_batches: int) -> None:
    """p - lr g: 2 per looked-up element. Accumulated gradients are put behind each other, which adds nothing."""
    report = trained(torch.optim.SGD, micro_batches, lr=0.1)
    touched = micro_batches * LOOKED_UP * D
    for step in steps(report):
        assert phase_vector(step, "optimizer") == 2 * touched
    assert report.by_module("backward")[""].vector_flops == 0
    # The gradient's values and indices, and the elements of the table that it meets (not more than there are).
    update = report.by_operator("optimizer")["aten.add_.Tensor"]
    assert update.write_bytes == 2 * F32 * min(touched, VOCABULARY * D)


def test_sparse_adam() -> None:
    """Rows that were looked up twice are added first. Then m and v by g - m and g g - v, 3 + 4, each put back into its
    table, 1 + 1, and itself moved on, 1 + 1; sqrt, + eps, m / ., times the rate: 4; p 1.
    """
    first, second = steps(trained(torch.optim.SparseAdam))
    per_element = (2 + 1) + (3 + 1) + (1 + 1) + 4 + 1
    update = (LOOKED_UP - ROWS) * D + per_element * ROWS * D
    assert phase_vector(first, "optimizer_init") == phase_vector(second, "optimizer") == update


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_adagrad() -> None:
    """Added up; g g, into its table: 2; sqrt, + eps, g / .: 3; p - a .: 2. And a step counter."""
    for step in steps(trained(torch.optim.Adagrad, lr=0.1)):
        assert phase_vector(step, "optimizer") == (LOOKED_UP - ROWS) * D + 7 * ROWS * D + 1


def test_a_dense_gradient_updates_the_whole_table() -> None:
    """The same without ``sparse``: the gradient is a table too, into which the rows are added."""
    table = nn.Embedding(VOCABULARY, D)
    optimizer = torch.optim.SGD(table.parameters(), lr=0.1)
    with attnprof.profile(table) as prof:
        table(torch.tensor(BATCH)).sum().backward()
        optimizer.step()
    report = prof.report()
    assert report.by_module("backward")[""].vector_flops == LOOKED_UP * D
    assert report.phases["optimizer"].vector_flops == 2 * VOCABULARY * D
    assert operators(report, "aten.embedding_dense_backward") == {"": 1}


def test_sums_with_sparse_tensors() -> None:
    """Only entries that meet one are added; a coefficient is applied to all of the other operand."""
    n = 4
    full, diagonal, dense = torch.rand(n, n).to_sparse(), torch.eye(n).to_sparse(), torch.rand(n, n)
    counts = {
        "sparse": (lambda: diagonal + full, n),
        "dense": (lambda: dense + diagonal, n),
        "scaled": (lambda: torch.add(diagonal, full, alpha=3), n + n * n),
    }
    assert {name: cost_of(run, "aten.add").vector_flops for name, (run, _) in counts.items()} == {
        name: flops for name, (_, flops) in counts.items()
    }
    stored = n * (F32 + 2 * INDEX)
    assert traffic_of(lambda: dense.add_(diagonal), "aten.add_") == (stored + n * F32, n * F32)
    assert traffic_of(lambda: dense + diagonal, "aten.add") == (n * n * F32 + stored, n * n * F32)
