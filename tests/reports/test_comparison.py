"""Theory in the table: a cell for each row, a sentence for the run, and how the column gives way."""

from __future__ import annotations

import json

import pytest
import torch
from sympy import Integer
from torch import Tensor, nn

import attnprof
from attnprof.analysis.comparison import PredictionError
from attnprof.analysis.report import Report
from attnprof.analytic.binding import Given, Recorded
from attnprof.analytic.prediction import Term
from attnprof.core.comparison import OpShare
from attnprof.core.trace import Call, ParameterRecord
from attnprof.core.units import Units
from attnprof.reports.comparison import difference, sentences
from attnprof.reports.table import render
from reports.traces import Hand, mm

N, D = 4, 100


class Block(nn.Module):
    """Two layers, and a product of its own: 2 N D N."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.act, self.down = nn.Linear(D, D), nn.GELU(), nn.Linear(D, D)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.down(self.act(self.up(x)))
        return (h @ x.T) @ x


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.head = nn.Linear(D, D)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        y: Tensor = self.head(x)
        return y


@pytest.fixture(scope="module")
def report() -> attnprof.Report:
    return attnprof.run(Net(), (torch.randn(N, D),))


#: h xᵀ and its product with x, in each block.
OWN = 2 * (2 * N * D * N)


def row(text: str, name: str) -> str:
    (line,) = [line for line in text.splitlines() if line.lstrip("│├└─ ").split("  ")[0] == name]
    return line


def test_rows_say_whether_theory_agrees_and_else_which_op_differs(report: attnprof.Report) -> None:
    text = render(report, width=150)
    assert row(text, "blocks.[0-2] x3").endswith(f"not predicted: {Units().text(3 * OWN, 'matmul')} in mm x6")
    assert row(text, "Net").endswith(f"not predicted: {Units().text(3 * OWN, 'matmul')} inside")
    for name in ("up", "act", "down", "head"):
        assert row(text, name).endswith("= theory")
    assert "theory" not in row(text, "(own ops)")


def test_on_a_narrow_terminal_ops_go_first_and_then_the_column(report: attnprof.Report) -> None:
    widths = range(150, 40, -1)
    texts = {width: render(report, width=width) for width in widths}
    with_ops = [w for w in widths if " in mm x6" in row(texts[w], "blocks.[0-2] x3")]
    there = [w for w in widths if "= theory" in texts[w]]
    assert 41 not in there
    assert set(with_ops) < set(there)
    for width in set(there) - set(with_ops):
        assert row(texts[width], "blocks.[0-2] x3").endswith(f"not predicted: {Units().text(3 * OWN, 'matmul')}")
    for width, text in texts.items():
        assert max(map(len, text.splitlines())) <= width


def test_a_run_in_a_sentence(report: attnprof.Report) -> None:
    """The blocks are not predicted; their nine parts, the head and the model are."""
    residual = Units().named(3 * OWN, "matmul")
    expected = "theory: 11 of 14 modules predicted, residual 0; not predicted, for want of a formula: "
    expected += f"{residual} in mm x6, of blocks.[0-2]"
    assert sentences(report, Units()) == [expected]
    assert expected in render(report, width=200)


def test_a_run_that_theory_explains() -> None:
    report = attnprof.run(nn.Sequential(nn.Linear(D, D), nn.ReLU()), (torch.randn(N, D),), backward=True)
    assert sentences(report, Units()) == ["theory: 3 of 3 modules predicted, residual 0"]
    text = render(report, width=120)
    assert text.count("= theory") == 3


def test_a_formula_that_a_run_contradicts_is_told_apart_from_none() -> None:
    """A Linear that ran its product twice, beside a module without a formula that ran one."""
    hand = Hand()
    hand.add("h", "Block").add("h.a")
    record = hand.trace.modules[hand.index("h.a")]
    record.home = "torch.nn.modules.linear"
    record.parameters = (ParameterRecord("weight", (3, 2), "float32", True, 1),)
    record.call_kinds = {Call(("float32[4,2]", "-> float32[4,3]"), (True, True)): 1}
    record.calls = {("float32[4,2]", "-> float32[4,3]"): 1}
    hand.ran("h.a", mm(4, 2, 3), times=2).ran("h", mm(5, 6, 7))
    product, own = 2 * 4 * 2 * 3, 2 * 5 * 6 * 7
    report = Report(hand.trace)
    text = render(report, width=150)
    assert row(text, "a").endswith(f"+{product} in mm x2")
    assert row(text, "h").endswith(f"+{product + own} inside")
    assert "not predicted" not in text


def test_a_model_of_which_theory_knows_nothing_has_no_column() -> None:
    hand = Hand().add("a", "Mine")
    hand.ran("a", mm(2, 3, 4))
    report = Report(hand.trace)
    assert sentences(report, Units()) == []
    assert "predicted" not in render(report, width=200)
    assert "theory" not in render(report, width=200)


def test_what_is_not_predicted_has_its_reason() -> None:
    packed = nn.utils.rnn.pack_padded_sequence(torch.randn(3, 2, D), torch.tensor([3, 2]))
    report = attnprof.run(nn.LSTM(D, D), (packed,))
    assert sentences(report, Units()) == [
        "theory: 0 of 1 modules predicted",
        "Not predicted in full: LSTM: its input is no tensor.",
    ]


def test_phases_that_are_not_shown_are_not_compared(report: attnprof.Report) -> None:
    assert "= theory" in render(report, width=150, phase="forward")
    assert "= theory" not in render(report, width=150, phase="backward")


@pytest.mark.parametrize(
    ("residual", "ops", "units", "expected"),
    [
        (2_100_000_000, {"aten.bmm.default": 12}, Units(), "+2.10 G in bmm x12"),
        (-3, {"aten.mm.default": 1}, Units(), "-3 in mm x1"),
        (10, {"mylib.op.default": 1200, "aten.mm.default": 1}, Units(), "+10 in mylib.op x1,200 and 1 more"),
        (10, {"aten.mm.default": 1}, Units(macs=True), "+5 in mm x1"),
        (2_100_000_000, {}, Units(exact=True), "+2,100,000,000"),
        (
            1,
            {"aten._scaled_dot_product_flash_attention_for_cpu.default": 1},
            Units(),
            "+1 in _scaled_dot…tion_for_cpu x1",
        ),
    ],
)
def test_a_difference(residual: int, ops: dict[str, int], units: Units, expected: str) -> None:
    assert difference(residual, [OpShare(op, "a", calls, 1) for op, calls in ops.items()], units) == expected


def test_other_formats(report: attnprof.Report) -> None:
    (markdown,) = [line for line in report.to_markdown().splitlines() if line.startswith("| ") and "head" in line]
    assert "= theory" in markdown
    assert "= theory" in report.to_latex()
    comparisons = json.loads(report.to_json())["comparisons"]
    head = next(c for c in comparisons if c["module"] == "head")
    assert (head["formula"], head["phase"], head["quantity"]) == ("linear", "forward", "matmul_flops")
    assert head["measured"] == head["predicted"] == head["terms"][0]["value"] == 2 * N * D * D
    assert head["residual"] == 0
    assert [c["residual"] for c in comparisons if c["module"] == "blocks.1"] == [OWN]


class Biased(nn.Module):
    """Predicted without its bias: N D additions that theory does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(D, D)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x)
        return y


@attnprof.predicts(Biased)
def biased(module: Recorded, call: Given) -> attnprof.Prediction:
    terms = [Term("product", "forward", "matmul_flops", Integer(2 * N * D * D))]
    return attnprof.Prediction("biased", (*terms, Term("bias", "forward", "vector_flops", Integer(0))))


def test_a_residual_of_vector_flops_is_named_where_theory_states_them() -> None:
    for model, name in ((Biased(), "Biased"), (nn.Sequential(Biased()), "0")):
        report = attnprof.run(model, (torch.randn(N, D),))
        (vector,) = [c for c in report.comparisons if c.kind == "vector"]
        assert (vector.residual, [op.op for op in vector.ops]) == (N * D, ["aten.addmm.default"])
        text = render(report, width=150)
        assert row(text, name).endswith(f"vector +{N * D} in addmm x1")
        assert row(text, "linear").endswith("= theory")
        with pytest.raises(PredictionError, match="forward vector FLOPs"):
            report.theory.require_exact()
    of_model = sentences(attnprof.run(Biased(), (torch.randn(N, D),)), Units())
    assert of_model == [f"theory: 2 of 2 modules predicted, residual 0, forward vector FLOPs +{N * D} FLOP in addmm x1"]
