"""Real models and every mechanism of the zoo: what theory says of each module is what was measured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import attnprof
from analytic.drawing import DRAWN
from analytic.test_against_zoo import built
from attnprof import analytic, zoo
from attnprof.analysis.comparison import PredictionError
from attnprof.analysis.report import Report
from models import shrinking
from models.configs import CASES
from zoo.checks import differentiable, shapes

#: Mixers without a formula bound to them: what they contract beside their layers is named.
UNKNOWN = ("mamba", "mamba-wide")
KNOWN = sorted(set(CASES) - set(UNKNOWN))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def assert_predicted(report: Report) -> None:
    """Every module and phase has a comparison, and none a residual."""
    theory = report.theory
    assert set(theory.predicted) == set(theory.modules)
    assert theory.reasons == {}
    assert [c for c in theory.comparisons if c.residual or c.ops] == []
    compared = {(c.module, c.phase): c.measured for c in theory.comparisons if c.quantity == "matmul_flops"}
    for phase in ("forward", "backward", "recompute"):
        for module, cost in report.by_module(phase).items():
            if module in theory.modules:
                assert compared.get((module, phase), 0) == cost.matmul_flops


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("training", [True, False])
def test_models_of_transformers(name: str, training: bool) -> None:
    torch.manual_seed(0)
    case = CASES[name]
    model = case.build().train(training)
    assert_predicted(attnprof.run(model, kwargs=case.inputs(), backward=True, strict_prediction=True))


@pytest.mark.parametrize("name", ["gpt2", "llama", "t5"])
def test_frozen_layers_have_no_gradient(name: str) -> None:
    """The first half of the parameters is frozen, and so is what only they would need."""
    case = CASES[name]
    model = case.build()
    for parameter in list(model.parameters())[: len(list(model.parameters())) // 2]:
        parameter.requires_grad_(False)
    assert_predicted(attnprof.run(model, kwargs=case.inputs(), backward=True))


@pytest.mark.parametrize("name", UNKNOWN)
def test_ops_that_no_formula_accounts_for_are_named(name: str) -> None:
    """A Mamba mixer contracts beside the layers it calls: taps, states with outputs, and dt_proj's matrix."""
    case = CASES[name]
    report = attnprof.run(case.build(), kwargs=case.inputs())
    mixers = [c for c in report.comparisons if c.module.endswith(".mixer") and c.phase == "forward"]
    assert mixers
    for found in mixers:
        assert found.residual == sum(op.amount for op in found.ops) > 0
        assert {op.op for op in found.ops} == {"aten.convolution.default", "aten.bmm.default", "aten.mm.default"}
        assert found.module not in report.theory.predicted
    with pytest.raises(PredictionError, match=r"mixer has .* forward matmul FLOPs, of which no formula covers "):
        report.theory.require_exact()


def test_a_saved_run_is_compared_without_the_model(tmp_path: Path) -> None:
    case = CASES["whisper"]
    report = attnprof.run(case.build(), kwargs=case.inputs(), backward=True)
    report.save(tmp_path / "run.json")
    assert attnprof.load(tmp_path / "run.json").comparisons == report.comparisons


# The zoo


@pytest.mark.parametrize("name", sorted(DRAWN))
def test_every_mechanism_has_its_formula(name: str) -> None:
    """At the root: matmul FLOPs of every phase, parameters, saved bytes, all by the formula of its name."""
    for at in shapes(80, 3):
        symbols = DRAWN[name](at)
        net, args = built(name, symbols)
        report = attnprof.run(net, differentiable(args), backward=True, strict_prediction=True)
        found = {(c.quantity, c.phase): c for c in report.comparisons if c.module == ""}
        assert {c.formula for c in found.values()} == {name}
        assert ("matmul_flops", "forward") in found or report.total.matmul_flops == 0
        assert found["parameters", ""].measured == sum(p.numel() for p in net.parameters())
        assert [c for c in report.comparisons if c.residual] == []
        assert set(report.theory.predicted) == set(report.theory.modules)


@pytest.mark.parametrize("name", ["mha", "gqa-sdpa", "mla", "performer", "longformer", "moe", "hybrid"])
def test_mechanisms_anywhere_in_a_tree(name: str) -> None:
    """Called twice with different shapes, once without a gradient of its input."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = zoo.build(name, d=8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.part(self.part(x)[:, :6])
            return y

    report = attnprof.run(Twice(), (torch.randn(2, 9, 8),), backward=True, strict_prediction=True)
    assert {c.formula for c in report.comparisons if c.module == "part"} == {name}
    expected = sum(
        attnprof.predict(name, B=2, T=T, **symbols_of(name)).evaluate("matmul_flops", "forward") for T in (9, 6)
    )
    assert report.phases["forward"].matmul_flops == expected


def symbols_of(name: str) -> dict[str, int]:
    """The symbols that a mechanism has when it is built with nothing but d = 8."""
    found = {**zoo.find(name).symbols, "d": 8}
    known = analytic.find(name).symbols
    return {symbol: value for symbol, value in found.items() if symbol in known and value is not None}


def test_frozen_mechanisms() -> None:
    """A frozen query projection: no dW of it, and no dX where the input needs none."""
    net = zoo.build("mha", d=8, H=2)
    net.q_proj.weight.requires_grad_(False)
    report = attnprof.run(net, (torch.randn(2, 5, 8),), backward=True, strict_prediction=True)
    product, scores = 2 * 2 * 5 * 8 * 8, 2 * 2 * 5 * 5 * 8
    # dW of k, v and the output matrix, dX of the output matrix; dv, dp and dk: q is constant.
    (backward,) = [c for c in report.comparisons if (c.module, c.phase, c.kind) == ("", "backward", "matmul")]
    assert backward.predicted == backward.measured == 4 * product + 3 * scores


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "model_type", ["bart", "cohere2", "distilbert", "electra", "gemma3", "gptj", "mt5", "opt", "phi", "roberta"]
)
def test_attention_of_other_models(model_type: str) -> None:
    torch.manual_seed(0)
    model = shrinking.build(model_type)
    report = attnprof.run(model, kwargs=shrinking.inputs(model), backward=True, strict_prediction=True)
    assert_predicted(report)
    assert "attention between heads" in {c.formula for c in report.comparisons}
