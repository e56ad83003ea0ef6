"""Measured against predicted: which calls count, what a sum is made of, what is named, what is left out."""
# ruff: noqa: N806 (the symbols are those of the formulas)

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from sympy import Integer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import attnprof
from attnprof import zoo
from attnprof.analysis.comparison import PredictionError
from attnprof.analysis.report import Report
from attnprof.analytic.binding import Given, Recorded
from attnprof.analytic.prediction import Prediction, Term
from attnprof.core.comparison import Comparison, OpShare
from attnprof.core.signature import OpSignature
from attnprof.core.trace import Call, ParameterRecord
from reports.traces import Hand, mm, tensor

N, D, F = 4, 8, 6
PRODUCT = 2 * N * D * F


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def linear(hand: Hand, fqn: str, kinds: dict[Call, int], trainable: bool = True) -> None:
    """A recorded torch.nn.Linear of D inputs and F outputs."""
    hand.add(fqn)
    record = hand.trace.modules[hand.index(fqn)]
    record.home = "torch.nn.modules.linear"
    record.parameters = (ParameterRecord("weight", (F, D), "float32", trainable, len(hand.trace.modules)),)
    record.call_kinds = kinds


def call(rows: int = N, input_grad: bool = True, **state: bool) -> Call:
    return Call((f"float32[{rows},{D}]", f"-> float32[{rows},{F}]"), (input_grad, True), **state)


def found(report: Report, module: str = "", phase: str = "forward") -> Comparison | None:
    for comparison in report.comparisons:
        if (comparison.module, comparison.phase, comparison.quantity) == (module, phase, "matmul_flops"):
            return comparison
    return None


# By hand


def test_each_kind_of_call_counts_as_often_as_it_was_made() -> None:
    """Three calls of N rows, one of 1; a backward through two of them, of which one has a constant input."""
    hand = Hand()
    kinds = {call(): 1, call(backward=True): 1, call(input_grad=False, backward=True): 1, call(rows=1): 1}
    linear(hand, "a", kinds)
    hand.ran("a", mm(N, D, F), times=3).ran("a", mm(1, D, F)).ran("a", mm(N, D, F), "backward", times=3)
    report = Report(hand.trace)
    forward, backward = found(report, "a"), found(report, "a", "backward")
    assert forward is not None
    assert backward is not None
    assert (forward.predicted, forward.residual) == (3 * PRODUCT + 2 * D * F, 0)
    assert {t.name: t.value for t in backward.terms} == {"product.dX": PRODUCT, "product.dW": 2 * PRODUCT}
    assert backward.residual == 0


def test_a_parent_without_a_formula_is_the_sum_of_its_parts_and_names_the_rest() -> None:
    hand = Hand().add("h", "Block")
    linear(hand, "h.a", {call(): 1})
    linear(hand, "h.b", {call(): 1})
    hand.ran("h.a", mm(N, D, F)).ran("h.b", mm(N, D, F)).ran("h", mm(3, 5, 7), times=2)
    report = Report(hand.trace)
    for module in ("", "h"):
        parent = found(report, module)
        assert parent is not None
        assert (parent.formula, parent.predicted, parent.residual) == ("", 2 * PRODUCT, 2 * 2 * 3 * 5 * 7)
        assert parent.ops == (OpShare("aten.mm.default", "h", 2, 2 * 2 * 3 * 5 * 7),)
    assert [t.name for t in found(report, "h").terms] == ["a", "b"]  # type: ignore[union-attr]
    assert report.theory.modules == ("h.a", "h.b", "h", "")
    assert report.theory.predicted == ("h.a", "h.b", "")  # the root runs nothing of its own


def test_what_a_class_without_a_formula_runs_is_no_deviation_from_theory() -> None:
    """One Linear ran a product too many, its parent one of its own: the first contradicts theory, the second not."""
    hand = Hand().add("h", "Block")
    linear(hand, "h.a", {call(): 1})
    hand.ran("h.a", mm(N, D, F), times=2).ran("h", mm(3, 5, 7))
    report = Report(hand.trace)
    inner, outer = found(report, "h.a"), found(report, "h")
    assert inner is not None
    assert outer is not None
    assert (inner.residual, inner.uncovered, inner.deviation) == (PRODUCT, 0, PRODUCT)
    assert (outer.uncovered, outer.deviation) == (2 * 3 * 5 * 7, PRODUCT)
    assert outer.residual == outer.uncovered + outer.deviation


