"""Every difference is taken apart into causes that add up to it, and nothing is left without one."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from torch import nn
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

import attnprof
from attnprof.analysis.crosscheck import checked
from attnprof.core.crosscheck import Crosscheck, Reading, Said
from crosscheck.models import MODELS, Named, Shared, report_of


def is_explained(check: Crosscheck) -> None:
    assert check.problem == ""
    for module in check.modules.values():
        assert sum(cause.flops for cause in module.causes) == module.difference
        assert module.theirs - module.ours == module.difference
        assert module.of_kind("unexplained") == 0
        for cause in module.causes:
            assert sum(part.flops for part in cause.parts) == cause.flops
    assert check.unexplained == 0


@pytest.mark.parametrize("name", MODELS)
def test_every_flop_of_a_difference_has_a_cause(name: str) -> None:
    report = report_of(name)
    assert [check.tool for check in report.crosschecks] == ["fvcore", "torch"]
    for check in report.crosschecks:
        is_explained(check)


@pytest.mark.parametrize("name", MODELS)
def test_torch_says_what_it_says_to_anyone(name: str) -> None:
    """The numbers are those of the counter run by itself, by module, over the same ops."""
    torch.manual_seed(0)
    model, args = MODELS[name]()
    check = report_of(name).crosschecks[1]
    with FlopCounterMode(display=False) as alone:
        output = model(*args)
        # As of a loss: what the output itself is given, this counter books to no module.
        total = sum(t.sum() for t in tree_leaves(output) if isinstance(t, torch.Tensor))
        torch.autograd.backward([total], [torch.ones_like(total)])
    assert check.total is not None
    assert check.total.said == check.total.theirs == alone.get_total_flops()
    names = {record: f"{type(model).__name__}.{record}" for record, _ in model.named_modules()}
    for module, theirs in names.items():
        if theirs in alone.flop_counts and module in check.modules and name != "shared":
            assert check.modules[module].said == sum(alone.flop_counts[theirs].values())


@pytest.mark.parametrize("name", [n for n in MODELS if n not in ("dict out",)])
def test_fvcore_says_what_it_says_to_anyone(name: str) -> None:
    torch.manual_seed(0)
    model, args = MODELS[name]()
    check = report_of(name).crosschecks[0]
    alone = FlopCountAnalysis(model, args)
    alone.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    for module, said in alone.by_module().items():
        if module in check.modules:
            assert check.modules[module].said == said
    assert "" in check.modules


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", ["encoder layer, eval", "MHA", "SDPA", "GRU"])
def test_without_gradients_torch_runs_whole_layers_as_one_op(name: str, mode: Any) -> None:
    model, args = MODELS[name]()
    with mode():
        for check in attnprof.crosscheck(model.eval(), args).crosschecks:
            is_explained(check)


def test_what_is_said_to_be_convention_is_what_attnprof_counts_beside_contractions() -> None:
    """Where torch knows every contraction, the two differ by the vector FLOPs alone."""
    model, args = MODELS["mlp"]()
    (check,) = attnprof.crosscheck(model, args, tools=["torch"], backward=True).crosschecks
    for module in check.modules.values():
        assert module.theirs == module.matmul
        assert module.of_kind("convention") == -module.vector == module.difference


def test_a_number_that_nobody_can_explain_is_not_explained() -> None:
    """The last line of the account is not always 0."""
    model = nn.Sequential(nn.Linear(4, 8, bias=False))
    report = attnprof.run(model, (torch.randn(3, 4),))
    said = Said("aten.mm", 2 * 3 * 4 * 8, frozenset({"", "0"}))
    amounts = {"": {"aten.mm": 2 * 3 * 4 * 8 + 7}, "0": {"aten.mm": 2 * 3 * 4 * 8}}
    formulas = [2 * 3 * 4 * 8 if op.packet == "aten.mm" else None for op in report.trace.signatures]
    check = checked(report, Reading("torch", "", amounts, said=(said,)), formulas)
    assert check.unexplained == 7
    assert check.total is not None
    assert [(c.kind, c.flops) for c in check.total.causes] == [("unexplained", 7)]
    assert check.modules["0"].causes == ()


def test_a_wrong_formula_that_is_not_known_is_not_explained() -> None:
    model = nn.Sequential(nn.Linear(4, 8, bias=False))
    report = attnprof.run(model, (torch.randn(3, 4),))
    wrong = 3 * 4 * 8  # as if a multiply-add were one
    amounts = {"": {"aten.mm": wrong}, "0": {"aten.mm": wrong}}
    said = Said("aten.mm", wrong, frozenset({"", "0"}))
    formulas = [wrong if op.packet == "aten.mm" else None for op in report.trace.signatures]
    check = checked(report, Reading("torch", "", amounts, said=(said,)), formulas)
    assert check.unexplained == 2 * 3 * 4 * 8 - wrong


def test_a_call_that_only_one_run_made_is_said_to_be_one() -> None:
    """The counter's run had a second product of other sizes: both runs' calls are named."""
    model = nn.Sequential(nn.Linear(4, 8, bias=False))
    report = attnprof.run(model, (torch.randn(3, 4),))
    ours, other = 2 * 3 * 4 * 8, 2 * 5 * 6 * 7
    amounts = {"": {"aten.mm": ours + other}, "0": {"aten.mm": ours + other}}
    first = Said("aten.mm", other, frozenset({"", "0"}))
    formulas = [ours if op.packet == "aten.mm" else None for op in report.trace.signatures]
    check = checked(report, Reading("torch", "", amounts, said=(first, replace(first, amount=ours))), formulas)
    assert check.unexplained == 0
    assert [(c.kind, c.flops) for c in check.modules["0"].causes] == [("path", other)]


def test_arguments_by_name_that_are_no_tensors_and_outputs_that_are_no_tuples() -> None:
    kwargs: dict[str, Any] = {"scale": 3.0, "mask": torch.ones(2, 4)}
    report = attnprof.crosscheck(Named(), (torch.randn(2, 4),), kwargs)
    for check in report.crosschecks:
        is_explained(check)
        assert check.modules["a"].theirs == 2 * 2 * 4 * 4


def test_a_shared_module_is_one_module_with_both_counters() -> None:
    """Three calls of the Linear: fvcore books them to the first of its names, as attnprof does."""
    fvcore, torch_ = attnprof.crosscheck(Shared(), (torch.randn(2, 4),)).crosschecks
    assert fvcore.modules["a"].theirs == torch_.modules["a"].theirs == 3 * (2 * 2 * 4 * 4)
    assert fvcore.modules["c"].theirs == 0
    assert torch_.modules["c"].theirs == 2 * 2 * 4 * 4  # the call from inside the Sequential
    (gained,) = [cause for cause in torch_.modules["c"].causes if cause.kind == "attribution"]
    assert [(part.place, part.calls, part.flops) for part in gained.parts] == [("a", 1, 2 * 2 * 4 * 4)]


@pytest.fixture(autouse=True)
def fvcore_does_not_speak(caplog: pytest.LogCaptureFixture) -> Any:
    """Its warnings about ops are in the causes, and not on anyone's terminal."""
    yield
    assert not logging.getLogger("fvcore.nn.jit_analysis").disabled
