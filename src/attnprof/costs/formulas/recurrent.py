"""Fused recurrent layers: per step, layer and direction, the gates' products and the cell's arithmetic.

G gates (LSTM 4, GRU 3, plain 1) of H units take G H (I + R) multiply-adds a step, where R is the width of the
hidden state (H, or the projection's). ``rows`` is steps times batch, the real steps of a packed sequence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from attnprof.core.signature import OpSignature
from attnprof.core.tensor import TensorMeta
from attnprof.core.work import Work
from attnprof.costs.registry import cost, free, movement, traffic
from attnprof.costs.traffic import default, distinct_bytes

Kind = Literal["relu", "tanh", "lstm", "gru"]
#: The numbers of cuDNN, which oneDNN's bindings share.
_KINDS: tuple[Kind, ...] = ("relu", "tanh", "lstm", "gru")
_GATES = {"relu": 1, "tanh": 1, "lstm": 4, "gru": 3}


@dataclass(frozen=True)
class Cell:
    """Scalar operations of one unit in one step, beside the products.

    ``forward`` adds, per gate, the input's product to the hidden state's: lstm 4, gru 2 (its third pair is
    joined through r), plain 1. Then lstm: three sigmoids 4 each, tanh, c' = f c + i g 3, tanh(c'), o times it:
    22. gru: two sigmoids 8, r times the hidden part and the sum 2, tanh, h' = n + z (h - n) 3: 16. plain: the
    activation: 2. ``bias``: two per gate.

    ``backward``, given dh and the saved gates. lstm: tanh(c') 1, do 1, dc = dh o (1 - tanh^2) + dc' 5, di, df,
    dg, dc back 4, three sigmoid derivatives 3 each and tanh's 3: 23. gru: dn = dh (1 - z) 2, dz = dh (h - n) 2,
    dh back dh z 1, tanh's derivative 3, dr and its partner through r 2, two sigmoid derivatives 6: 16. tanh 3,
    relu 1. ``carry`` adds what the next step sent back to dh: 1, and gru adds its dh z to the product's: 1.
    ``bias_sums``: gate gradients summed over rows for the biases (the two biases of a gate share theirs, save
    for gru's third).
    """

    forward: int
    bias: int
    backward: int
    carry: int
    bias_sums: int


_CELLS: dict[Kind, Cell] = {
    "relu": Cell(forward=2, bias=2, backward=1, carry=1, bias_sums=1),
    "tanh": Cell(forward=2, bias=2, backward=3, carry=1, bias_sums=1),
    "lstm": Cell(forward=22, bias=8, backward=23, carry=1, bias_sums=4),
    "gru": Cell(forward=16, bias=6, backward=16, carry=2, bias_sums=4),
}


@dataclass(frozen=True)
class Stack:
    """A stack of recurrent layers as an op runs it: all its layers and directions over ``rows`` steps."""

    kind: Kind
    rows: int
    width: int
    hidden: int
    projection: int = 0
    layers: int = 1
    directions: int = 1
    biases: bool = True

    @property
    def state(self) -> int:
        """Width R of the hidden state."""
        return self.projection or self.hidden

    @property
    def weights(self) -> int:
        """Weight elements of all layers, each used once per row; biases apart."""
        total = 0
        for layer in range(self.layers):
            width = self.width if layer == 0 else self.directions * self.state
            per_direction = _GATES[self.kind] * self.hidden * (width + self.state) + self.hidden * self.projection
            total += self.directions * per_direction
        return total

    @property
    def units(self) -> int:
        """Cell updates: one per row, unit, direction and layer."""
        return self.rows * self.hidden * self.directions * self.layers

    def forward(self, dropout: bool = False) -> Work:
        """2 FLOPs per weight and row; the cells; between layers, dropout's scale: 1 per output of a layer."""
        cell = _CELLS[self.kind]
        vector = self.units * (cell.forward + (cell.bias if self.biases else 0))
        if dropout:
            vector += (self.layers - 1) * self.rows * self.directions * self.state
        return Work(2 * self.rows * self.weights, vector)

    def backward(self, weight_gradients: bool = True, dropout: bool = False) -> Work:
        """The products' gradients: 2 FLOPs per weight and row towards the inputs, and as many for the weights."""
        cell = _CELLS[self.kind]
        vector = self.units * (cell.backward + cell.carry)
        if weight_gradients and self.biases:
            vector += cell.bias_sums * max(self.rows - 1, 0) * self.hidden * self.directions * self.layers
        if dropout:
            vector += (self.layers - 1) * self.rows * self.directions * self.state
        return Work((4 if weight_gradients else 2) * self.rows * self.weights, vector)


def _rows(x: TensorMeta) -> int:
    """Steps times batch: every dimension of the input but the last (a packed input has its real steps only)."""
    return x.numel // x.shape[-1] if x.shape[-1] else 0


def _one_layer(op: OpSignature) -> Stack:
    x, hidden = op.tensor("input"), int(op.number("hidden_size"))
    kind = _KINDS[int(op.number("mode"))]
    return Stack(kind, _rows(x), x.shape[-1], hidden, biases=bool(op.number("has_biases")))


@cost("aten.mkldnn_rnn_layer")
def mkldnn_rnn_layer(op: OpSignature) -> Work:
    """One layer in one direction; deeper and bidirectional stacks are several calls."""
    return _one_layer(op).forward()


@cost("aten.mkldnn_rnn_layer_backward")
def mkldnn_rnn_layer_backward(op: OpSignature) -> Work:
    """Every gradient, whether or not it is wanted: input, both weights, biases and states."""
    return _one_layer(op).backward()


@traffic("aten.mkldnn_rnn_layer", "aten.mkldnn_rnn_layer_backward")
def mkldnn_rnn_layer_traffic(op: OpSignature) -> tuple[int, int]:
    """The default rule, but: without biases their places are filled by zeros that are not read; the forward
    writes the workspace, which holds the gates for backward, in training only."""
    backward = op.packet.endswith("backward")
    unread: tuple[str, ...] = ()
    if not op.number("has_biases"):
        unread = ("weight3", "weight4") if backward else ("weight2", "weight3")
    read = distinct_bytes(t for name, _ in op.args if name not in unread for t in op.tensors(name))
    return read, distinct_bytes(op.outs if backward or op.number("train") else op.outs[:3])


def _library_stack(op: OpSignature) -> Stack:
    x, weights = op.tensor("input"), op.tensors("weight")
    projection = int(op.number("proj_size"))
    per_layer = int(op.number("weight_stride0"))  # weights per layer and direction: 2, with biases 4, projection 1
    return Stack(
        _KINDS[int(op.number("mode"))],
        _rows(x),
        x.shape[-1],
        int(op.number("hidden_size")),
        projection,
        int(op.number("num_layers")),
        2 if op.number("bidirectional") else 1,
        biases=(per_layer or len(weights)) >= 4,
    )


def _drops_out(op: OpSignature) -> bool:
    return bool(op.number("dropout") and op.number("train"))


@cost("aten._cudnn_rnn", "aten.miopen_rnn")
def library_rnn(op: OpSignature) -> Work:
    """All layers and directions in one call."""
    return _library_stack(op).forward(_drops_out(op))


@cost("aten._cudnn_rnn_backward", "aten.miopen_rnn_backward")
def library_rnn_backward(op: OpSignature) -> Work:
    """Gradients of input and states in one pass, always; of the weights if asked for."""
    flags = op.flags("output_mask")
    return _library_stack(op).backward(bool(flags[3:] and flags[3]), _drops_out(op))


@traffic("aten._cudnn_rnn", "aten._cudnn_rnn_backward", "aten.miopen_rnn", "aten.miopen_rnn_backward")
def library_rnn_traffic(op: OpSignature) -> tuple[int, int]:
    """The default rule; the flat weight buffer is the weights again, and is not read twice."""
    reads = [t for name, _ in op.args if name not in ("weight_buf", "dropout_state") for t in op.tensors(name)]
    return distinct_bytes(reads), distinct_bytes(op.outs[:4] if op.packet.endswith("rnn") else op.outs)


def _cell_units(op: OpSignature, gates: int) -> int:
    return op.tensor("input_gates").numel // gates


@cost("aten._thnn_fused_lstm_cell")
def fused_lstm_cell(op: OpSignature) -> Work:
    """The cell alone: the gates' products were mm calls."""
    cell = _CELLS["lstm"]
    return Work(vector=_cell_units(op, 4) * (cell.forward + (cell.bias if op.maybe("input_bias") else 0)))


@cost("aten._thnn_fused_gru_cell")
def fused_gru_cell(op: OpSignature) -> Work:
    """The cell alone."""
    cell = _CELLS["gru"]
    return Work(vector=_cell_units(op, 3) * (cell.forward + (cell.bias if op.maybe("input_bias") else 0)))


@cost("aten._thnn_fused_lstm_cell_backward_impl")
def fused_lstm_cell_backward(op: OpSignature) -> Work:
    """One cell's gradients; without grad_cy nothing is added to dc, without grad_hy dh's share (6) is not there."""
    cy, cell = op.tensor("cy"), _CELLS["lstm"]
    has_h, has_c = op.maybe("grad_hy") is not None, op.maybe("grad_cy") is not None
    # of the 23: tanh(c') 1, do 1, dh o 1, (1 - tanh^2) times it 3: 6 need dh; the addition needs both
    per_unit = cell.backward - (0 if has_h else 6) - (0 if has_h and has_c else 1)
    return Work(vector=cy.numel * per_unit + _bias_sums(op, cell, cy))


@cost("aten._thnn_fused_gru_cell_backward")
def fused_gru_cell_backward(op: OpSignature) -> Work:
    """One cell's gradients."""
    grad, cell = op.tensor("grad_hy"), _CELLS["gru"]
    return Work(vector=grad.numel * cell.backward + _bias_sums(op, cell, grad))


def _bias_sums(op: OpSignature, cell: Cell, state: TensorMeta) -> int:
    rows = state.numel // state.shape[-1] if state.shape[-1] else 0
    return cell.bias_sums * max(rows - 1, 0) * state.shape[-1] if op.number("has_bias") else 0


def _mps_stack(op: OpSignature) -> Stack:
    x, states = op.tensor("input"), op.tensors("hx")
    layers, directions = int(op.number("num_layers")), 2 if op.number("bidirectional") else 1
    hidden, biases = states[0].shape[-1], bool(op.number("has_biases"))
    return Stack("lstm", _rows(x), x.shape[-1], hidden, layers=layers, directions=directions, biases=biases)


@cost("aten._lstm_mps")
def mps_lstm(op: OpSignature) -> Work:
    """All layers and directions in one call on Apple's GPUs."""
    return _mps_stack(op).forward(_drops_out(op))


@cost("aten.lstm_mps_backward")
def mps_lstm_backward(op: OpSignature) -> Work:
    """Every gradient of the stack."""
    return _mps_stack(op).backward(dropout=_drops_out(op))


_QUANTISED_STACKS = ("aten.quantized_lstm", "aten.quantized_gru")
_QUANTISED_CELLS: dict[str, Kind] = {
    "quantized.quantized_lstm_cell_dynamic": "lstm",
    "quantized.quantized_gru_cell_dynamic": "gru",
    "quantized.quantized_rnn_relu_cell_dynamic": "relu",
    "quantized.quantized_rnn_tanh_cell_dynamic": "tanh",
}


def _quantised_stack(op: OpSignature) -> Stack:
    """Weights are packed out of sight: the hidden width is that of the state, the input's that of the input."""
    x = op.maybe("input") or op.tensor("data")
    states = op.tensors("hx")
    cell = _QUANTISED_CELLS.get(op.packet)
    if cell is not None:
        return Stack(cell, _rows(x), x.shape[-1], states[0].shape[-1])
    directions = 2 if op.number("bidirectional") else 1
    return Stack(
        "lstm" if "lstm" in op.op else "gru",
        _rows(x),
        x.shape[-1],
        states[0].shape[-1],
        layers=int(op.number("num_layers")),
        directions=directions,
        biases=bool(op.number("has_biases")),
    )


@cost(*_QUANTISED_STACKS, *_QUANTISED_CELLS)
def quantised_rnn(op: OpSignature) -> Work:
    """The float layer's products and cells; quantising each step's input is not counted, being out of sight."""
    work = _quantised_stack(op).forward()
    return Work(work.matmul, work.vector, matmul_dtype=None if _half(op) else "int8")


def _half(op: OpSignature) -> bool:
    return "float16" in str(op.value("dtype"))


@traffic(*_QUANTISED_STACKS, *_QUANTISED_CELLS)
def quantised_rnn_traffic(op: OpSignature) -> tuple[int, int]:
    """Inputs, states and outputs by the default rule, and the packed weights: 1 byte each, 2 in half precision."""
    read, written = default(op)
    return read + _quantised_stack(op).weights * (2 if _half(op) else 1), written


movement(("aten._pack_padded_sequence", "aten._cudnn_rnn_flatten_weight"))
free(("aten._use_cudnn_rnn_flatten_weight", "aten._use_miopen_rnn"), "a question about the backend")


@traffic("aten._pack_padded_sequence")
def pack_padded_sequence_traffic(op: OpSignature) -> tuple[int, int]:
    """Reads the lengths and only the steps it keeps."""
    data = op.out
    return data.numel * op.tensor("input").width + op.tensor("lengths").bytes, default(op)[1]
