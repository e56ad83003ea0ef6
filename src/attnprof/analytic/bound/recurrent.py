"""Torch's recurrent layers: each gate is a product with the input and one with the state before."""

from __future__ import annotations

from attnprof.analytic.binding import Given, Recorded, UnpredictableError, binds
from attnprof.analytic.bound.writing import Sheet
from attnprof.analytic.prediction import Prediction

_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4, "RNNCell": 1, "GRUCell": 3, "LSTMCell": 4}
#: Parts of the names of ops that run a whole layer.
_LAYER = ("mkldnn_rnn_layer",)
#: And of those that run all layers at once.
_STACK = ("_cudnn_rnn", "miopen_rnn")


@binds("torch.nn.modules.rnn", "RNN", "GRU", "LSTM")
def recurrent(module: Recorded, call: Given) -> Prediction:
    """Of every layer and direction: 2 B T G H (d_in + P) for G gates, and 2 B T H P for a projection to P.

    The first step's state needs no gradient, unless one was given that does. A kernel that runs a layer as one op
    computes every gradient; one that runs them all, those of the weights if it is asked for any.
    """
    if call.stopped:
        raise UnpredictableError("its recomputation stopped in one of its steps")
    x, before = call.input(0, "input"), call.find(1, "hx")
    if len(x.shape) not in (2, 3):
        raise UnpredictableError("its input is no sequence of vectors")
    length, batch = x.shape[0], x.shape[1] if len(x.shape) == 3 else 1
    if module.flag("batch_first") and len(x.shape) == 3:
        length, batch = batch, length
    projected = module.size("proj_size")
    sheet = Sheet(module.class_name.lower(), call)
    B, T = sheet.size("B", batch), sheet.size("T", length)
    H, d = sheet.size("H", module.size("hidden_size")), sheet.size("d", module.size("input_size"))
    P = sheet.size("P", projected) if projected else H
    gates = sheet.size("G", _GATES[module.class_name]) * H
    layer_at_once = any(part in op for op in module.ops for part in _LAYER)
    stack_at_once = any(part in op for op in module.ops for part in _STACK)
    whole = layer_at_once or stack_at_once
    every_weight = layer_at_once or (stack_at_once and any(p.trainable for p in module.parameters.values()))
    initial = whole or (before is not None and before.needs_grad) or any(s.needs_grad for s in call.inside)
    asked, width = whole or x.needs_grad, d
    directions = ("", "_reverse") if module.flag("bidirectional") else ("",)
    for layer in range(module.size("num_layers")):
        below, asked = asked, False
        for direction in directions:
            end = f"l{layer}{direction}"
            trained = {part: every_weight or module.trains(f"weight_{part}_{end}") for part in ("ih", "hh", "hr")}
            biases = module.trains(f"bias_ih_{end}") or module.trains(f"bias_hh_{end}")
            needed = below or biases or any(trained.values())
            source, state = sheet.tensor("x", B * T * width, below), sheet.tensor("h", B * T * P, initial)
            sheet.linear(f"input_{end}", source, B * T, width, gates, trained["ih"])
            sheet.linear(f"state_{end}", state, B * T, P, gates, trained["hh"])
            if needed and not initial:
                sheet.tape.note(f"state_{end}.dX", "matmul_flops", 2 * B * (T - 1) * P * gates, "backward")
            if projected:
                cells = sheet.tensor("cell outputs", B * T * H, needed)
                sheet.linear(f"projection_{end}", cells, B * T, H, P, trained["hr"])
            asked |= needed
        width = len(directions) * P
    return sheet.prediction


@binds("torch.nn.modules.rnn", "RNNCell", "GRUCell", "LSTMCell")
def cell(module: Recorded, call: Given) -> Prediction:
    """One step: 2 B G H (d + H)."""
    if call.stopped:
        raise UnpredictableError("its recomputation stopped between its products")
    x, before = call.input(0, "input"), call.find(1, "hx")
    if before is None and call.inside:
        before = call.inside[0]
    sheet = Sheet(module.class_name.lower(), call)
    B = sheet.size("B", x.shape[0] if len(x.shape) == 2 else 1)
    d, H = sheet.size("d", module.size("input_size")), sheet.size("H", module.size("hidden_size"))
    gates = sheet.size("G", _GATES[module.class_name]) * H
    state = sheet.tensor("h", B * H, before is not None and before.needs_grad)
    sheet.linear("input", sheet.tensor("x", B * d, x.needs_grad), B, d, gates, module.trains("weight_ih"))
    sheet.linear("state", state, B, H, gates, module.trains("weight_hh"))
    return sheet.prediction
