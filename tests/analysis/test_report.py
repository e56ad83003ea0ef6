"""The questions a report answers, on a model small enough to count by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import attnprof
from attnprof.analysis.tree import ModuleNode
from attnprof.core.cost import ZERO, Cost
from attnprof.core.errors import ConservationError


class Net(nn.Module):
    """Two Linears [B, 4] -> [B, 6] -> [B, 2] with a relu of its own in between."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 6), nn.Linear(6, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(torch.relu(self.up(x)))


B = 3
UP, DOWN = 2 * B * 4 * 6, 2 * B * 6 * 2


@pytest.fixture(scope="module")
def report() -> attnprof.Report:
    return attnprof.run(Net(), (torch.ones(B, 4),), backward=True)


def test_phases_and_totals(report: attnprof.Report) -> None:
    assert list(report.phases) == ["forward", "backward", "recompute", "optimizer", "other"]
    assert report.phases["forward"].matmul_flops == UP + DOWN
    assert report.phases["backward"].matmul_flops == UP + 2 * DOWN  # up: dW only, its input needs no gradient
    assert report.model_flops == report.hardware_flops == report.total.matmul_flops == 2 * UP + 3 * DOWN
    assert Cost.sum(report.phases.values()) == report.total
    assert report.phases["forward"].vector_flops == B * 6 + B * 6  # up's bias, relu


def test_bytes_of_the_forward(report: attnprof.Report) -> None:
    up_reads = B * 4 + 4 * 6 + 6  # x, weight, bias
    relu_reads, down_reads = B * 6, B * 6 + 6 * 2
    assert report.phases["forward"].read_bytes == 4 * (up_reads + relu_reads + down_reads)
    assert report.phases["forward"].write_bytes == 4 * (B * 6 + B * 6 + B * 2)


def test_by_module(report: attnprof.Report) -> None:
    forward = report.by_module("forward")
    assert {name: cost.matmul_flops for name, cost in forward.items()} == {
        "": UP + DOWN,
        "(outside)": 0,
        "(optimizer)": 0,
        "up": UP,
        "down": DOWN,
    }
    assert report.by_module()[""] == report.total
    own = report.by_module("forward", inclusive=False)
    assert own[""].matmul_flops == 0
    assert own[""].vector_flops == B * 6  # the relu is the root's own
    assert Cost.sum(report.by_module(inclusive=False).values()) == report.total


def test_by_operator(report: attnprof.Report) -> None:
    forward = report.by_operator("forward")
    assert forward["aten.addmm.default"].matmul_flops == UP
    assert forward["aten.mm.default"].matmul_flops == DOWN
    assert Cost.sum(report.by_operator().values()) == report.total
    assert report.operator_calls("forward")["aten.relu.default"] == 1
    flops = [cost.flops for cost in report.by_operator().values()]
    assert flops == sorted(flops, reverse=True)


def test_every_call_is_accounted_for(report: attnprof.Report) -> None:
    assert sum(report.counts.values()) == len(report.trace)
    assert report.counts["unpriced"] == 0
    assert report.coverage == report.traffic_coverage == 1.0
    assert report.unpriced == {}


def test_the_tree(report: attnprof.Report) -> None:
    root = report.root
    assert root.class_name == "Net"
    assert root.params == 4 * 6 + 6 + 6 * 2
    assert root.calls == 1
    assert root.find("up").params == 4 * 6 + 6
    assert root.inclusive() == report.total
    with pytest.raises(KeyError):
        root.find("left")


def test_the_split_by_engine_and_dtype_sums_to_the_flops(report: attnprof.Report) -> None:
    total = report.total
    assert sum(n for _, _, n in total.split) == total.flops
    assert {(engine, dtype) for engine, dtype, _ in total.split} == {("matmul", "float32"), ("vector", "float32")}


def test_a_tree_that_loses_something_is_refused(report: attnprof.Report) -> None:
    root = attnprof.run(Net(), (torch.ones(B, 4),)).root
    root.check({"forward": root.inclusive("forward")})
    root.find("up").self_costs.clear()
    with pytest.raises(ConservationError, match="forward costs of the modules add up to"):
        root.check({"forward": report.phases["forward"]})


def test_a_saved_report_is_the_same_report(report: attnprof.Report, tmp_path: Path) -> None:
    report.save(tmp_path / "run.json")
    again = attnprof.load(tmp_path / "run.json")
    assert again.total == report.total
    assert again.phases == report.phases
    assert again.by_module() == report.by_module()
    assert again.trace == report.trace
    assert str(again) == str(report)


