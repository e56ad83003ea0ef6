"""Torch's layers as they were recorded: their closed forms, by hand, and what a run measures, are the same integers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attnprof
from attnprof.analysis.comparison import PredictionError
from attnprof.analysis.report import Report
from attnprof.analytic.binding import Given, Input, Recorded, binding
from attnprof.analytic.theory import theory
from attnprof.core.errors import AttnprofError
from attnprof.core.trace import Call, ParameterRecord
from zoo.checks import differentiable, shapes

B, T, S, D, F = 2, 5, 3, 8, 6


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def measured(net: nn.Module, *args: Any, input_grad: bool = True, backward: bool = True, **kwargs: Any) -> Report:
    given = differentiable(args) if input_grad else args
    return attnprof.run(net, given, kwargs, backward=backward, strict=True, strict_prediction=True)


def predicted(report: Report, phase: str, module: str = "") -> int:
    """What theory says of a module, which has a formula."""
    found = [c for c in report.comparisons if (c.module, c.phase, c.quantity) == (module, phase, "matmul_flops")]
    assert len(found) == 1
    assert found[0].formula
    assert found[0].predicted == sum(term.value for term in found[0].terms)
    return found[0].predicted


@pytest.mark.parametrize("input_grad", [True, False])
@pytest.mark.parametrize("trained", [True, False])
def test_linear(input_grad: bool, trained: bool) -> None:
    """2 N d f, and as much for each of dX and dW."""
    net = nn.Linear(D, F)
    net.weight.requires_grad_(trained)
    report = measured(net, torch.randn(B, T, D), input_grad=input_grad)
    product = 2 * B * T * D * F
    assert predicted(report, "forward") == product
    if trained or input_grad:
        assert predicted(report, "backward") == (trained + input_grad) * product


def test_a_vector_is_one_row() -> None:
    assert predicted(measured(nn.Linear(D, F), torch.randn(D)), "forward") == 2 * D * F


def test_no_rows_are_no_work() -> None:
    report = measured(nn.Sequential(nn.Linear(D, F), nn.Linear(F, D)), torch.randn(0, D))
    assert {(c.measured, c.predicted) for c in report.comparisons} <= {(0, 0)}
    assert report.theory.reasons == {}


def test_convolution() -> None:
    """Outputs times taps: 4 channels in 2 groups, 3 taps, at 7 places of 6 output channels."""
    report = measured(nn.Conv1d(4, 6, 3, padding=1, groups=2), torch.randn(B, 4, 7))
    product = 2 * (B * 6 * 7) * (4 // 2 * 3)
    assert (predicted(report, "forward"), predicted(report, "backward")) == (product, 2 * product)


def test_transposed_convolution() -> None:
    """Inputs times taps."""
    report = measured(nn.ConvTranspose2d(4, 6, (3, 2), stride=2), torch.randn(B, 4, 5, 7), input_grad=False)
    product = 2 * (B * 4 * 5 * 7) * (6 * 3 * 2)
    assert (predicted(report, "forward"), predicted(report, "backward")) == (product, product)


def test_what_contracts_nothing() -> None:
    net = nn.Sequential(nn.Embedding(11, D), nn.LayerNorm(D), nn.GELU(), nn.Dropout(), nn.Linear(D, F))
    report = measured(net, torch.randint(11, (B, T)))
    assert [predicted(report, "backward", name) for name in "0123"] == [0, 0, 0, 0]
    assert set(report.theory.predicted) == {"", "0", "1", "2", "3", "4"}


GATES = {nn.RNN: 1, nn.GRU: 3, nn.LSTM: 4}


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("input_grad", [True, False])
def test_recurrent(kind: type[nn.Module], input_grad: bool) -> None:
    """Each gate: d and H in, H out, for every token. The first of T states is zeros without a gradient."""
    report = measured(kind(D, F), torch.randn(T, B, D), input_grad=input_grad)
    inputs, states = 2 * T * B * GATES[kind] * F * D, 2 * T * B * GATES[kind] * F * F
    assert predicted(report, "forward") == inputs + states
    expected = (1 + input_grad) * inputs + states + states * (T - 1) // T
    if kind is nn.LSTM:  # one op for the layer, which computes every gradient
        expected = 2 * (inputs + states)
    assert predicted(report, "backward") == expected


@pytest.mark.parametrize("trained", [True, False])
def test_a_kernel_for_all_layers_gives_all_gradients_of_weights_or_none(trained: bool) -> None:
    """As the library kernels of GPUs do: the input's and the states' gradients always."""
    weights = {
        f"weight_{part}_l0": ParameterRecord(f"weight_{part}_l0", shape, "float32", trained, ident)
        for ident, (part, shape) in enumerate((("ih", (4 * F, D)), ("hh", (4 * F, F))))
    }
    sizes = {"input_size": D, "hidden_size": F, "num_layers": 1, "proj_size": 0}
    call = Call((f"float32[{T},{B},{D}]",), (False,), backward=True)
    module = Recorded("LSTM", "torch.nn.modules.rnn", sizes, weights, ops=frozenset({"aten._cudnn_rnn.default"}))
    found = theory(replace(module, calls={call: 1}))
    assert found is not None
    assert found.total("forward") == 2 * T * B * 4 * F * (D + F)
    assert found.total("backward") == (1 + trained) * found.total("forward")


def test_what_is_no_plain_tensor_is_not_predicted() -> None:
    """Of a nested tensor only the number of pieces is recorded."""
    weight = {"weight": ParameterRecord("weight", (F, D), "float32", True, 0)}
    module = Recorded("Linear", "torch.nn.modules.linear", {}, weight)
    nested = theory(replace(module, calls={Call(("float32[3]",), (False,)): 1}))
    assert nested is not None
    assert set(nested.missing.values()) == {"its input is no plain tensor of vectors"}
    flat = {"weight": ParameterRecord("weight", (F * D,), "float32", True, 0)}
    sharded = theory(replace(module, parameters=flat, calls={Call((f"float32[3,{D}]",), (False,)): 1}))
    assert sharded is not None
    assert set(sharded.missing.values()) == {"its weight is no matrix"}


@pytest.mark.parametrize("kind", GATES)
def test_recurrent_in_every_way(kind: type[nn.Module]) -> None:
    for at in shapes(90, 6):
        options: dict[str, Any] = {
            "num_layers": at.randint(1, 3),
            "bidirectional": at.random() < 0.5,
            "batch_first": at.random() < 0.5,
            "bias": at.random() < 0.5,
        }
        if kind is nn.LSTM and at.random() < 0.5:
            options["proj_size"] = 2
        net = kind(D, F, **options)
        args = [torch.randn(T, B, D) if at.random() < 0.7 else torch.randn(T, D)]
        report = measured(net, *args, input_grad=at.random() < 0.5)
        assert predicted(report, "backward") > predicted(report, "forward")


@pytest.mark.parametrize("kind", [nn.RNNCell, nn.GRUCell])
def test_cells(kind: type[nn.Module]) -> None:
    gates = 1 if kind is nn.RNNCell else 3
    report = measured(kind(D, F), torch.randn(B, D), torch.randn(B, F))
    product = 2 * B * gates * F * (D + F)
    assert (predicted(report, "forward"), predicted(report, "backward")) == (product, 2 * product)


def test_a_cell_whose_state_is_a_pair() -> None:
    report = measured(nn.LSTMCell(D, F), torch.randn(B, D), (torch.randn(B, F), torch.randn(B, F)), input_grad=False)
    inputs, states = 2 * B * 4 * F * D, 2 * B * 4 * F * F
    assert (predicted(report, "forward"), predicted(report, "backward")) == (inputs + states, inputs + states)


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_multihead_attention(need_weights: bool, batch_first: bool) -> None:
    """Four projections and two products between heads; without weights one kernel, which rebuilds the scores."""
    q, kv = torch.randn(B, T, D), torch.randn(B, S, D)
    if not batch_first:
        q, kv = q.transpose(0, 1), kv.transpose(0, 1)
    net = nn.MultiheadAttention(D, 2, batch_first=batch_first)
    report = measured(net, q, kv, kv, need_weights=need_weights)
    scores = 2 * B * T * S * D
    forward = 2 * (2 * B * T * D * D) + 2 * (2 * B * S * D * D) + 2 * scores
    assert predicted(report, "forward") == forward
    assert predicted(report, "backward") == 2 * forward
    assert report.phases["recompute"].matmul_flops == (0 if need_weights else scores)


@pytest.mark.parametrize("options", [{"kdim": 3, "vdim": 7}, {"add_bias_kv": True}, {"add_zero_attn": True}])
@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("input_grad", [True, False])
def test_multihead_attention_with_options(options: dict[str, Any], need_weights: bool, input_grad: bool) -> None:
    net = nn.MultiheadAttention(D, 2, **options)
    k, v = torch.randn(S, B, options.get("kdim", D)), torch.randn(S, B, options.get("vdim", D))
    report = measured(net, torch.randn(T, B, D), k, v, need_weights=need_weights, input_grad=input_grad)
    keys = S + (0 if "kdim" in options else 1)
    assert {t.name: t.value for c in report.comparisons for t in c.terms if c.phase == "forward"}["scores"] == (
        2 * B * T * keys * D
    )


def test_frozen_multihead_attention() -> None:
    """With the packed weight frozen and constant inputs, only the output matrix has a gradient."""
    net = nn.MultiheadAttention(D, 2, bias=False)
    net.in_proj_weight.requires_grad_(False)
    x = torch.randn(T, B, D)
    report = measured(net, x, x, x, input_grad=False)
    assert predicted(report, "backward") == 2 * B * T * D * D


def encoder_layer_flops(tokens: int) -> int:
    return 4 * 2 * B * tokens * D * D + 2 * 2 * B * tokens * tokens * D + 2 * 2 * B * tokens * D * F


def test_an_encoder_is_its_parts_in_training_and_one_op_in_inference() -> None:
    net = nn.TransformerEncoder(nn.TransformerEncoderLayer(D, 2, F, dropout=0.0, batch_first=True), 2)
    x = torch.randn(B, T, D)
    trained = measured(net.train(), x)
    assert trained.phases["forward"].matmul_flops == 2 * encoder_layer_flops(T)
    assert "layers.0.linear1" in trained.theory.predicted
    with torch.no_grad():
        inferred = measured(net.eval(), x, input_grad=False, backward=False)
    assert predicted(inferred, "forward", "layers.0") == encoder_layer_flops(T)
    assert inferred.phases["forward"].matmul_flops == 2 * encoder_layer_flops(T)


def test_a_whole_transformer_of_torch() -> None:
    net = nn.Transformer(D, 2, 1, 1, F, dropout=0.0)
    report = measured(net, torch.randn(T, B, D), torch.randn(S, B, D))
    assert set(report.theory.predicted) == set(report.theory.modules)


class Linear(nn.Module):
    """A class of the user's that has a name of torch's."""

    def forward(self, x: Tensor) -> Tensor:
        return x @ x.T


def test_a_class_is_known_by_where_it_is_defined() -> None:
    report = attnprof.run(Linear(), (torch.randn(T, D),))
    (found,) = report.comparisons
    assert (found.formula, found.predicted, found.residual) == ("", 0, 2 * T * D * T)
    assert binding("torch.nn.modules.linear", "Linear") is not None
    assert binding(Linear.__module__, "Linear") is None


# Calls


def test_a_recorded_call_is_read_back() -> None:
    texts = ("float32[2,3]", "mask=bool[3]", "* float16[]", "-> float32[2,4]")
    call = Given.of(Call(texts, (True, False, True, True)))
    assert call.inputs == (Input("", (2, 3), "float32", True), Input("mask", (3,), "bool", False))
    assert call.inside == (Input("*", (), "float16", True),)
    assert call.output == Input("->", (2, 4), "float32", True)
    assert call.find(1, "mask") == call.inputs[1]
    assert call.find(1) is None
    with pytest.raises(AttnprofError, match="its memory is no tensor"):
        call.input(1, "memory")


def test_an_lstm_on_packed_sequences_is_not_predicted() -> None:
    packed = nn.utils.rnn.pack_padded_sequence(torch.randn(T, B, D), torch.tensor([5, 3]))
    report = attnprof.run(nn.LSTM(D, F), (packed,))
    assert report.theory.reasons == {"": "its input is no tensor"}
    assert report.comparisons == []
    assert report.theory.predicted == ()


# Formulas of users


class Mine(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.width = D
        self.weight = nn.Parameter(torch.randn(D, D))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x @ self.weight @ x.transpose(-1, -2)
        return y


@pytest.fixture
def bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test binds is unbound when it ends."""
    from attnprof.analytic import binding as module

    monkeypatch.setattr(module, "_users", {})


