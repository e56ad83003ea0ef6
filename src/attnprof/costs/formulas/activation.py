"""Activations and their backward: N results, both branches of a piecewise definition counted.

A backward works from what the forward kept; g is the incoming gradient. Coefficients that are 1 are not
multiplied by, constants are folded, common subexpressions are computed once.
"""

from __future__ import annotations

from attnprof.core.signature import OpSignature
from attnprof.core.work import Work
from attnprof.costs.arithmetic import flops, is_complex
from attnprof.costs.formulas.pointwise import results
from attnprof.costs.registry import cost, traffic
from attnprof.costs.traffic import default, reading

#: The definition of one result, in words.
DEFINITIONS = {
    "aten.relu": "max",
    "aten.threshold": "gt",
    "aten.threshold_backward": "gt",
    "aten.hardtanh": "max min",
    "aten.hardtanh_backward": "gt lt",
    "aten.hardsigmoid": "add max min div",  # min(max(x + 3, 0), 6) / 6
    "aten.hardsigmoid_backward": "gt lt mul",  # g / 6 inside
    "aten.hardswish": "add max min mul div",  # x min(max(x + 3, 0), 6) / 6
    "aten.hardswish_backward": "lt lt div add mul",  # g (x / 3 + 1/2) in the middle, g above, 0 below
    "aten.leaky_relu": "gt mul",
    "aten.leaky_relu_backward": "gt mul",
    "aten._prelu_kernel": "gt mul",
    "aten._prelu_kernel_backward": "gt mul mul",  # w g for x, x g for w
    "aten.hardshrink": "gt lt",
    "aten.hardshrink_backward": "gt lt",
    "aten.softshrink": "gt lt sub add",  # x - l above, x + l below
    "aten.softshrink_backward": "gt lt",
    "aten.sigmoid_backward": "sub mul mul",  # g (1 - y) y
    "aten.tanh_backward": "mul shift mul",  # g (1 - y y)
    "aten.silu": "neg exp shift div",  # x / (1 + exp(-x))
    "aten.silu_backward": "neg exp shift reciprocal shift mul shift mul mul",  # s = sigmoid(x); g s (1 + x (1 - s))
    "aten.mish": "exp log1p tanh mul",  # x tanh(log1p(exp x))
    # s = sigmoid(x) 4; t = tanh(log1p(exp x)) 3; g (t + x s (1 - t t)) 6
    "aten.mish_backward": "neg exp add div exp log1p tanh mul sub mul mul add mul",
    "aten.log_sigmoid_forward": "min abs neg exp log1p sub",  # min(x, 0) - log1p(exp(-|x|))
    "aten.glu": "neg exp add div mul",  # a sigmoid(b)
    "aten.rrelu_with_noise_functional": "gt mul",
    "aten.glu_jvp": "neg exp add div mul sub mul mul add",  # b' y (1 - s) + a' s, s = sigmoid(b)
    "aten.rrelu_with_noise": "gt mul",  # x noise below 0, or the mean slope in evaluation
}


@cost(*DEFINITIONS)
def activation(op: OpSignature) -> Work:
    """N results, each the words of its definition."""
    packet = op.packet
    words = DEFINITIONS.get(packet) or DEFINITIONS[packet.removesuffix("_")]
    return Work(vector=results(op) * flops(words, is_complex(op)))


@cost("aten.gelu")
def gelu(op: OpSignature) -> Work:
    """x/2 (1 + erf(k x)): scale, erf, add, half, mul = 5.

    tanh: x/2 (1 + tanh(k (x + c x x x))): the cube 2, c, add, k, tanh, add, half, mul = 9.
    """
    return Work(vector=results(op) * (9 if op.value("approximate") == "tanh" else 5))


@cost("aten.gelu_backward")
def gelu_backward(op: OpSignature) -> Work:
    """g (cdf + x pdf), 3, with cdf = (1 + erf(k x)) / 2, 4, and pdf = c exp(-x x / 2), 4: 11.

    tanh: t = tanh(k (x + c x x x)) 6 (x x is kept); left = x/2 and right = 1 + t 2; d left = right / 2 1;
    d t = 1 - t t 2; d inner = k (1 + 3c x x) 3; d right = left d t d inner 2; g (d left + d right) 2: 18.
    """
    return Work(vector=results(op) * (18 if op.value("approximate") == "tanh" else 11))


@cost("aten.elu", "aten.celu")
def elu(op: OpSignature) -> Work:
    """scale x above 0, alpha scale expm1(input_scale x) below: a comparison, expm1, and each coefficient not 1.

    celu is elu with an input_scale of 1 / alpha.
    """
    alpha, scale = op.number("alpha", 1), op.number("scale", 1)
    input_scale = alpha if op.packet.startswith("aten.celu") else op.number("input_scale", 1)
    coefficients = (alpha != 1 or scale != 1) + (scale != 1) + (input_scale != 1)
    return Work(vector=results(op) * (2 + coefficients))


@cost("aten.elu_backward")
def elu_backward(op: OpSignature) -> Work:
    """A comparison, exp, g, and each coefficient that is not 1.

    From x: scale g above 0, (alpha scale input_scale) exp(input_scale x) g below. From the result y:
    (y + alpha scale) input_scale g below, an addition in place of the exp.
    """
    alpha, scale, input_scale = op.number("alpha", 1), op.number("scale", 1), op.number("input_scale", 1)
    if op.number("is_result"):
        coefficients = (scale != 1) + (input_scale != 1)
    else:
        coefficients = (not alpha == scale == input_scale == 1) + (scale != 1) + (input_scale != 1)
    return Work(vector=results(op) * (3 + coefficients))


@cost("aten.softplus")
def softplus(op: OpSignature) -> Work:
    """log1p(exp(beta x)) / beta, x where beta x exceeds the threshold: exp, log1p, compare; beta twice unless 1."""
    return Work(vector=results(op) * (3 + 2 * (op.number("beta", 1) != 1)))


@cost("aten.softplus_backward")
def softplus_backward(op: OpSignature) -> Work:
    """z = exp(beta x); g z / (z + 1), g above the threshold: exp, compare, mul, add, div; beta once unless 1."""
    return Work(vector=results(op) * (5 + (op.number("beta", 1) != 1)))


@cost("aten.log_sigmoid_backward")
def log_sigmoid_backward(op: OpSignature) -> Work:
    """With z = exp(-|x|): g (m - s z / (1 + z)), m and s chosen by the sign of x: compare, add, div, mul, sub, mul.

    The CPU keeps z from the forward; CUDA, whose buffer is empty, computes it again (abs, neg, exp).
    """
    return Work(vector=results(op) * (6 if op.tensor("buffer").numel else 9))


@cost("aten.glu_backward")
def glu_backward(op: OpSignature) -> Work:
    """Per gated pair: s = sigmoid(b) 4; da = g s; db = da (1 - s) a: 8."""
    return Work(vector=8 * op.tensor("grad_output").numel)


@cost("aten.rrelu_with_noise_backward")
def rrelu_with_noise_backward(op: OpSignature) -> Work:
    """g noise in training; the leaky slope, compare and mul, in evaluation."""
    return Work(vector=results(op) * (1 if op.number("training") else 2))


@traffic("aten.rrelu_with_noise", "aten.rrelu_with_noise_functional")
def rrelu_traffic(op: OpSignature) -> tuple[int, int]:
    """The noise is drawn here: written in training, never read, unused in evaluation."""
    read, _ = reading(op, "self")
    noise = op.maybe("noise")
    written = default(op)[1]
    if noise is not None and not op.number("training") and "noise" in op.mutated:
        written -= noise.bytes
    return read, written
