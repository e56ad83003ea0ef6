"""Recurrent layers, one step at a time."""

from __future__ import annotations

from typing import Any

from oracle.buffers import Buffer, Machine
from oracle.counting import sigmoid, tanh


def _affine(m: Machine, weight: Buffer, bias: Buffer | None, row: int, x: list[Any]) -> Any:
    accumulator: Any = 0
    for j, v in enumerate(x):
        accumulator = m.multiply_add(accumulator, weight[row, j], v)
    return accumulator if bias is None else accumulator + bias[row]


def lstm_layer(
    m: Machine,
    x: Buffer,
    w_ih: Buffer,
    w_hh: Buffer,
    b_ih: Buffer | None,
    b_hh: Buffer | None,
    h0: Buffer,
    c0: Buffer,
    reverse: bool,
    hidden: int,
) -> tuple[Buffer, Buffer, Buffer]:
    """Input, forget, cell and output gates of W x + b + U h + d; c = f c + i g; h = o tanh(c). x is [T, B, I]."""
    steps, batch, inputs = x.shape
    out, hy, cy = (m.new(s, x.dtype) for s in ([steps, batch, hidden], [batch, hidden], [batch, hidden]))
    for b in range(batch):
        h: list[Any] = [h0[b, u] for u in range(hidden)]
        c: list[Any] = [c0[b, u] for u in range(hidden)]
        for t in reversed(range(steps)) if reverse else range(steps):
            now = [x[t, b, j] for j in range(inputs)]
            gates = [_affine(m, w_ih, b_ih, r, now) + _affine(m, w_hh, b_hh, r, h) for r in range(4 * hidden)]
            for u in range(hidden):
                i, f, o = (sigmoid(gates[g * hidden + u]) for g in (0, 1, 3))
                c[u] = f * c[u] + i * tanh(gates[2 * hidden + u])
                out[t, b, u] = h[u] = o * tanh(c[u])
        for u in range(hidden):
            hy[b, u], cy[b, u] = h[u], c[u]
    return out, hy, cy


def gru_cell(
    m: Machine, x: Buffer, h: Buffer, w_ih: Buffer, w_hh: Buffer, b_ih: Buffer, b_hh: Buffer
) -> list[list[Any]]:
    """h' = (h - n) z + n: what torch's unfused cell computes from reset, update and new gates."""
    batch, hidden = h.shape
    result = []
    for b in range(batch):
        now, before = [x[b, j] for j in range(x.shape[1])], [h[b, j] for j in range(hidden)]
        mine = [_affine(m, w_ih, b_ih, r, now) for r in range(3 * hidden)]
        past = [_affine(m, w_hh, b_hh, r, before) for r in range(3 * hidden)]
        row = []
        for u in range(hidden):
            r, z = sigmoid(mine[u] + past[u]), sigmoid(mine[hidden + u] + past[hidden + u])
            n = tanh(mine[2 * hidden + u] + r * past[2 * hidden + u])
            row.append((before[u] - n) * z + n)
        result.append(row)
    return result


def lstm_cell(
    m: Machine, x: Buffer, h: Buffer, c: Buffer, w_ih: Buffer, w_hh: Buffer, b_ih: Buffer, b_hh: Buffer
) -> list[list[Any]]:
    """The hidden state of one LSTM step."""
    step = Buffer(m, x.key, (1, *x.shape), (0, *x.stride), x.offset, x.dtype)
    out = lstm_layer(m, step, w_ih, w_hh, b_ih, b_hh, h, c, False, h.shape[1])[1]
    return [[out[b, u] for u in range(h.shape[1])] for b in range(h.shape[0])]


def rnn_cell(
    m: Machine, x: Buffer, h: Buffer, w_ih: Buffer, w_hh: Buffer, b_ih: Buffer, b_hh: Buffer
) -> list[list[Any]]:
    """tanh(W x + b + U h + d)."""
    batch, hidden = h.shape
    result = []
    for b in range(batch):
        now, before = [x[b, j] for j in range(x.shape[1])], [h[b, j] for j in range(hidden)]
        rows = range(hidden)
        result.append([tanh(_affine(m, w_ih, b_ih, r, now) + _affine(m, w_hh, b_hh, r, before)) for r in rows])
    return result