def two_products(B: int, T: int, d: int) -> attnprof.Prediction:
    """x W, a network of one matrix in and one out with as many FLOPs as x W xᵀ: f = (d + T) / 2."""
    return attnprof.predict("ffn", B=B, T=T, d=d, f=(d + T) // 2, bias=False).of("matmul")


@pytest.mark.usefixtures("bound")
@pytest.mark.parametrize("kind", [Mine, f"{__name__}.Mine"])
def test_a_formula_of_the_user(kind: type | str) -> None:
    """x W and (x W) xᵀ: 2 B T d (d + T)."""

    @attnprof.predicts(kind)
    def mine(module: Any, call: Given) -> attnprof.Prediction:
        assert module.trains("weight")
        samples, length, _ = call.input(0).shape
        return two_products(samples, length, module.size("width"))

    length = 4
    report = attnprof.run(nn.Sequential(Mine()), (torch.randn(B, length, D),), strict_prediction=True)
    assert predicted(report, "forward", "0") == 2 * B * length * D * (D + length)
    assert predicted(report, "forward", "0") == report.total.matmul_flops


@pytest.mark.usefixtures("bound")
def test_a_user_may_know_no_formula_for_some_calls() -> None:
    attnprof.predicts(Mine)(lambda module, call: None)
    report = attnprof.run(Mine(), (torch.randn(B, 4, D),))
    assert [(c.formula, c.predicted) for c in report.comparisons] == [("", 0)]


def gives_no_prediction(module: Any, call: Given) -> Any:
    return 3


def raises(module: Any, call: Given) -> Any:
    return {}["heads"]


@pytest.mark.usefixtures("bound")
@pytest.mark.parametrize(
    ("mine", "reason"),
    [
        (gives_no_prediction, "must give a Prediction or None, not a int"),
        (raises, "raised KeyError: 'heads'"),
    ],
)
def test_a_formula_of_a_user_that_fails_costs_no_report(mine: Any, reason: str) -> None:
    attnprof.predicts(Mine)(mine)
    report = attnprof.run(nn.Sequential(Mine()), (torch.randn(B, 4, D),))
    where = f"(test_binding.py:{mine.__code__.co_firstlineno})"
    assert report.theory.reasons == {"0": f"its formula {mine.__name__} {where} {reason}"}
    assert reason in " ".join(str(report).split())
    with pytest.raises(PredictionError, match=mine.__name__):
        attnprof.run(Mine(), (torch.randn(B, 4, D),), strict_prediction=True)


@pytest.mark.parametrize(("wrong", "said"), [("Mine", "package.Mine"), (3, "not 3")])
def test_predicts_takes_a_class(wrong: Any, said: str) -> None:
    with pytest.raises(AttnprofError, match=said):
        attnprof.predicts(wrong)