def test_a_formula_around_a_class_without_one_accounts_for_it() -> None:
    """What the outer class is predicted to do includes the product that the inner one, unknown, runs."""

    class Inner(Product):
        pass

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Inner()

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.inner(x)
            return y

    @attnprof.predicts(Outer)
    def outer(module: Recorded, call: Given) -> Prediction:
        n, d = call.input(0).shape
        flops = Integer(2 * n * d * F + 2 * n * F * n)
        return Prediction("outer", (Term("both", "forward", "matmul_flops", flops),))

    report = attnprof.run(Outer(), (torch.randn(N, D),), strict_prediction=True)
    assert found(report, "inner") is None
    assert found(report, "inner.linear") is not None
    assert_exact(report)


def test_a_measurement_below_its_formula() -> None:
    hand = Hand()
    linear(hand, "a", {call(): 2})
    hand.ran("a", mm(N, D, F))
    comparison = found(Report(hand.trace), "a")
    assert comparison is not None
    assert (comparison.measured, comparison.predicted, comparison.residual) == (PRODUCT, 2 * PRODUCT, -PRODUCT)


def test_ops_outside_every_module_are_unexplained() -> None:
    hand = Hand()
    linear(hand, "a", {call(): 1})
    hand.ran("a", mm(N, D, F)).ran(None, mm(1, 2, 3))
    root = found(Report(hand.trace))
    assert root is not None
    assert root.ops == (OpShare("aten.mm.default", "(outside)", 1, 2 * 1 * 2 * 3),)


def test_the_op_whose_amount_is_the_residual_is_named_alone() -> None:
    hand = Hand()
    linear(hand, "a", {call(): 1})
    x, w, y = tensor(2, 3, 4, ident=0), tensor(2, 4, 5, ident=1), tensor(2, 3, 5, ident=2)
    hand.ran("a", mm(N, D, F)).ran("a", OpSignature("aten.bmm.default", (("self", x), ("mat2", w)), (y,)))
    comparison = found(Report(hand.trace), "a")
    assert comparison is not None
    assert comparison.ops == (OpShare("aten.bmm.default", "a", 1, comparison.residual),)


def test_a_trace_of_before_kinds_were_recorded_has_no_predictions() -> None:
    hand = Hand()
    linear(hand, "a", {})
    hand.ran("a", mm(N, D, F))
    report = Report(hand.trace)
    assert [c.formula for c in report.comparisons] == ["", ""]


def test_a_call_that_raised_cannot_be_predicted() -> None:
    hand = Hand()
    linear(hand, "a", {call(): 1, call(returned=False): 1})
    hand.ran("a", mm(N, D, F))
    report = Report(hand.trace)
    assert found(report, "a") is None
    assert report.theory.reasons == {"a": "a call of it raised an exception"}


def test_a_layer_in_which_a_recomputation_stopped_did_not_run_again() -> None:
    """A Linear saves before it computes; where that was the last there was to save, its product does not run."""
    hand = Hand()
    stopped = Call((f"float32[{N},{D}]",), (True,), recomputed=True, returned=False)
    linear(hand, "a", {call(backward=True): 1, call(recomputed=True): 1})
    linear(hand, "b", {call(backward=True): 1, stopped: 1})
    for name in ("a", "b"):
        hand.ran(name, mm(N, D, F)).ran(name, mm(N, D, F), "backward", times=2)
    hand.ran("a", mm(N, D, F), "recompute")
    report = Report(hand.trace)
    report.theory.require_exact()
    again = found(report, "", "recompute")
    assert again is not None
    assert again.predicted == PRODUCT


@pytest.mark.parametrize(
    ("kinds", "reason"),
    [
        ({call(): 1, call(rows=7): 1}, "its recomputation stopped as soon as all that was saved was there"),
        ({}, "its recomputation stopped as soon as all that was saved was there"),
    ],
)
def test_which_call_was_repeated_has_to_be_known(kinds: dict[Call, int], reason: str) -> None:
    """What a call was given by name is not there when it stops: the one that it repeats says it."""
    hand = Hand()
    linear(hand, "a", {**kinds, Call((), (), recomputed=True, returned=False): 1})
    hand.ran("a", mm(N, D, F)).ran("a", mm(N, D, F), "recompute")
    hand.trace.modules[hand.index("a")].calls = {("float32[4,8]",): 1}
    report = Report(hand.trace)
    assert found(report, "a", "recompute") is None
    assert report.theory.reasons == {"a": reason}


# Strict


def test_strict_names_the_innermost_module_the_numbers_and_the_op() -> None:
    hand = Hand().add("h", "Block")
    linear(hand, "h.a", {call(): 1})
    hand.ran("h.a", mm(N, D, F)).ran("h", mm(100, 200, 300), times=2)
    with pytest.raises(PredictionError) as raised:
        Report(hand.trace).theory.require_exact()
    assert str(raised.value) == (
        f"h has {PRODUCT + 2 * 12_000_000:,} forward matmul FLOPs, of which no formula covers {2 * 12_000_000:,}: "
        "aten.mm.default x2 of h; attnprof.predicts gives a class a formula."
    )


