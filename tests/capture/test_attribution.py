"""Every op is charged to the innermost module that ran it, every backward op to the module of its forward."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn

import attnprof
from attnprof.core.cost import Cost
from attnprof.core.errors import ConservationError
from capture.nets import NETS, ROWS, UNIT, WIDTH, Aliased, Chain, Net, both, rows, units


def counted(net: Net, steps: int = 1) -> attnprof.Report:
    with attnprof.profile(net) as prof:
        for _ in range(steps):
            net.step()
    return prof.report()


@pytest.mark.parametrize("kind", NETS, ids=lambda kind: kind.__name__)
def test_net(kind: type[Net]) -> None:
    net = kind()
    report = counted(net)
    assert units(report) == net.expected
    assert report.total.matmul_flops == UNIT * sum(sum(phases.values()) for phases in net.expected.values())


@pytest.mark.parametrize("kind", NETS, ids=lambda kind: kind.__name__)
def test_a_second_step_counts_the_same_again(kind: type[Net]) -> None:
    net = kind()
    once, twice = units(counted(net)), units(counted(net, steps=2))
    assert twice == {name: {p: 2 * n for p, n in phases.items()} for name, phases in once.items()}


@pytest.mark.parametrize("kind", NETS, ids=lambda kind: kind.__name__)
def test_without_a_model_names_start_at_the_class(kind: type[Net]) -> None:
    """``profile()`` without a model: everything the net's own lies below a line with its class name."""
    net = kind()
    with attnprof.profile() as prof:
        net.step()
    top = f"({kind.__name__})"
    outside = {"(outside)", *(name for name in net.expected if name.startswith(("(Criterion)", "(Hooked)")))}
    names = {name: name if name in outside else f"{top}.{name}" if name else top for name in net.expected}
    assert units(prof.report()) == {names[name]: phases for name, phases in net.expected.items()}


def test_aliases_find_the_module() -> None:
    report = counted(Aliased())
    node = report.root.find("other")
    assert node.fqn == "first"
    assert node.aliases == ("other",)
    assert node.calls == 2


def test_a_parameter_that_was_replaced_is_nobodys() -> None:
    """What its hook runs is outside; the module it was taken from has another weight now."""
    net = Chain()
    old = net.first.weight

    def accumulated(parameter: Tensor) -> None:
        _ = parameter.grad @ parameter.grad

    old.register_post_accumulate_grad_hook(accumulated)
    with attnprof.profile(net) as prof:
        net.first.weight = nn.Parameter(torch.randn(WIDTH, WIDTH))
        (net(rows()) @ old).sum().backward()
    # A product with it in no module: 1 forward, 2 backward, and the hook's own.
    assert units(prof.report()) == {**Chain.expected, "(outside)": both(1, 2 + Fraction(WIDTH, ROWS))}


def test_calls_are_counted_per_module() -> None:
    report = counted(Chain(), steps=3)
    assert {node.fqn: node.calls for node in report.root.walk() if node.calls} == {"": 3, "first": 3, "second": 3}


def test_one_report_inside_the_context_and_one_after() -> None:
    net = Chain()
    with attnprof.profile(net) as prof:
        net.step()
        inside = units(prof.report())
        net.step()
    assert inside == net.expected
    assert units(prof.report()) == {name: both(2, 4) for name in ("first", "second")}


def test_inclusive_costs_are_self_costs_added_up() -> None:
    net = nn.Sequential(Chain(), nn.Sequential(Chain()))
    with attnprof.profile(net) as prof:
        net(rows()).sum().backward()
    report = prof.report()
    inclusive = {name: cost.matmul_flops for name, cost in report.by_module("backward").items()}
    assert inclusive["0.first"] == 2 * UNIT
    assert inclusive["0"] == inclusive["1"] == inclusive["1.0"] == 4 * UNIT
    assert inclusive[""] == report.phases["backward"].matmul_flops == 8 * UNIT
    assert report.root.inclusive("backward").matmul_flops == 8 * UNIT


@pytest.mark.parametrize("phase", ["forward", "backward"])
@pytest.mark.parametrize("change", [Cost(matmul_flops=1), Cost(read_bytes=1), Cost(vector_flops=-1)])
def test_the_conservation_law_sees_a_corrupted_tree(phase: str, change: Cost) -> None:
    report = counted(Chain())
    report.root.check(report.phases)
    node = report.root.find("first")
    node.self_costs[phase] = node.own(phase) + change
    with pytest.raises(ConservationError, match=f"the {phase} costs of the modules"):
        report.root.check(report.phases)


def test_the_conservation_law_sees_a_lost_branch() -> None:
    report = counted(Chain())
    report.root.children = [child for child in report.root.children if child.fqn != "second"]
    with pytest.raises(ConservationError):
        report.root.check(report.phases)


def test_the_conservation_law_sees_a_cost_booked_to_another_phase() -> None:
    report = counted(Chain())
    node = report.root.find("first")
    node.self_costs["recompute"] = node.self_costs.pop("backward")
    with pytest.raises(ConservationError):
        report.root.check(report.phases)
