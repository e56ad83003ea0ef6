"""Every matmul FLOP of real architectures equals the closed form of its configuration, module by module."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import attnprof
from attnprof.api import Report
from attnprof.core.cost import Cost
from models.configs import CASES, Case
from models.terms import total

PHASES = ("forward", "backward", "recompute")


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture
def model(case: Case) -> nn.Module:
    torch.manual_seed(0)
    return case.build()


def assert_books_balance(report: Report) -> None:
    """No op without a price; the modules' own costs, and the phases, add up to the total."""
    assert report.unpriced == {}
    assert report.coverage == 1
    assert Cost.sum(report.by_module(inclusive=False).values()) == report.total
    assert Cost.sum(report.phases.values()) == report.total
    report.require_priced()


def assert_closed_form(report: Report, case: Case, phases: tuple[str, ...]) -> None:
    """Every module of the tree, the whole model included, does in each phase what the terms say."""
    for phase in PHASES:
        found = report.by_module(phase)
        assert {term.module for term in case.terms} <= found.keys()
        for module, cost in found.items():
            expected = total(case.terms, phase, module) if phase in phases else 0
            assert cost.matmul_flops == expected, f"{phase} of {module or 'the model'}"
    assert report.total.matmul_flops == sum(total(case.terms, phase) for phase in phases)
    assert report.phases["optimizer"] == report.phases["other"] == Cost()


def test_training_step(case: Case, model: nn.Module) -> None:
    report = attnprof.run(model.train(), kwargs=case.inputs(), backward=True)
    assert_books_balance(report)
    assert_closed_form(report, case, PHASES)
    assert report.model_flops == total(case.terms, "forward") + total(case.terms, "backward")


def test_forward_is_the_same_in_every_grad_mode(case: Case, model: nn.Module) -> None:
    inputs = case.inputs()
    model.eval()
    with_graph = attnprof.run(model, kwargs=inputs)
    with torch.no_grad():
        without_graph = attnprof.run(model, kwargs=inputs)
    with torch.inference_mode():
        inference = attnprof.run(model, kwargs=inputs)
    for report in (with_graph, without_graph, inference):
        assert_books_balance(report)
        assert_closed_form(report, case, ("forward",))
    assert without_graph.total == inference.total


def test_fake_run_counts_what_the_real_run_does(case: Case, model: nn.Module) -> None:
    if case.name == "mixtral":
        model = model.to(torch.bfloat16)  # the one dtype in which torch's grouped matmul has a fake kernel
    report = attnprof.run(model.train(), kwargs=case.inputs(), backward=True, fake=True)
    assert_books_balance(report)
    assert_closed_form(report, case, PHASES)


@pytest.mark.parametrize("fake", [False, True])
@pytest.mark.parametrize("name", ["gpt2", "llama", "llama-mqa", "bert"])
def test_a_mask_of_ones_changes_no_matmul_flop(name: str, fake: bool) -> None:
    """A real run sees that the mask hides nothing and drops it; a fake run cannot, and takes another path."""
    case = CASES[name]
    torch.manual_seed(0)
    model, inputs = case.build().train(), case.inputs()
    masked = inputs | {"attention_mask": torch.ones_like(inputs["input_ids"])}
    assert_closed_form(attnprof.run(model, kwargs=masked, backward=True, fake=fake), case, PHASES)


def test_experts_in_a_loop_cost_what_grouped_experts_do() -> None:
    case = CASES["mixtral-few-rows"]
    torch.manual_seed(0)
    grouped, looped = case.build(), case.build()
    looped.set_experts_implementation("eager")
    inputs = case.inputs()
    default = attnprof.run(grouped.train(), kwargs=inputs, backward=True)
    loop = attnprof.run(looped.train(), kwargs=inputs, backward=True)
    assert "aten._grouped_mm.default" in default.by_operator()
    assert "aten._grouped_mm.default" not in loop.by_operator()
    assert_closed_form(loop, case, PHASES)


def test_the_cases_tell_their_sizes_apart() -> None:
    """Two cases of one architecture differ in every phase, so a count that ignores a size cannot fit both."""
    by_name: dict[str, set[int]] = {}
    for case in CASES.values():
        by_name.setdefault(case.name, set()).add(total(case.terms, "forward"))
    assert len(by_name) == 8
    assert all(len(counts) >= 2 for counts in by_name.values())