def test_the_optimizer_has_a_phase_of_its_own() -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, foreach=False)
    model(torch.ones(B, 4)).sum().backward()
    with attnprof.profile(model) as prof:
        optimizer.step()
    report = prof.report()
    # p -= lr * g: a multiplication and a subtraction for each of the parameters
    assert report.phases["optimizer"].vector_flops == 2 * (4 * 6 + 6 + 6 * 2)
    assert report.by_module("optimizer")["(optimizer)"] == report.phases["optimizer"] == report.total


def test_an_empty_run() -> None:
    with attnprof.profile() as prof:
        pass
    report = prof.report()
    assert report.total == ZERO
    assert report.coverage == 1.0
    assert "nothing ran" in str(report)


def test_a_step_is_marked() -> None:
    with attnprof.profile() as prof:
        for _ in range(3):
            torch.ones(2) + torch.ones(2)
            prof.step()
    assert prof.report().trace.steps == [3, 6, 9]


def test_what_profile_and_run_refuse() -> None:
    with pytest.raises(attnprof.AttnprofError, match=r"nn\.Module or nothing, not a str"):
        attnprof.profile("gpt2")  # type: ignore[arg-type]
    with pytest.raises(attnprof.AttnprofError, match=r"run\(\) takes an nn\.Module, not a str"):
        attnprof.run("gpt2")  # type: ignore[arg-type]
    with pytest.raises(attnprof.AttnprofError, match="args must be a tuple of positional arguments, not a dict"):
        attnprof.run(Net(), {"x": torch.ones(B, 4)})  # type: ignore[arg-type]
    with pytest.raises(attnprof.AttnprofError, match="belongs inside the context"):
        attnprof.profile().report()
    frozen = Net().requires_grad_(False)
    with pytest.raises(attnprof.AttnprofError, match="nothing in the model's output"):
        attnprof.run(frozen, (torch.ones(B, 4),), backward=True)


def test_cost_arithmetic() -> None:
    a = Cost(2, 3, 2, 10, 20, (("matmul", "float32", 2), ("vector", "float32", 3)))
    b = Cost(4, 0, 1, 1, 1, (("matmul", "bfloat16", 4),))
    assert a + b == Cost(
        6, 3, 3, 11, 21, (("matmul", "bfloat16", 4), ("matmul", "float32", 2), ("vector", "float32", 3))
    )
    assert a + ZERO == ZERO + a == a
    assert 3 * a == a + a + a
    assert a.flops == 5
    assert a.useful_flops == 5
    assert a.bytes == 30
    assert a.intensity == 5 / 30
    assert ZERO.intensity == 0
    assert Cost(matmul_flops=1).intensity == float("inf")
    assert not ZERO
    assert a


def test_a_node_is_named_by_the_last_part_of_its_name(report: attnprof.Report) -> None:
    node: ModuleNode = report.root.find("down")
    assert (node.name, node.fqn, node.class_name) == ("down", "down", "Linear")
    assert report.root.name == "Net"


@pytest.mark.parametrize("question", ["by_module", "by_operator", "operator_calls"])
def test_a_phase_that_there_is_not_is_refused(report: attnprof.Report, question: str) -> None:
    """Its costs would all be zero."""
    with pytest.raises(attnprof.AttnprofError, match=r'^no phase "forwards": use forward, .* Did you mean forward'):
        getattr(report, question)("forwards")


def test_the_step_that_makes_the_optimizers_state_by_op() -> None:
    """``optimizer`` has it; ``optimizer_init`` is it alone."""
    model = nn.Linear(3, 5)
    optimizer = torch.optim.SGD(model.parameters(), momentum=0.9)
    with attnprof.profile(model) as prof:
        for _ in range(2):
            model(torch.ones(2, 3)).sum().backward()
            optimizer.step()
    report = prof.report()
    first, all_steps = report.by_operator("optimizer_init"), report.by_operator("optimizer")
    assert Cost.sum(first.values()) == report.by_module("optimizer_init")[""]
    assert Cost.sum(all_steps.values()) == report.phases["optimizer"]
    assert 0 < Cost.sum(first.values()).flops < report.phases["optimizer"].flops
    assert sum(report.operator_calls("optimizer_init").values()) < sum(report.operator_calls("optimizer").values())
