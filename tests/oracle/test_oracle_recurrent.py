"""The fused LSTM layer of the CPU, and cells that torch runs as many ops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from attnprof.core.cost import Cost
from attnprof.costs.pricing import price
from oracle import references_recurrent as ref
from oracle.agreement import agree
from oracle.buffers import Buffer, Machine
from oracle.layouts import few
from support import ops_of

aten = torch.ops.aten
SIZE = st.integers(1, 3)
LSTM = 2  # the kernel's number for the mode


def _lstm_layer(m: Machine, *arguments: Any) -> tuple[Buffer | None, ...]:
    x, w_ih, w_hh, b_ih, b_hh, h0, c0, reverse, _, _, hidden, _, biased, *_ = arguments
    biases = (b_ih, b_hh) if biased else (None, None)
    return (*ref.lstm_layer(m, x, w_ih, w_hh, *biases, h0, c0, reverse, hidden), None)


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("reverse", [False, True])
@few
@given(steps=SIZE, batch=SIZE, inputs=SIZE, hidden=SIZE)
def test_lstm_layer(biased: bool, reverse: bool, steps: int, batch: int, inputs: int, hidden: int) -> None:
    gates = 4 * hidden
    biases = (torch.randn(gates), torch.randn(gates)) if biased else (torch.zeros(gates), torch.zeros(gates))
    weights = (torch.randn(gates, inputs), torch.randn(gates, hidden), *biases)
    states = torch.randn(batch, hidden), torch.randn(batch, hidden)
    options = (reverse, [], LSTM, hidden, 1, biased, False, False, False)
    arguments = (torch.randn(steps, batch, inputs), *weights, *states, *options)
    with torch.no_grad():  # with gradients the kernel also returns an opaque workspace
        agree(aten.mkldnn_rnn_layer.default, *arguments, by=_lstm_layer)


CELLS: list[tuple[type[nn.Module], Callable[..., list[list[Any]]], int]] = [
    (nn.LSTMCell, ref.lstm_cell, 2),
    (nn.GRUCell, ref.gru_cell, 1),
    (nn.RNNCell, ref.rnn_cell, 1),
]


@pytest.mark.parametrize(("cell_type", "by", "states"), CELLS)
@few
@given(batch=SIZE, inputs=SIZE, hidden=SIZE)
def test_the_ops_of_a_cell_add_up_to_its_definition(
    cell_type: Any, by: Callable[..., list[list[Any]]], states: int, batch: int, inputs: int, hidden: int
) -> None:
    """Copies and splits between the ops are movement, so only the arithmetic is compared."""
    cell = cell_type(inputs, hidden, dtype=torch.float64)
    x, *state = (torch.randn(batch, n, dtype=torch.float64) for n in (inputs, *[hidden] * states))
    given_state = tuple(state) if states > 1 else state[0]
    returned: list[Any] = []
    with torch.no_grad():
        total = Cost.sum(price(op).cost for op in ops_of(lambda: returned.append(cell(x, given_state))))
        m = Machine()
        weights = (cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh)
        expected = by(m, *map(m.load, (x, *state, *weights)))
    real = returned[0][0] if states > 1 else returned[0]
    torch.testing.assert_close(real, torch.tensor([[v.value for v in row] for row in expected], dtype=torch.float64))
    assert (total.matmul_flops, total.vector_flops) == (m.matmul, m.vector)
