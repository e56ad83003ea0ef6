"""Torch's layers without memory of their own: linear, convolutions, and those that contract nothing."""

from __future__ import annotations

from math import prod

from attnprof.analytic.binding import Given, Recorded, UnpredictableError, binds
from attnprof.analytic.bound.writing import Sheet, rows
from attnprof.analytic.prediction import Prediction


@binds("torch.nn.modules.linear", "Linear", "NonDynamicallyQuantizableLinear")
def linear(module: Recorded, call: Given) -> Prediction:
    """Y = X W: 2 N d_in d_out for N rows."""
    n_out, n_in = module.matrix("weight")
    return _matrix(module, call, n_in, n_out)


@binds("transformers.pytorch_utils", "Conv1D")
def transposed_linear(module: Recorded, call: Given) -> Prediction:
    """The same with its weight stored as [d_in, d_out]."""
    n_in, n_out = module.matrix("weight")
    return _matrix(module, call, n_in, n_out)


def _matrix(module: Recorded, call: Given, n_in: int, n_out: int) -> Prediction:
    x = call.input(0, "input", "x")
    if x.shape[-1:] != (n_in,):
        raise UnpredictableError("its input is no plain tensor of vectors")
    sheet = Sheet("linear", call)
    N, d, f = sheet.size("N", rows(x)), sheet.size("d_in", n_in), sheet.size("d_out", n_out)
    sheet.linear("product", sheet.tensor("x", N * d, x.needs_grad), N, d, f, module.trains("weight"))
    return sheet.prediction


@binds("torch.nn.modules.conv", "Conv1d", "Conv2d", "Conv3d")
def convolution(module: Recorded, call: Given) -> Prediction:
    """Each output element is a product over C_in / groups channels and all taps, padding included."""
    x, out = call.input(0, "input"), _output(call)
    weight = module.weight("weight").shape
    return _taps(module, call, "outputs", prod(out), prod(weight[1:]), x.needs_grad)


@binds("torch.nn.modules.conv", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d")
def transposed_convolution(module: Recorded, call: Given) -> Prediction:
    """Each input element goes to C_out / groups channels, through all taps."""
    x = call.input(0, "input")
    weight = module.weight("weight").shape
    return _taps(module, call, "inputs", prod(x.shape), prod(weight[1:]), x.needs_grad)


def _taps(module: Recorded, call: Given, name: str, places: int, taps: int, input_grad: bool) -> Prediction:
    sheet = Sheet("convolution", call)
    n, k = sheet.size(f"n_{name}", places), sheet.size("taps", taps)
    x = sheet.tensor("x", n, input_grad)
    weight = sheet.tensor("weight", k, module.trains("weight"))
    sheet.tape.product("convolution", x, weight, 2 * n * k, "output", n, factors=("X", "W"))
    return sheet.prediction


def _output(call: Given) -> tuple[int, ...]:
    if call.output is None:
        raise UnpredictableError("its output is no tensor")
    return call.output.shape


@binds("torch.nn.modules.activation")
@binds("torch.nn.modules.batchnorm")
@binds("torch.nn.modules.dropout")
@binds("torch.nn.modules.flatten")
@binds("torch.nn.modules.instancenorm")
@binds("torch.nn.modules.linear", "Identity")
@binds("torch.nn.modules.normalization")
@binds("torch.nn.modules.padding")
@binds("torch.nn.modules.pixelshuffle")
@binds("torch.nn.modules.pooling")
@binds("torch.nn.modules.sparse")
@binds("torch.nn.modules.upsampling")
def no_contraction(module: Recorded, call: Given) -> Prediction:
    """Element by element, or rows looked up: no matmul FLOPs, in any phase."""
    return Prediction("no contraction", ())
