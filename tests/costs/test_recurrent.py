"""Fused recurrent layers against the same layer run step by step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from attnprof.core.signature import OpSignature
from attnprof.core.tensor import TensorMeta, contiguous_stride
from attnprof.costs.formulas.recurrent import Stack
from attnprof.costs.pricing import price
from support import only_op, ops_of

F32 = 4  # bytes
LAYER = "aten.mkldnn_rnn_layer"
small = st.integers(1, 5)


def matmul(run: Callable[[], Any]) -> int:
    return sum(price(op).cost.matmul_flops for op in ops_of(run))


@given(small, small, small, small, st.booleans(), st.booleans(), st.integers(1, 2))
@settings(max_examples=25, deadline=None)
def test_lstm_costs_what_its_steps_cost(
    t: int, b: int, i: int, h: int, bidirectional: bool, bias: bool, layers: int
) -> None:
    lstm = nn.LSTM(i, h, num_layers=layers, bidirectional=bidirectional, bias=bias)
    directions = 1 + bidirectional
    x = torch.randn(t, b, i, requires_grad=True)
    states = tuple(torch.randn(layers * directions, b, h, requires_grad=True) for _ in range(2))

    def forward() -> Any:
        return lstm(x, states)

    def train() -> None:
        out, (hy, cy) = forward()
        (out.sum() + hy.sum() + cy.sum()).backward()

    fused = matmul(forward), matmul(train)
    with torch.backends.mkldnn.flags(enabled=False):
        stepwise = matmul(forward), matmul(train)
    widths = [i] + [directions * h] * (layers - 1)
    expected = sum(2 * t * b * 4 * h * (width + h) * directions for width in widths)
    assert fused == stepwise == (expected, 3 * expected)


#: What one element of these ops costs, by the conventions: a sigmoid is 4, everything else 1.
ELEMENT = {"sigmoid": 4, "tanh": 1, "mul": 1, "add": 1, "sub": 1, "rsub": 1}


def vector_by_hand(run: Callable[[], Any]) -> int:
    """Arithmetic of the step-by-step layer: its elementwise ops, and the biases of its addmm calls."""
    total = 0
    for op in ops_of(run):
        name = op.packet.removeprefix("aten.").rstrip("_")
        if name == "addmm":
            total += op.out.numel
        elif name in ELEMENT:
            total += ELEMENT[name] * op.out.numel
    return total


@pytest.mark.parametrize("bias", [True, False])
def test_the_lstm_cell_s_arithmetic_is_that_of_its_steps(bias: bool) -> None:
    t, b, i, h = 3, 2, 4, 5
    lstm, x = nn.LSTM(i, h, bias=bias), torch.randn(t, b, i)
    fused = price(only_op(lambda: lstm(x), LAYER)).cost
    with torch.backends.mkldnn.flags(enabled=False):
        assert fused.vector_flops == vector_by_hand(lambda: lstm(x)) == t * b * h * (30 if bias else 22)


@pytest.mark.parametrize(("kind", "layer", "per_unit"), [("tanh", nn.RNN, 4), ("gru", nn.GRU, 22)])
def test_other_cells_arithmetic_is_that_of_their_steps(kind: Any, layer: type[nn.RNNBase], per_unit: int) -> None:
    t, b, i, h = 3, 2, 4, 5
    module, x = layer(i, h), torch.randn(t, b, i)
    stack = Stack(kind, t * b, i, h)
    assert stack.forward().vector == t * b * h * per_unit == vector_by_hand(lambda: module(x))
    assert stack.forward().matmul == matmul(lambda: module(x))


def test_lstm_traffic_and_the_workspace() -> None:
    t, b, i, h = 3, 2, 4, 5
    elements = t * b * i + 4 * h * (i + h) + 2 * 4 * h + 2 * b * h
    x = torch.randn(t, b, i)
    evaluated = only_op(lambda: nn.LSTM(i, h).eval()(x), LAYER)
    assert price(evaluated).cost.read_bytes == F32 * elements
    assert price(evaluated).cost.write_bytes == F32 * (t * b * h + 2 * b * h)
    trained = only_op(lambda: nn.LSTM(i, h)(x), LAYER)
    workspace = trained.outs[3].bytes
    assert workspace > 0
    assert price(trained).cost.write_bytes == F32 * (t * b * h + 2 * b * h) + workspace
    unbiased = only_op(lambda: nn.LSTM(i, h, bias=False)(x), LAYER)
    assert price(unbiased).cost.read_bytes == F32 * (elements - 2 * 4 * h)


def test_lstm_backward_arithmetic() -> None:
    t, b, i, h = 3, 2, 4, 5
    x = torch.randn(t, b, i, requires_grad=True)
    found = price(only_op(lambda: nn.LSTM(i, h)(x)[0].sum().backward(), LAYER + "_backward")).cost
    assert found.matmul_flops == 2 * (2 * t * b * 4 * h * (i + h))
    # carried dh 1, the cell 23; the sums of 4 gates' gradients over all rows for the biases
    assert found.vector_flops == t * b * h * 24 + 4 * h * (t * b - 1)


def test_a_projection_narrows_the_state() -> None:
    t, b, i, h, p = 3, 2, 4, 6, 3
    lstm, x = nn.LSTM(i, h, proj_size=p, num_layers=2, bidirectional=True), torch.randn(t, b, i)
    stack = Stack("lstm", t * b, i, h, projection=p, layers=2, directions=2)
    first, second = 4 * h * (i + p) + h * p, 4 * h * (2 * p + p) + h * p
    assert stack.forward().matmul == 2 * t * b * 2 * (first + second) == matmul(lambda: lstm(x))


def test_packed_sequences_count_only_their_real_steps() -> None:
    lengths, i, h = (5, 3, 1), 4, 6
    lstm, x = nn.LSTM(i, h), torch.randn(5, 3, i)
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor(lengths))
    assert matmul(lambda: lstm(packed)) == 2 * sum(lengths) * 4 * h * (i + h)
    packing = price(
        only_op(lambda: nn.utils.rnn.pack_padded_sequence(x, torch.tensor(lengths)), "aten._pack_padded_sequence")
    )
    assert packing.cost.flops == 0
    assert packing.cost.read_bytes == F32 * sum(lengths) * i + 8 * 3
    assert packing.cost.write_bytes == F32 * sum(lengths) * i + 8 * 5  # the data and the batch size of each step


def tensor(*shape: int) -> TensorMeta:
    return TensorMeta(shape, contiguous_stride(shape), "float32", "cuda:0")


def cudnn(backward: bool, mask: tuple[bool, ...] = (), dropout: float = 0.0, **sizes: int) -> OpSignature:
    """A cuDNN call as a CUDA machine records it: [T, B, I] through a two-layer bidirectional LSTM."""
    t, b, i, h = sizes["t"], sizes["b"], sizes["i"], sizes["h"]
    weights = tuple(
        tensor(*shape)
        for width in (i, 2 * h)
        for _ in range(2)
        for shape in ((4 * h, width), (4 * h, h), (4 * h,), (4 * h,))
    )
    args = (
        ("input", tensor(t, b, i)),
        ("weight", weights),
        ("weight_stride0", 4),
        ("mode", 2),
        ("hidden_size", h),
        ("proj_size", 0),
        ("num_layers", 2),
        ("dropout", dropout),
        ("train", True),
        ("bidirectional", True),
        ("output_mask", mask),
    )
    return OpSignature("aten._cudnn_rnn_backward.default" if backward else "aten._cudnn_rnn.default", args, ())


def test_cudnn_runs_the_whole_stack_in_one_call() -> None:
    t, b, i, h = 5, 2, 3, 4
    lstm = nn.LSTM(i, h, num_layers=2, bidirectional=True)
    forward = matmul(lambda: lstm(torch.randn(t, b, i)))  # the same stack on the CPU, four calls
    found = price(cudnn(False, t=t, b=b, i=i, h=h)).cost
    assert found.matmul_flops == forward
    assert found.vector_flops == 2 * 2 * t * b * h * 30
    dropped = price(cudnn(False, dropout=0.5, t=t, b=b, i=i, h=h)).cost
    assert dropped.vector_flops - found.vector_flops == t * b * 2 * h  # the one boundary between two layers
    whole = price(cudnn(True, (True, True, True, True), t=t, b=b, i=i, h=h)).cost
    inputs = price(cudnn(True, (True, True, True, False), t=t, b=b, i=i, h=h)).cost
    assert (whole.matmul_flops, inputs.matmul_flops) == (2 * forward, forward)


def test_the_stack_of_apple_s_gpus() -> None:
    t, b, i, h = 5, 2, 3, 4
    forward = matmul(lambda: nn.LSTM(i, h, num_layers=2, bidirectional=True)(torch.randn(t, b, i)))
    args = (
        ("input", tensor(t, b, i)),
        ("hx", (tensor(4, b, h), tensor(4, b, h))),
        ("has_biases", True),
        ("num_layers", 2),
        ("bidirectional", True),
    )
    assert price(OpSignature("aten._lstm_mps.default", args, ())).cost.matmul_flops == forward
    assert price(OpSignature("aten.lstm_mps_backward.default", args, ())).cost.matmul_flops == 2 * forward


def test_fused_cells_are_arithmetic_only() -> None:
    b, h = 3, 5
    lstm = (("input_gates", tensor(b, 4 * h)), ("hidden_gates", tensor(b, 4 * h)), ("cx", tensor(b, h)))
    gru = (("input_gates", tensor(b, 3 * h)), ("hidden_gates", tensor(b, 3 * h)), ("hx", tensor(b, h)))
    bias = (("input_bias", tensor(4 * h)), ("hidden_bias", tensor(4 * h)))

    def vector(name: str, args: tuple[tuple[str, Any], ...]) -> int:
        found = price(OpSignature(f"aten.{name}.default", args, (tensor(b, h),))).cost
        assert found.matmul_flops == 0
        return found.vector_flops

    assert vector("_thnn_fused_lstm_cell", lstm) == 22 * b * h
    assert vector("_thnn_fused_lstm_cell", lstm + bias) == 30 * b * h
    assert vector("_thnn_fused_gru_cell", gru) == 16 * b * h
    assert vector("_thnn_fused_gru_cell", gru + bias) == 22 * b * h
    grads = (("grad_hy", tensor(b, h)), ("grad_cy", tensor(b, h)), ("cy", tensor(b, h)), ("has_bias", True))
    assert vector("_thnn_fused_lstm_cell_backward_impl", grads) == 23 * b * h + 4 * h * (b - 1)
    # With dc alone: four products with the gates, three sigmoid derivatives of 3, tanh's 3.
    assert vector("_thnn_fused_lstm_cell_backward_impl", grads[1:3]) == (4 + 9 + 3) * b * h
    assert vector("_thnn_fused_gru_cell_backward", (grads[0], ("has_bias", True))) == 16 * b * h + 4 * h * (b - 1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_quantised_layers_cost_what_the_float_ones_do() -> None:
    t, b, i, h = 3, 2, 4, 5
    lstm = nn.LSTM(i, h, num_layers=2, bidirectional=True)
    x = torch.randn(t, b, i)
    quantised = torch.ao.quantization.quantize_dynamic(nn.Sequential(lstm), {nn.LSTM}, dtype=torch.qint8)
    states = torch.randn(4, b, h), torch.randn(4, b, h)
    found = price(only_op(lambda: quantised[0](x, states), "aten.quantized_lstm")).cost
    assert found.matmul_flops == matmul(lambda: lstm(x))
    assert {engine: dtype for engine, dtype, _ in found.split} == {"matmul": "int8", "vector": "float32"}
    weights = 2 * 4 * h * (i + h) + 2 * 4 * h * (2 * h + h)
    assert found.read_bytes == F32 * (t * b * i + 2 * 4 * b * h) + weights  # a byte per packed weight
    cell = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.LSTMCell(i, h)), {nn.LSTMCell}, dtype=torch.qint8)
    step = price(only_op(lambda: cell(x[0]), "quantized.quantized_lstm_cell_dynamic")).cost
    assert (step.matmul_flops, step.vector_flops) == (2 * b * 4 * h * (i + h), 30 * b * h)


def test_only_one_call_per_layer_and_direction_is_made_on_the_cpu() -> None:
    lstm = nn.LSTM(3, 4, num_layers=2, bidirectional=True)
    calls = Counter(op.packet for op in ops_of(lambda: lstm(torch.randn(2, 2, 3))))
    assert calls[LAYER] == 2 * 2