def test_strict_says_which_formula_was_wrong() -> None:
    hand = Hand()
    linear(hand, "a", {call(): 2})
    hand.ran("a", mm(N, D, F))
    with pytest.raises(
        PredictionError, match=rf"^a has {PRODUCT:,} forward .* {2 * PRODUCT:,} are predicted by linear"
    ):
        Report(hand.trace).theory.require_exact()


def test_strict_asks_for_every_prediction() -> None:
    """What could not be predicted is no residual of 0."""
    packed = nn.utils.rnn.pack_padded_sequence(torch.randn(3, 2, D), torch.tensor([3, 2]))
    with pytest.raises(PredictionError, match=r"^the model is not predicted in full: its input is no tensor\.$"):
        attnprof.run(nn.LSTM(D, D), (packed,), strict_prediction=True)


class Product(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(D, F)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x)
        return y @ y.T


def test_run_is_strict_if_asked() -> None:
    x = torch.randn(N, D)
    assert attnprof.run(Product(), (x,)).total.matmul_flops == PRODUCT + 2 * N * F * N
    with pytest.raises(PredictionError, match=r"the model has .* no formula covers .*: aten\.mm\.default x1"):
        attnprof.run(Product(), (x,), strict_prediction=True)


# Runs


def assert_exact(report: Report) -> None:
    report.theory.require_exact()
    assert set(report.theory.predicted) == set(report.theory.modules)
    for phase in ("forward", "backward", "recompute"):
        root = found(report, "", phase)
        assert (0 if root is None else root.predicted) == report.phases[phase].matmul_flops


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 8)
        self.mixer = zoo.build("gqa-sdpa", d=8, H=4, Hkv=2)
        self.memory = nn.GRU(8, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.memory(self.mixer(self.mixer(self.embed(x))))[0]
        return out


def test_a_training_loop_with_other_shapes_and_calls_without_a_backward() -> None:
    model = Model()
    optimizer = torch.optim.Adam(model.parameters())
    with attnprof.profile(model) as prof:
        for length in (3, 5, 3):
            model(torch.randn(2, length, 3)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        with torch.no_grad():
            model(torch.randn(1, 9, 3))
        model(torch.randn(4, 7, 3))  # nobody differentiates this one
    assert_exact(prof.report())


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoints_that_end_in_a_recurrent_layer(reentrant: bool) -> None:
    """Reentrant repetitions run to their end; others stop, in a step that nobody knows."""
    model = nn.Sequential(nn.Linear(D, D), nn.GRU(D, F))
    x = torch.randn(N, D, requires_grad=True)
    with attnprof.profile(model) as prof:
        checkpoint(lambda t: model(t)[0], x, use_reentrant=reentrant).sum().backward()
    report = prof.report()
    for phase in ("forward", "backward"):
        root = found(report, "", phase)
        assert root is not None
        assert root.residual == 0
    assert (found(report, "", "recompute") is not None) == reentrant
    if reentrant:
        assert_exact(report)
        assert report.phases["recompute"].matmul_flops == report.phases["forward"].matmul_flops


@pytest.mark.parametrize(
    "last", [nn.Linear(F, F), nn.Conv1d(N, 3, 1), nn.ReLU(), nn.LayerNorm(F), nn.Softmax(-1)], ids=str
)
@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoints(reentrant: bool, last: nn.Module) -> None:
    """What saves its input before it runs does not run again at the end; what saves its result does."""
    model = nn.Sequential(nn.Linear(D, D), nn.GELU(), nn.Linear(D, F), last)
    x = torch.randn(N, D, requires_grad=True)
    report = attnprof.run(Checkpointed(model, reentrant), (x,), backward=True, strict_prediction=True)
    assert report.theory.reasons == {}
    assert_exact(report)
    first, second = 2 * N * D * D, 2 * N * D * F
    contracts = report.phases["forward"].matmul_flops - first - second
    again = first + second + (contracts if reentrant else 0)
    assert report.phases["recompute"].matmul_flops == again


class Checkpointed(nn.Module):
    def __init__(self, part: nn.Module, reentrant: bool = False) -> None:
        super().__init__()
        self.part, self.reentrant = part, reentrant

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = checkpoint(self.part, x, use_reentrant=self.reentrant)
        return y


@pytest.mark.parametrize("name", ["mha", "mha-sdpa", "gqa", "performer", "longformer", "mla", "ffn", "swiglu", "moe"])
def test_a_mechanism_under_a_checkpoint(name: str) -> None:
    """All of it runs again but for the last product: [18, d_in] x [d_in, 8]."""
    net = Checkpointed(zoo.build(name, d=8, **({"f": 12} if name in ("ffn", "swiglu") else {})))
    x = torch.randn(2, 9, 8, requires_grad=True)
    report = attnprof.run(net, (x,), backward=True, strict_prediction=True)
    assert report.theory.reasons == {}
    assert_exact(report)
    if name in ("mha", "gqa", "performer", "longformer"):
        assert report.phases["recompute"].matmul_flops == report.phases["forward"].matmul_flops - 2 * 18 * 8 * 8
    if name in ("ffn", "swiglu"):
        assert report.phases["recompute"].matmul_flops == report.phases["forward"].matmul_flops - 2 * 18 * 12 * 8


def test_a_checkpoint_inside_a_mechanism() -> None:
    """A plan that checkpoints a module repeats its forward within one call: its formula cannot tell how much."""
    net = nn.Sequential(*(zoo.build("mha", d=8, H=2) for _ in range(2)))
    report = attnprof.run(net, (torch.randn(2, 5, 8),), backward=True, plan=attnprof.Plan(checkpoint=["0", "1"]))
    assert report.theory.reasons["0"] == "a checkpoint inside it ran some of it again"
    assert found(report, "0", "recompute") is None
    assert [c.residual for c in report.comparisons] == [0] * len(report.comparisons)


@pytest.mark.parametrize(
    ("options", "saved"),
    [
        ({}, True),
        ({"fake": True}, True),
        ({"plan": attnprof.Plan(dtype="bf16")}, True),
        ({"plan": attnprof.Plan(autocast="bf16")}, False),
        ({"memory": False}, False),
    ],
    ids=str,
)
def test_a_mechanism_in_other_ways_of_running(options: dict[str, Any], saved: bool) -> None:
    """FLOPs are the same in each; what is saved is predicted where all is in one dtype and was followed."""
    B, T, d, H = 2, 5, 8, 2
    net = zoo.build("mha", d=d, H=H)
    report = attnprof.run(net, (torch.randn(B, T, d),), backward=True, strict_prediction=True, **options)
    assert_exact(report)
    of_model = {c.quantity: c.predicted for c in report.comparisons if c.phase == ""}
    width = 2 if "plan" in options else 4
    kept = {"saved_bytes": width * B * (5 * T * d + H * T * T)} if saved else {}
    assert of_model == {"parameters": 4 * d * d, "trainable_parameters": 4 * d * d, **kept}


def test_calls_of_several_shapes_have_no_one_number_of_saved_bytes() -> None:
    net = zoo.build("mha", d=8, H=2)
    with attnprof.profile(net) as prof:
        for length in (3, 5):
            net(torch.randn(2, length, 8)).sum().backward()
    report = prof.report()
    assert_exact(report)
    assert "saved_bytes" not in {c.quantity for c in report.comparisons}


@pytest.mark.parametrize(("rows", "every"), [(2, False), (64, True)])
def test_experts_without_a_token(rows: int, every: bool) -> None:
    """How many gradients of biases are summed depends on how many experts ran; what does not is compared still."""
    torch.manual_seed(0)
    net = zoo.build("moe", d=8, E=4, k=1, f=12)
    report = attnprof.run(net, (torch.randn(1, rows, 8, requires_grad=True),), backward=True, strict_prediction=True)
    compared = {(c.kind, c.phase) for c in report.comparisons if c.module == ""}
    assert {("matmul", "forward"), ("matmul", "backward"), ("vector", "forward")} <= compared
    assert (("vector", "backward") in compared) == every


def test_nothing_is_compared_where_nothing_ran() -> None:
    with attnprof.profile(nn.Linear(D, F)) as prof:
        pass
    assert prof.report().comparisons == []
    assert prof.report().theory.modules == ()


def test_comparing_does_not_change_a_report() -> None:
    report = attnprof.run(Model(), (torch.randn(2, 5, 3),), backward=True)
    before = report.to_csv()
    assert report.comparisons == report.comparisons
    assert report.to_csv() == before


def test_complex_numbers_have_no_closed_form() -> None:
    """A complex multiply-add is four real ones, 8 FLOPs: what was measured is there, and no formula of half of it."""
    layer = nn.Linear(D, F, dtype=torch.complex64)
    report = attnprof.run(layer, (torch.ones(N, D, dtype=torch.complex64),))
    assert report.total.matmul_flops == 8 * N * D * F
    assert report.comparisons == []
    assert "closed forms are of real numbers, and it has complex ones" in " ".join(str(report).split())
