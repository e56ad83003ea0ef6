"""Torch's recurrent layers: each gate is a product with the input and one with the state before."""

from __future__ import annotations

from attnprof.analytic.binding import Given, Recorded, UnpredictableError, binds
from attnprof.analytic.bound.writing import Sheet
from attnprof.analytic.prediction import Prediction

_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4, "RNNCell": 1, "GRUCell": 3, "LSTMCell": 4}


@binds("torch.nn.modules.rnn", "RNN", "GRU", "LSTM")
def recurrent(module: Recorded, call: Given) -> Prediction:
    """Of every layer and direction: 2 B T G H (d_in + H) for G gates, and 2 B T H P for a projection."""
    x = call.input(0, "input")
    if len(x.shape) not in (2, 3):
        raise UnpredictableError("its input is no sequence of vectors")
    gates, hidden, projected = _GATES[module.class_name], module.size("hidden_size"), module.size("proj_size")
    sheet = Sheet(module.class_name.lower(), call)
    N = sheet.size("N", x.shape[0] * x.shape[1] if len(x.shape) == 3 else x.shape[0])
    G, H = sheet.size("G", gates), sheet.size("H", hidden)
    P = sheet.size("P", projected) if projected else H
    d = sheet.size("d", module.size("input_size"))
    directions = ("", "_reverse") if module.flag("bidirectional") else ("",)
    inputs = [sheet.tensor("x", N * d, x.needs_grad)]
    width = d
    for layer in range(module.size("num_layers")):
        outputs = []
        for direction in directions:
            end = f"l{layer}{direction}"
            trained = [module.trains(f"weight_{part}_{end}") for part in ("ih", "hh")]
            needs_grad = any(t.needs_grad for t in inputs) or any(trained)
            source = sheet.tensor("x", N * width, any(t.needs_grad for t in inputs))
            state = sheet.tensor("h", N * P, needs_grad)
            sheet.linear(f"input_{end}", source, N, width, G * H, trained[0])
            sheet.linear(f"state_{end}", state, N, P, G * H, trained[1])
            if projected:
                cells = sheet.tensor("cell outputs", N * H, needs_grad)
                sheet.linear(f"projection_{end}", cells, N, H, P, module.trains(f"weight_hr_{end}"))
            outputs.append(state)
        inputs, width = outputs, len(directions) * P
    return sheet.prediction


@binds("torch.nn.modules.rnn", "RNNCell", "GRUCell", "LSTMCell")
def cell(module: Recorded, call: Given) -> Prediction:
    """One step: 2 B G H (d_in + H)."""
    x, before = call.input(0, "input"), call.find(1, "hx")
    sheet = Sheet(module.class_name.lower(), call)
    B = sheet.size("B", x.shape[0] if len(x.shape) == 2 else 1)
    d, H = sheet.size("d", module.size("input_size")), sheet.size("H", module.size("hidden_size"))
    G = sheet.size("G", _GATES[module.class_name])
    if module.class_name == "LSTMCell":
        raise UnpredictableError("the state that it was given is no tensor but a pair of them")
    state = sheet.tensor("h", B * H, before is not None and before.needs_grad)
    sheet.linear("input", sheet.tensor("x", B * d, x.needs_grad), B, d, G * H, module.trains("weight_ih"))
    sheet.linear("state", state, B, H, G * H, module.trains("weight_hh"))
    return sheet.prediction
