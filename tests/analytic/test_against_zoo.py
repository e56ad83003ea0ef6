"""Every module of the zoo costs what its formula says: the same integers, measured and predicted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils import _pytree

import attnprof
from analytic.drawing import DRAWN, Symbols
from attnprof import analytic, zoo
from attnprof.analysis.report import Report
from attnprof.analytic.prediction import KINDS
from attnprof.analytic.theory import PHASES
from zoo.checks import differentiable, shapes

every = pytest.mark.parametrize("name", sorted(DRAWN))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_every_mechanism_of_the_zoo_has_a_formula() -> None:
    assert set(zoo.names()) - set(analytic.names()) == set()
    assert set(zoo.names()) == set(DRAWN)


def built(name: str, symbols: Symbols) -> tuple[nn.Module, tuple[Any, ...]]:
    """The module of these symbols, and an input for it."""
    entry = zoo.find(name)
    made = {s: v for s, v in symbols.items() if s in entry.symbols or (entry.passes_on and s not in entry.shape)}
    return zoo.build(name, **made), zoo.inputs(name, **{s: v for s, v in symbols.items() if v is not None})


def cast(tree: Any, dtype: torch.dtype) -> Any:
    """Floating tensors of a structure in another dtype."""

    def one(value: Any) -> Any:
        return value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value

    return _pytree.tree_map(one, tree)


def measured(net: nn.Module, args: tuple[Any, ...], input_grad: bool = True) -> Report:
    return attnprof.run(net, differentiable(args) if input_grad else args, backward=True, strict=True)


def assert_agree(report: Report, theory: analytic.Prediction, net: nn.Module) -> None:
    """Matmul FLOPs of each phase, parameters and saved bytes."""
    for phase in ("forward", "backward", "recompute"):
        assert theory.evaluate("matmul_flops", phase) == report.phases[phase].matmul_flops, phase
    assert theory.evaluate("parameters") == sum(p.numel() for p in net.parameters())
    trained = sum(p.numel() for p in net.parameters() if p.requires_grad)
    assert theory.evaluate("trainable_parameters") == trained
    assert report.memory is not None
    assert theory.evaluate("saved_bytes") == report.memory.saved_bytes


def inside(report: Report, phase: str, quantity: str) -> int:
    """What the model did, without what autograd does for the caller: it gives a gradient of x the layout of x."""
    outside = report.root.find("(outside)").own(phase)
    return int(getattr(report.phases[phase], quantity) - getattr(outside, quantity))


def of_idle_experts(report: Report) -> int:
    """The closed form of a bias's gradient has an addition less than rows; of no rows there is none to take off."""
    found = 0
    for node in report.root.walk():
        for (phase, signature), calls in node.self_ops.items():
            op = report.priced[signature].signature
            if phase == "backward" and op.op == "aten.sum.dim_IntList" and op.outs[0].numel and not op.inputs[0].numel:
                found += calls * op.inputs[0].shape[-1]
    return found


def assert_work(report: Report, theory: analytic.Prediction) -> None:
    """Vector FLOPs and traffic, where they have a closed form."""
    for phase in PHASES:
        for kind in KINDS:
            if theory.work(kind, phase) is not None:
                for quantity in KINDS[kind]:
                    found = theory.evaluate(quantity, phase)
                    if (quantity, phase) == ("vector_flops", "backward"):
                        found += of_idle_experts(report)
                    assert found == inside(report, phase, quantity), (quantity, phase)


@every
def test_measured_is_predicted(name: str) -> None:
    """A few sizes; ``test_random_shapes.py`` has many."""
    for at in shapes(40, 3):
        symbols = DRAWN[name](at)
        net, args = built(name, symbols)
        report, theory = measured(net, args), analytic.predict(name, **symbols)
        assert_agree(report, theory, net)
        assert_work(report, theory)


@every
@pytest.mark.parametrize(("dtype", "e"), [(torch.bfloat16, 2), (torch.float64, 8)])
def test_bytes_in_other_precisions(name: str, dtype: torch.dtype, e: int) -> None:
    """What stays in float32, positions and masks do not scale with e."""
    for at in shapes(43, 1):
        symbols = DRAWN[name](at)
        net, args = built(name, symbols)
        report, theory = measured(net.to(dtype), cast(args, dtype)), analytic.predict(name, **symbols, e=e)
        assert report.memory is not None
        assert theory.evaluate("saved_bytes") == report.memory.saved_bytes
        assert_work(report, theory)


#: Where a module's parts are not called what they are.
ELSEWHERE = {"q_down": "q_down.0", "q_norm": "q_down.1"}


def freeze(net: nn.Module, weight: str) -> None:
    """By the name of a parameter, or of the layer that owns it; all of several alike, experts.3.up as experts.up."""
    weight = ELSEWHERE.get(weight, weight)
    named = {re.sub(r"(experts|blocks|layers)\.\d+", r"\1", name): [] for name, _ in net.named_parameters()}
    for name, parameter in net.named_parameters():
        named[re.sub(r"(experts|blocks|layers)\.\d+", r"\1", name)].append(parameter)
    found = [p for name, group in named.items() if name == weight or name.startswith(f"{weight}.") for p in group]
    assert found
    for parameter in found:
        parameter.requires_grad_(False)


def some_weights(name: str, symbols: Symbols, at: Random, input_grad: bool) -> list[str] | None:
    """Weights to freeze, so that something needs a gradient; None where nothing can."""
    weights = sorted({t.name for t in analytic.predict(name, **symbols).terms if t.quantity == "parameters"})
    if not weights and not input_grad:
        return None
    frozen = [weight for weight in weights if at.random() < 0.5]
    while frozen and not input_grad:
        if analytic.predict(name, **symbols, frozen=frozen).evaluate("trainable_parameters"):
            break
        frozen.pop()
    return frozen


@every
@pytest.mark.parametrize("input_grad", [True, False])
def test_frozen_weights(name: str, input_grad: bool) -> None:
    """Any weights frozen, inputs with or without a gradient: the backward and what is saved are predicted."""
    for at in shapes(42, 2):
        symbols = DRAWN[name](at)
        if symbols.get("checkpoint") == "reentrant" and not input_grad:
            symbols["checkpoint"] = None  # it trains nothing then
        net, args = built(name, symbols)
        frozen = some_weights(name, symbols, at, input_grad)
        if frozen is None:
            continue
        for weight in frozen:
            freeze(net, weight)
        theory = analytic.predict(name, **symbols, frozen=frozen, input_grad=input_grad)
        report = measured(net, args, input_grad)
        assert_agree(report, theory, net)
        assert_work(report, theory)


@pytest.mark.parametrize("mixer", ["diagonal-rnn", "diagonal-rnn-hillis-steele", "diagonal-rnn-brent-kung"])
@pytest.mark.parametrize("T", [1, 2])
def test_a_recurrence_of_one_step_trains_no_decay(mixer: str, T: int) -> None:
    """With one position the decay is not used, and a first layer whose decay alone is trained has no backward."""
    symbols = {"B": 2, "T": T, "d": 4, "L": 1, "f": 6, "mixer": mixer}
    net, args = built("transformer", symbols)
    frozen = ("blocks.norm_1", "blocks.norm_2", "blocks.ffn.down")
    for weight in frozen:
        freeze(net, weight)
    theory = analytic.predict("transformer", **symbols, frozen=frozen, input_grad=False)
    assert_agree(measured(net, args, input_grad=False), theory, net)
