"""Budgets of a report, snapshots of it, and what changed between two: held to the report's own sums."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import attnprof
from attnprof.analysis.budget import hold
from attnprof.analysis.budget_changes import Change, compare, operators
from attnprof.analysis.budget_snapshot import op_text, snapshot
from attnprof.analysis.report import PHASES
from attnprof.core.budget import Budget
from attnprof.core.snapshot import Line, Snapshot


class Layer(nn.Module):
    """Fused attention, whose backward recomputes, and a feed-forward."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.up, self.down = nn.Linear(8, 24), nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).view(2, 4, 3, 2, 4).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(2, 4, 8)
        return x + self.down(F.gelu(self.up(y)))


@pytest.fixture(scope="module")
def report() -> attnprof.Report:
    model = nn.Sequential(Layer(), Layer(), nn.Linear(8, 3))
    return attnprof.run(model, (torch.ones(2, 4, 8),), optimizer="adamw")


def test_a_snapshot_has_all_of_a_report(report: attnprof.Report) -> None:
    lines = snapshot(report).lines
    for phase in PHASES:
        cost = report.phases[phase]
        of_phase = [line for (where, _), line in lines.items() if where == phase]
        assert sum(line.matmul_flops for line in of_phase) == cost.matmul_flops
        assert sum(line.vector_flops for line in of_phase) == cost.vector_flops
        assert sum(line.read_bytes for line in of_phase) == cost.read_bytes
        assert sum(line.write_bytes for line in of_phase) == cost.write_bytes
    assert {phase for phase, _ in lines} == {"forward", "backward", "recompute", "optimizer"}
    assert lines["forward", "0.up"].numbers[0] == 2 * 8 * 8 * 16
    assert snapshot(report).memory["peak_bytes"] == report.memory.peak.bytes  # type: ignore[union-attr]


@pytest.mark.parametrize("phase", [None, *PHASES])
@pytest.mark.parametrize("quantity", ["flops", "bytes"])
def test_a_budget_of_everything_is_the_total(report: attnprof.Report, quantity: str, phase: str | None) -> None:
    found = hold(report, Budget(quantity, 0, phase=phase))
    assert found.measured == getattr(report.total if phase is None else report.phases[phase], quantity)
    assert found.measured == sum(part.amount for part in found.parts)


@pytest.mark.parametrize(
    ("pattern", "modules"),
    [
        ("0", ["0"]),
        ("[0-1]", ["0", "1"]),
        ("*", ["0", "1", "2", "(outside)", "(optimizer)"]),  # what is inside them has been counted with them
        ("*.up", ["0.up", "1.up"]),
        ("0*", ["0"]),
        ("(optimizer)", ["(optimizer)"]),
    ],
)
def test_modules_that_match_share_the_budget_and_none_counts_twice(
    report: attnprof.Report, pattern: str, modules: list[str]
) -> None:
    expected = sum(report.by_module()[fqn].flops for fqn in modules)
    assert hold(report, Budget("flops", 0, module=pattern)).measured == expected


def test_a_run_without_a_model_knows_modules_with_and_without_the_class() -> None:
    model = nn.Sequential(nn.Linear(2, 3))
    with attnprof.profile() as prof:
        model(torch.ones(1, 2))
    for name in ("0", "Sequential", "Sequential.0", "(Sequential).0", "*.0"):
        assert hold(prof.report(), Budget("flops", 0, module=name)).measured == 2 * 2 * 3 + 3


def test_memory_has_to_be_there() -> None:
    found = attnprof.run(nn.Linear(2, 3), (torch.ones(1, 2),), memory=False)
    with pytest.raises(attnprof.AttnprofError, match="memory was not tracked"):
        hold(found, Budget("memory_bytes", 0, kind="peak"))
    assert snapshot(found).memory == {}


def test_an_op_as_text(report: attnprof.Report) -> None:
    texts = {op_text(op) for op in report.trace.signatures}
    assert "aten.addmm.default float32 [16] [8,8] [8,16]" in texts


# Changes


def test_the_same_run_did_not_change(report: attnprof.Report) -> None:
    assert not compare(snapshot(report), snapshot(report))
    assert operators(report, report) == []


def one(flops: int, *ops: str) -> Snapshot:
    return Snapshot({("forward", f"h.{i}"): Line(flops, ops=ops) for i in range(3)})


def test_modules_that_change_alike_are_one_change() -> None:
    changes = compare(one(8, "mm [2]"), one(10, "mm [3]"))
    (change,) = changes.modules
    assert (change.module, change.phase, change.count) == ("h.[0-2]", "forward", 3)
    assert change.total("flops") == Change("flops", 3 * 8, 3 * 10)
    assert (change.op, change.was) == ("mm [3]", "mm [2]")
    assert changes.total("matmul_flops").delta == 3 * 2


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        (("mm [2]", "add [2]"), ("mm [2]", "add [3]"), ("add [3]", "add [2]")),
        (("mm [2]",), ("gelu [2]", "mm [4]"), ("mm [4]", "mm [2]")),  # the one that has a counterpart
        (("mm [2]",), ("mm [2]", "gelu [2]"), ("gelu [2]", "")),
        (("mm [2]", "gelu [2]"), ("mm [2]",), ("", "gelu [2]")),
        (("mm [2]",), ("mm [2] x2",), ("mm [2] x2", "mm [2]")),
        ((), ("mm [2]",), ("mm [2]", "")),
    ],
)
def test_the_op_responsible(before: tuple[str, ...], after: tuple[str, ...], named: tuple[str, str]) -> None:
    (change,) = compare(one(8, *before), one(9, *after)).modules
    assert (change.op, change.was) == named


@pytest.mark.parametrize(
    ("before", "after", "percent", "same"),
    [(100, 101, 1, True), (100, 99, 1, True), (100, 102, 1, False), (100, 98, 1, False), (0, 1, 100, False)],
)
def test_a_tolerance_is_a_share_of_what_was_either_way(before: int, after: int, percent: int, same: bool) -> None:
    assert (not compare(one(before), one(after), Fraction(percent, 100))) is same


def test_ops_that_cost_the_same_are_no_change() -> None:
    assert not compare(one(8, "mm [2]"), one(8, "matmul [2]"))


def test_memory_and_unpriced_ops_are_compared_where_both_know_them() -> None:
    tracked = Snapshot({}, {"peak_bytes": 8, "saved_bytes": 4})
    assert not compare(tracked, Snapshot({}))
    changes = compare(tracked, Snapshot({}, {"peak_bytes": 9, "saved_bytes": 4}, {"my.op": 2}))
    assert changes.memory == (Change("peak_bytes", 8, 9),)
    assert changes.unpriced == (Change("my.op", 0, 2),)
    assert bool(changes)
